#include "models/encoder_head.h"

#include "base/error.h"

namespace instruct::models {
namespace {

struct Names {
  std::string_view dense, norm, out, bias;
};

Names names_of(const EncoderConfig& config, HeadKind kind) {
  const HeadNames& names = encoder_family_of(config.architecture).heads;
  switch (kind) {
    case HeadKind::kText:
      return {names.dense, names.norm, names.out, {}};
    case HeadKind::kTokens:
      return {names.token_dense, names.token_norm, names.token_out, {}};
    case HeadKind::kSpan:
      if (names.span_out.empty()) {
        raise(ErrorCategory::kUnsupported,
              "{}'s head for spans has layers of its own, which this program does not know: other encoders find spans",
              config.architecture);
      }
      return {names.token_dense, names.token_norm, names.span_out, {}};
    case HeadKind::kMasked:
      break;
  }
  return {names.masked_dense, names.masked_norm, names.masked_out, names.masked_bias};
}

// Where the file has what a head may lack of it, that is loaded; the rest is drawn.
class HeadLoader {
 public:
  HeadLoader(const WeightSource& source, const HeadOptions& head, const WeightOptions& options,
             tensor::Allocator& allocator, float deviation)
      : source_(source), head_(head), allocator_(allocator), deviation_(deviation), trainable_(options) {}

  nn::Linear linear(std::string_view name, std::int64_t outputs, std::int64_t inputs, bool bias) {
    const std::string full = head_.prefix + std::string(name);
    if (stored(full + ".weight", {outputs, inputs}))
      return WeightLoader(source_, trainable_, allocator_).linear(full, outputs, inputs, bias);
    nn::Linear layer{.name = full, .weight = drawn({outputs, inputs}, trainable_.dtype)};
    if (bias) layer.bias = filled(outputs, 0.0F);
    return layer;
  }
  nn::LayerNorm norm(std::string_view name, std::int64_t width, bool bias, float epsilon) {
    const std::string full = head_.prefix + std::string(name);
    const std::string weight = full + (source_.has(full + ".gamma") ? ".gamma" : ".weight");
    if (stored(weight, {width})) return WeightLoader(source_, trainable_, allocator_).norm(full, width, bias, epsilon);
    nn::LayerNorm norm{.weight = filled(width, 1.0F), .epsilon = epsilon};
    if (bias) norm.bias = filled(width, 0.0F);
    return norm;
  }
  Variable vector(const std::string& name, std::int64_t width) {
    if (stored(name, {width})) return WeightLoader(source_, trainable_, allocator_).vector(name, width);
    return filled(width, 0.0F);
  }

 private:
  // Whether to take a layer from the file.
  bool stored(const std::string& name, const tensor::Shape& shape) const {
    if (head_.draw == Draw::kAll) return false;
    const bool there = source_.has(name);
    if (head_.draw == Draw::kMissing) return there && source_.get(name).shape() == shape;
    if (!there)
      raise(ErrorCategory::kNotFound, "{}: tensor '{}' is missing: tune the model first", source_.origin(), name);
    return true;
  }
  Variable drawn(const tensor::Shape& shape, DType dtype) {
    RandomStream random(head_.seed, RandomPurpose::kInitialise, place_++);
    Tensor values = Tensor::empty(shape, DType::kF32, allocator_);
    for (std::int64_t i = 0; i < values.elements(); ++i)
      values.data<float>()[i] = static_cast<float>(random.next_normal()) * deviation_;
    ThreadPool threads(1);
    return Variable::parameter(dtype == DType::kF32 ? values : ops::converted_copy(values, dtype, allocator_, threads));
  }
  Variable filled(std::int64_t width, float value) {
    const std::vector<float> values(static_cast<std::size_t>(width), value);
    return Variable::parameter(Tensor::from_floats(values, {width}, allocator_));
  }

  const WeightSource& source_;
  const HeadOptions& head_;
  tensor::Allocator& allocator_;
  float deviation_;
  WeightOptions trainable_;
  std::uint64_t place_ = 1 << 20;  // streams that adapters do not take
};

}  // namespace

Variable EncoderHead::operator()(const ops::Context& context, const Variable& x, const nn::Dropout& dropout) const {
  return out(context, before_out(context, x, dropout));
}

Variable EncoderHead::before_out(const ops::Context& context, const Variable& x, const nn::Dropout& dropout) const {
  constexpr std::uint64_t kPlace = 1 << 15;  // beyond those of blocks
  Variable y = x;
  if (dense.weight.defined()) y = ops::activate(context, activation, dense(context, y));
  y = norm(context, y);
  return kind == HeadKind::kText || kind == HeadKind::kTokens ? dropout(context, y, kPlace) : y;
}

std::vector<float> EncoderHead::word_log_probabilities(const ops::Context& context, const Variable& y,
                                                       const ops::Predictions& predictions) const {
  return ops::linear_cross_entropy(context, y, out.weight, predictions, out.outputs(), {}, {.bias = out.bias});
}

std::vector<NamedWeight> EncoderHead::weights() const {
  std::vector<NamedWeight> result;
  if (dense.weight.defined()) add_weights(dense, result);
  if (norm.weight.defined()) add_weights(norm_name, norm, result);
  if (kind == HeadKind::kMasked) {
    result.push_back({bias_name, out.bias});
  } else {
    add_weights(out, result);
  }
  return result;
}

bool has_head(const EncoderConfig& config, const WeightSource& source, HeadKind kind, const std::string& prefix) {
  const Names names = names_of(config, kind);
  return source.has(prefix + std::string(kind == HeadKind::kMasked ? names.bias : names.out) +
                    (kind == HeadKind::kMasked ? "" : ".weight"));
}

EncoderHead load_head(const Encoder& encoder, const WeightSource& source, const HeadOptions& head,
                      const WeightOptions& options, tensor::Allocator& allocator) {
  const EncoderConfig& config = encoder.config();
  const EncoderFamily& family = encoder_family_of(config.architecture);
  const Names names = names_of(config, head.kind);
  const std::int64_t d = config.width;
  const bool pretrained = head.kind == HeadKind::kMasked && has_head(config, source, head.kind, head.prefix);
  WeightOptions trainable = options;
  if (!pretrained) trainable.trainable = true;
  HeadLoader loader(source, head, trainable, allocator, config.initial_deviation);
  EncoderHead made;
  made.kind = head.kind;
  made.activation =
      head.kind == HeadKind::kMasked || family.head_by_config ? config.activation : family.head_activation;
  if (!names.dense.empty()) {
    const bool pooler = encoder.pooler().weight.defined() && encoder.pooler().name == names.dense;
    made.dense = pooler ? encoder.pooler() : loader.linear(names.dense, d, d, config.head_bias);
  }
  if (!names.norm.empty()) {
    made.norm_name = head.prefix + std::string(names.norm);
    made.norm = loader.norm(names.norm, d, config.norm_bias, config.norm_epsilon);
  }
  if (head.kind == HeadKind::kMasked) {
    made.bias_name = head.prefix + std::string(names.bias);
    made.out = {.name = std::string(names.out), .weight = encoder.words()};
    made.out.bias = loader.vector(made.bias_name, config.vocabulary);
  } else {
    made.out = loader.linear(names.out, head.labels, d, true);
  }
  return made;
}

}  // namespace instruct::models
