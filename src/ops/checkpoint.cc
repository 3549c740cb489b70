#include "ops/checkpoint.h"

namespace instruct::ops {

Variable checkpoint(const Context& context, const Variable& x, const CheckpointBody& body) {
  if (context.tape == nullptr) return body(context, x);
  const auto record_on = [context](Tape& tape) {
    Context inner = context;
    inner.tape = &tape;
    return inner;
  };
  // Recorded though it is dropped: a pass that records computes dropout.
  Tape dropped;
  const Variable once = body(record_on(dropped), x);
  dropped.clear();
  if (!once.requires_gradient()) return once;
  Variable y(once.value(), true);
  context.tape->record([record_on, x, y, body] {
    if (!y.gradient().defined()) return;
    Tape tape;
    const Variable input(x.value(), x.requires_gradient());
    const Variable again = body(record_on(tape), input);
    again.mutable_gradient() = y.gradient();
    y.mutable_gradient() = Tensor();
    tape.backward();
    if (x.requires_gradient()) x.mutable_gradient() = input.gradient();
  });
  return y;
}

}  // namespace instruct::ops
