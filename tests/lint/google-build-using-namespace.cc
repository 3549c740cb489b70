#include <string>

using namespace std;  // expect
string name();
