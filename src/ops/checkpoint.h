// Memory for time: values that are computed again in the backward pass instead of kept.
#pragma once

#include <functional>

#include "ops/context.h"

namespace instruct::ops {

// body(context, x), of which only x and the result are kept: what lies between is computed again in the backward pass
// (Chen et al., "Training deep nets with sublinear memory cost", 2016). The body must give the same bits each time it
// is called, and everything it refers to must outlive the backward pass. x is read by the body alone.
using CheckpointBody = std::function<Variable(const Context& context, const Variable& x)>;
Variable checkpoint(const Context& context, const Variable& x, const CheckpointBody& body);

// The same for one value that the forward pass is done with: drops it; body(context), which gave it, gives it again
// when the backward pass asks for it. Does nothing when nothing is recorded.
void forget(const Context& context, const Variable& value, const std::function<Variable(const Context& context)>& body);

}  // namespace instruct::ops
