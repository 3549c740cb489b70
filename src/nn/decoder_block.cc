#include "nn/decoder_block.h"

#include "ops/rms_norm.h"
#include "ops/rows.h"

namespace instruct::nn {

Variable DecoderBlock::attend(const Context& context, const Variable& x, const PassInput& pass) const {
  const Variable normed = ops::rms_norm(context, x, attention_norm, epsilon);
  const std::int64_t width = pass.attention.head_width;
  const Variable q = ops::rotate(context, query(context, normed), width, pass.positions, *pass.rotary);  // [T, H*K]
  const Variable k = ops::rotate(context, key(context, normed), width, pass.positions, *pass.rotary);    // [T, G*K]
  const Variable v = value(context, normed);                                                             // [T, G*K]
  if (pass.cache == nullptr) return ops::attention(context, q, k, v, *pass.plan, pass.attention);
  pass.cache->store(index, pass.slots, k.value(), v.value());
  return ops::attention(context, q, Variable(pass.cache->keys(index)), Variable(pass.cache->values(index)), *pass.plan,
                        pass.attention);
}

Variable DecoderBlock::operator()(const Context& context, const Variable& x, const PassInput& pass,
                                  std::span<const std::int32_t> rows) const {
  Variable attended = attend(context, x, pass);  // [T, H*K]
  Variable residual = x;
  if (!rows.empty()) {
    attended = ops::select_rows(context, attended, rows);
    residual = ops::select_rows(context, residual, rows);
  }
  residual = ops::add(context, residual, output(context, attended));
  const Variable normed = ops::rms_norm(context, residual, feed_forward_norm, epsilon);
  const Variable gated = ops::swiglu(context, gate(context, normed), up(context, normed));  // [T, F]
  return ops::add(context, residual, down(context, gated));
}

}  // namespace instruct::nn
