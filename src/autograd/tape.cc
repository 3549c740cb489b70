#include "autograd/tape.h"

namespace instruct::autograd {

void Tape::backward() {
  while (!steps_.empty()) {
    const std::function<void()> step = std::move(steps_.back());
    steps_.pop_back();
    step();
  }
}

}  // namespace instruct::autograd
