#include <cstring>
#include <string>

struct Row {
  std::string text;
};
void clear(Row& row) { std::memset(&row, 0, sizeof(Row)); }  // expect
