#include <string>
#include <utility>

void take(std::string text);
void run(const std::string& text) { take(std::move(text)); }  // expect
