#include <string>
#include <vector>

using std::string;
using std::vector;  // expect
string name();
