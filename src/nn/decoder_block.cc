#include "nn/decoder_block.h"

#include <vector>

#include "ops/checkpoint.h"
#include "ops/rms_norm.h"
#include "ops/rows.h"

namespace instruct::nn {
namespace {

// x + y, where y is read by nothing else.
Variable add_last(const Context& context, const Variable& x, const Variable& y) {
  Variable sum = ops::add(context, x, y);
  y.forget();
  return sum;
}

}  // namespace

Variable DecoderBlock::attend(const Context& context, const Variable& x, const PassInput& pass) const {
  // What is large to keep and cheap to compute is forgotten.
  const auto norm = [this, x](const Context& c) { return ops::rms_norm(c, x, attention_norm, epsilon); };
  const Variable normed = norm(context);
  const auto rotate = [width = pass.attention.head_width, positions = pass.positions, tables = *pass.rotary](
                          const Context& c, const Variable& heads) {
    return ops::rotate(c, heads, width, positions, tables);
  };
  auto [q, k, v] = apply_all<3>(context, normed, {&query, &key, &value}, pass.adapters);
  q = rotate(context, q);  // [T, H*K]
  k = rotate(context, k);  // [T, G*K], as v is
  ops::forget(context, normed, norm);
  if (pass.cache == nullptr) {
    Variable attended = ops::attention(context, q, k, v, *pass.plan, pass.attention);
    ops::forget(context, q, [this, normed, rotate](const Context& c) { return rotate(c, query(c, normed)); });
    ops::forget(context, k, [this, normed, rotate](const Context& c) { return rotate(c, key(c, normed)); });
    ops::forget(context, v, [this, normed](const Context& c) { return value(c, normed); });
    return attended;
  }
  pass.cache->store(context, index, pass.slots, k.value(), v.value());
  return ops::attention(context, q, Variable(pass.cache->keys(index)), Variable(pass.cache->values(index)), *pass.plan,
                        pass.attention);
}

Variable DecoderBlock::operator()(const Context& context, const Variable& x, const PassInput& pass,
                                  std::span<const std::int32_t> rows) const {
  Variable attended = attend(context, x, pass);  // [T, H*K]
  Variable residual = x;
  std::span<const std::int32_t> adapters = pass.adapters;
  std::vector<std::int32_t> of_rows;
  if (!rows.empty()) {
    if (!adapters.empty()) {
      for (const std::int32_t row : rows) of_rows.push_back(adapters[static_cast<std::size_t>(row)]);
      adapters = of_rows;
    }
    attended = ops::select_rows(context, attended, rows);
    residual = ops::select_rows(context, residual, rows);
  }
  residual = add_last(context, residual, output(context, attended, adapters));
  const auto norm = [this, residual](const Context& c) {
    return ops::rms_norm(c, residual, feed_forward_norm, epsilon);
  };
  const Variable normed = norm(context);
  const auto [opened, raised] = apply_all<2>(context, normed, {&gate, &up}, adapters);
  ops::forget(context, normed, norm);
  const auto gating = [opened = opened, raised = raised](const Context& c) { return ops::swiglu(c, opened, raised); };
  const Variable gated = gating(context);  // [T, F]
  const Variable lowered = down(context, gated, adapters);
  ops::forget(context, gated, gating);
  return add_last(context, residual, lowered);
}

}  // namespace instruct::nn
