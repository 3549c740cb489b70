#include "nn/encoder_block.h"

#include <vector>

#include "ops/heads.h"
#include "ops/rows.h"

namespace instruct::nn {

Variable EncoderBlock::attend(const Context& context, const Variable& x, const EncoderInput& pass) const {
  std::array<Variable, 3> heads;  // queries, keys, values: [T, D] each
  if (key.weight.defined()) {
    heads = apply_all<3>(context, x, {&query, &key, &value});
  } else {
    const std::int64_t width = query.outputs() / 3;
    const std::vector<Variable> parts = ops::split_columns(context, query(context, x), std::array{width, width, width});
    std::copy(parts.begin(), parts.end(), heads.begin());
  }
  if (rotary) {
    for (Variable* turned : {&heads[0], &heads[1]})
      *turned = ops::rotate(context, *turned, attention.head_width, pass.positions, pass.rotary[*rotary]);
  }
  if (pass.cache != nullptr) {
    pass.cache->store(context, index, pass.slots, heads[1].value(), heads[2].value());
    return ops::attention(context, heads[0], Variable(pass.cache->keys(index)), Variable(pass.cache->values(index)),
                          *pass.plan, attention, pass.bias);
  }
  if (pass.plans_by_head.empty())
    return ops::attention(context, heads[0], heads[1], heads[2], *pass.plan, attention, pass.bias);
  const std::int64_t count = heads[0].value().dim(1) / attention.head_width;
  for (Variable& part : heads) part = ops::heads_to_rows(context, part, attention.head_width);
  const Variable attended = ops::attention(context, heads[0], heads[1], heads[2],
                                           pass.plans_by_head[static_cast<std::size_t>(index)], attention);
  return ops::heads_from_rows(context, attended, count);
}

Variable EncoderBlock::attend_source(const Context& context, const Variable& x, const EncoderInput& pass) const {
  ops::AttentionOptions options = attention;
  options.window = 0;
  const Variable queries = cross.query(context, x);
  Variable keys, values;
  if (pass.source.defined()) {
    keys = cross.key(context, pass.source);
    values = cross.value(context, pass.source);
  }
  if (pass.cache != nullptr) {
    if (pass.source.defined()) pass.cache->store(context, index, pass.source_slots, keys.value(), values.value());
    keys = Variable(pass.cache->keys(index));
    values = Variable(pass.cache->values(index));
  }
  return ops::attention(context, queries, keys, values, *pass.source_plan, options);
}

Variable EncoderBlock::feed_forward(const Context& context, const Variable& x) const {
  const Variable raised = up(context, x);
  if (gate.weight.defined()) return down(context, ops::gate(context, activation, gate(context, x), raised));
  if (!gated) return down(context, ops::activate(context, activation, raised));
  const std::int64_t half = up.outputs() / 2;
  const std::vector<Variable> parts = ops::split_columns(context, raised, std::array{half, half});
  return down(context, ops::gate(context, activation, parts[0], parts[1]));
}

Variable EncoderBlock::operator()(const Context& context, const Variable& x, const EncoderInput& pass,
                                  std::span<const std::int32_t> rows) const {
  const auto place = static_cast<std::uint64_t>(2 * index + 1);
  const bool before = norms == Norms::kBefore;
  Variable attended = attend(context, before ? attention_norm(context, x) : x, pass);
  Variable residual = x;
  if (!rows.empty() && !cross.defined()) {
    attended = ops::select_rows(context, attended, rows);
    residual = ops::select_rows(context, residual, rows);
  }
  residual = ops::add(context, residual, pass.dropout(context, output(context, attended), place));
  if (!before) residual = attention_norm(context, residual);
  if (cross.defined()) {
    const Variable read = attend_source(context, before ? cross.norm(context, residual) : residual, pass);
    constexpr std::uint64_t kCross = 1 << 14;  // beyond the places of other parts
    residual = ops::add(context, residual, pass.dropout(context, cross.output(context, read), kCross + place));
    if (!before) residual = cross.norm(context, residual);
    if (!rows.empty()) residual = ops::select_rows(context, residual, rows);
  }
  const Variable lowered = feed_forward(context, before ? feed_forward_norm(context, residual) : residual);
  const Variable sum = ops::add(context, residual, pass.dropout(context, lowered, place + 1));
  return before ? sum : feed_forward_norm(context, sum);
}

}  // namespace instruct::nn
