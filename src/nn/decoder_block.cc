#include "nn/decoder_block.h"

#include <functional>
#include <vector>

#include "ops/checkpoint.h"
#include "ops/rows.h"

namespace instruct::nn {

Variable DecoderBlock::add_to(const Context& context, const Variable& x, const Variable& part,
                              const LayerNorm& out_norm) {
  const Variable added = out_norm(context, part);
  Variable sum = ops::add(context, x, added);
  added.forget();  // read by nothing else
  return sum;
}

Variable DecoderBlock::place(const Context& context, const Variable& projected, const LayerNorm& head_norm,
                             const PassInput& pass) const {
  const Variable heads = head_norm(context, projected);
  if (!rotary) return heads;
  return ops::rotate(context, heads, attention.head_width, pass.positions, pass.rotary[*rotary]);
}

Variable DecoderBlock::attend(const Context& context, const Variable& x, const PassInput& pass) const {
  // What is large to keep and cheap to compute is forgotten.
  const auto normalise = [this, x](const Context& c) { return attention_norm(c, x); };
  const Variable normed = normalise(context);
  const auto [projected_q, projected_k, v] = apply_all<3>(context, normed, {&query, &key, &value}, pass.adapters);
  const Variable q = place(context, projected_q, query_norm, pass);  // [T, H*K]
  const Variable k = place(context, projected_k, key_norm, pass);    // [T, G*K], as v is
  ops::forget(context, normed, normalise);
  if (pass.cache != nullptr) {
    pass.cache->store(context, index, pass.slots, k.value(), v.value());
    return ops::attention(context, q, Variable(pass.cache->keys(index)), Variable(pass.cache->values(index)),
                          *pass.plan, attention);
  }
  Variable attended = ops::attention(context, q, k, v, *pass.plan, attention);
  const auto forget_heads = [&](const Variable& heads, const Variable& projected, const Linear& layer,
                                const LayerNorm& head_norm) {
    const auto project = [&layer, normed](const Context& c) { return layer(c, normed); };
    Variable kept;  // without a norm the heads are the projection itself, turned in place
    if (head_norm.defined()) {
      kept = projected;
      ops::forget(context, kept, project);
    }
    ops::forget(context, heads, [this, kept, project, &head_norm, pass](const Context& c) {
      return place(c, kept.defined() ? kept : project(c), head_norm, pass);
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
  residual = add_to(context, residual, output(context, attended, adapters), attention_out_norm);
  return add_to(context, residual, feed_forward(context, residual, adapters, pass.balance), feed_forward_out_norm);
}

Variable DecoderBlock::feed_forward(const Context& context, const Variable& x, std::span<const std::int32_t> adapters,
                                    ops::Balance* balance) const {
  const auto normalise = [this, x](const Context& c) { return feed_forward_norm(c, x); };
  const Variable normed = normalise(context);
  if (!mixture.experts.empty()) {
    Variable mixed = mixture(context, normed, activation, adapters, balance);
    ops::forget(context, normed, normalise);
    return mixed;
  }
  std::function<Variable(const Context&)> activate;
  if (gate.weight.defined()) {
    const auto [opened, raised] = apply_all<2>(context, normed, {&gate, &up}, adapters);
    activate = [this, opened = opened, raised = raised](const Context& c) {
      return ops::gate(c, activation, opened, raised);
    };
  } else {
    activate = [this, raised = up(context, normed, adapters)](const Context& c) {
      return ops::activate(c, activation, raised);
    };
  }
  ops::forget(context, normed, normalise);
  const Variable activated = activate(context);  // [T, F]
  Variable lowered = down(context, activated, adapters);
  ops::forget(context, activated, activate);
  return lowered;
}

}  // namespace instruct::nn
