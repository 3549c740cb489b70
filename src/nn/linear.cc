#include "nn/linear.h"

#include <utility>

namespace instruct::nn {

void Linear::attach(std::shared_ptr<const ops::LowRank> given) {
  branch = std::move(given);
  std::int64_t begin = 0;
  for (Linear* section : sections) {
    const std::int64_t end = begin + section->outputs();
    std::shared_ptr<ops::LowRank> part;
    if (branch != nullptr) {
      part = std::make_shared<ops::LowRank>(*branch);
      part->b = branch->b.rows(begin, end);
    }
    section->attach(std::move(part));
    begin = end;
  }
}

}  // namespace instruct::nn
