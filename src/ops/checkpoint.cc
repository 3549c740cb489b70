#include "ops/checkpoint.h"

namespace instruct::ops {
namespace {

Context on_tape(const Context& context, Tape& tape) {
  Context inner = context;
  inner.tape = &tape;
  return inner;
}

}  // namespace

// Both record what they compute though they drop the tape: a pass that records computes dropout.

Variable checkpoint(const Context& context, const Variable& x, const CheckpointBody& body) {
  if (context.tape == nullptr) return body(context, x);
  Tape dropped;
  const Variable once = body(on_tape(context, dropped), x);
  if (!once.requires_gradient()) return once;
  Variable y(once.value(), true);
  context.tape->record([context, x, y, body] {
    if (!y.gradient().defined()) return;
    Tape tape;
    const Variable input(x.value(), x.requires_gradient());
    const Variable again = body(on_tape(context, tape), input);
    again.mutable_gradient() = y.gradient();
    y.mutable_gradient() = Tensor();
    tape.backward();
    if (x.requires_gradient()) x.mutable_gradient() = input.gradient();
  });
  return y;
}

void forget(const Context& context, const Variable& value,
            const std::function<Variable(const Context& context)>& body) {
  if (context.tape == nullptr) return;
  value.forget([context, body] {
    Tape dropped;
    return body(on_tape(context, dropped)).value();
  });
}

}  // namespace instruct::ops
