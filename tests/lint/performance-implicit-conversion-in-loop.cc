#include <map>
#include <string>

std::size_t total(const std::map<int, std::string>& texts) {
  std::size_t sum = 0;
  for (const std::pair<int, std::string>& entry : texts) sum += entry.second.size();  // expect
  return sum;
}
