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

Variable DecoderBlock::place(const Context& context, const Variable& projected, const Variable& head_norm,
                             const PassInput& pass) const {
  const Variable heads = head_norm.defined() ? ops::rms_norm(context, projected, head_norm, epsilon) : projected;
  if (!rotates) return heads;
  return ops::rotate(context, heads, pass.attention.head_width, pass.positions, *pass.rotary);
}

Variable DecoderBlock::attend(const Context& context, const Variable& x, const PassInput& pass) const {
  // What is large to keep and cheap to compute is forgotten.
  const auto norm = [this, x](const Context& c) { return ops::rms_norm(c, x, attention_norm, epsilon); };
  const Variable normed = norm(context);
  const auto [projected_q, projected_k, v] = apply_all<3>(context, normed, {&query, &key, &value}, pass.adapters);
  const Variable q = place(context, projected_q, query_norm, pass);  // [T, H*K]
  const Variable k = place(context, projected_k, key_norm, pass);    // [T, G*K], as v is
  ops::forget(context, normed, norm);
  ops::AttentionOptions options = pass.attention;
  options.window = window;
  if (pass.cache != nullptr) {
    pass.cache->store(context, index, pass.slots, k.value(), v.value());
    return ops::attention(context, q, Variable(pass.cache->keys(index)), Variable(pass.cache->values(index)),
                          *pass.plan, options);
  }
  Variable attended = ops::attention(context, q, k, v, *pass.plan, options);
  const auto forget_heads = [&](const Variable& heads, const Variable& projected, const Linear& layer,
                                const Variable& head_norm) {
    const auto project = [&layer, normed](const Context& c) { return layer(c, normed); };
    Variable kept;  // without a norm the heads are the projection itself, turned in place
    if (head_norm.defined()) {
      kept = projected;
      ops::forget(context, kept, project);
    }
    ops::forget(context, heads, [this, kept, project, &head_norm, pass, tables = *pass.rotary](const Context& c) {
      PassInput same = pass;
      same.rotary = &tables;
      return place(c, kept.defined() ? kept : project(c), head_norm, same);
    });
  };
  forget_heads(q, projected_q, query, query_norm);
  forget_heads(k, projected_k, key, key_norm);
  ops::forget(context, v, [this, normed](const Context& c) { return value(c, normed); });
  return attended;
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
