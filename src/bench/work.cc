#include "bench/work.h"

#include <fmt/core.h>

#include <algorithm>

#include "models/families.h"
#include "models/seq2seq_config.h"

namespace instruct::bench {
namespace {

bool is_before_attention(const models::DecoderNames& names, const nn::Linear& layer) {
  const auto named = [&](std::string_view name) { return layer.name.ends_with(name); };
  return named(names.query) || named(names.key) || named(names.value) || named(names.fused_attention);
}

// Rows that go through a layer: in the last block, those without a prediction stop after serving as keys and values.
std::int64_t rows_of(const models::LanguageModel& model, const nn::Linear& layer, const data::BatchCost& cost) {
  if (layer.name == "lm_head") return cost.predictions;
  if (models::find_seq2seq_family(model.sizes().architecture) !=
      nullptr) {  // an encoder-decoder: its encoder reads sources, as does what gives keys and values of them
    const bool of_sources = layer.name.starts_with("encoder.") || layer.name.starts_with("model.encoder.") ||
                            layer.name.ends_with("EncDecAttention.k") || layer.name.ends_with("EncDecAttention.v") ||
                            layer.name.ends_with("encoder_attn.k_proj") || layer.name.ends_with("encoder_attn.v_proj");
    return of_sources ? cost.sources : cost.tokens - cost.sources;
  }
  const models::DecoderNames& names = models::family_of(model.sizes().architecture).names;
  const std::string last = fmt::format("{}{}.", names.block, model.sizes().layers - 1);
  if (layer.name.find(".experts.") != std::string::npos)
    return cost.tokens * model.sizes().chosen_experts / model.sizes().experts;  // as if evenly chosen
  return layer.name.starts_with(last) && !is_before_attention(names, layer) ? std::min(cost.tokens, cost.predictions)
                                                                            : cost.tokens;
}

// Nothing below the first block's attention input is trained, unless everything is.
bool needs_input_gradient(const models::LanguageModel& model, const nn::Linear& layer, Purpose purpose) {
  if (purpose == Purpose::kForward) return false;
  if (models::find_seq2seq_family(model.sizes().architecture) != nullptr) return true;
  const models::DecoderNames& names = models::family_of(model.sizes().architecture).names;
  const bool first = layer.name.starts_with(fmt::format("{}0.", names.block)) && is_before_attention(names, layer);
  return purpose == Purpose::kFull || !first;
}

class Products {
 public:
  void add(std::int64_t m, std::int64_t n, std::int64_t k) {
    if (m == 0) return;
    for (Product& product : list) {
      if (product.m == m && product.n == n && product.k == k) {
        ++product.count;
        return;
      }
    }
    list.push_back({m, n, k, 1});
  }
  // Forward, input gradient and weight gradient of a weight [n, k] over `rows` rows.
  void add_layer(std::int64_t rows, std::int64_t n, std::int64_t k, bool input_gradient, bool weight_gradient) {
    add(rows, n, k);
    if (input_gradient) add(rows, k, n);
    if (weight_gradient) add(n, k, rows);
  }
  std::vector<Product> list;
};

}  // namespace

std::vector<Product> linear_products(models::LanguageModel& model, const data::BatchCost& cost, Purpose purpose) {
  Products products;
  for (const nn::Linear* layer : model.linears()) {
    if (layer->name == "lm_head") continue;
    products.add_layer(rows_of(model, *layer, cost), layer->outputs(), layer->inputs(),
                       needs_input_gradient(model, *layer, purpose), purpose == Purpose::kFull);
  }
  products.add_layer(cost.predictions, model.sizes().vocabulary, model.sizes().width, purpose != Purpose::kForward,
                     purpose == Purpose::kFull);
  return products.list;
}

Work work_of(models::LanguageModel& model, const adapters::LoraAdapter* adapter, const data::BatchCost& cost,
             Purpose purpose) {
  Work work;
  for (const Product& product : linear_products(model, cost, purpose)) work.linear += product.operations();
  if (adapter != nullptr) {
    const double passes = purpose == Purpose::kForward ? 1 : 3;
    for (const adapters::LoraModule& module : adapter->modules()) {
      const std::int64_t rank = module.a.value().dim(0);
      const std::int64_t sides = module.layer->inputs() + module.layer->outputs();
      work.adapter += passes * 2.0 * static_cast<double>(rows_of(model, *module.layer, cost) * rank * sides);
    }
  }
  const models::ModelSizes& sizes = model.sizes();
  const double pair = 4.0 * static_cast<double>(sizes.heads * sizes.head_width);  // score and value
  work.attention = static_cast<double>(cost.attended * sizes.layers) * pair * (purpose == Purpose::kForward ? 1 : 3);
  return work;
}

}  // namespace instruct::bench
