#include <string>

struct Row {
  const std::string& text() const;
};
std::size_t length(const Row& row) {
  const std::string text = row.text();  // expect
  return text.size();
}
