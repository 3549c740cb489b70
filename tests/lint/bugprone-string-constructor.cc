#include <string>

std::string dashes() { return std::string('-', 50); }  // expect
