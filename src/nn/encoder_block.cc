#include "nn/encoder_block.h"

#include <vector>

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
  return ops::attention(context, heads[0], heads[1], heads[2], *pass.plan, attention);
}

Variable EncoderBlock::feed_forward(const Context& context, const Variable& x) const {
  const Variable raised = up(context, x);
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
  if (!rows.empty()) {
    attended = ops::select_rows(context, attended, rows);
    residual = ops::select_rows(context, residual, rows);
  }
  residual = ops::add(context, residual, pass.dropout(context, output(context, attended), place));
  if (!before) residual = attention_norm(context, residual);
  const Variable lowered = feed_forward(context, before ? feed_forward_norm(context, residual) : residual);
  const Variable sum = ops::add(context, residual, pass.dropout(context, lowered, place + 1));
  return before ? sum : feed_forward_norm(context, sum);
}

}  // namespace instruct::nn
