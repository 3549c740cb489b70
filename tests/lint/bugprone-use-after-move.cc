#include <string>
#include <utility>

void take(std::string text);
std::size_t run(std::string text) {
  take(std::move(text));
  return text.size();  // expect
}
