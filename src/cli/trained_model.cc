#include "cli/trained_model.h"

#include "base/error.h"
#include "cli/train_loop.h"

namespace instruct::cli {

TrainedModel::TrainedModel(const train::TrainConfig& config, Session& session)
    : session_(session), lora_(config.finetuning_type == "lora") {
  optimizer_ = std::make_unique<train::Optimizer>(
      TrainLoop::adamw_of(config), lora_ ? lora_parameters(config) : all_parameters(), session.engine->allocator());
}

std::vector<train::Optimizer::Named> TrainedModel::lora_parameters(const train::TrainConfig& config) {
  models::LanguageModel& model = *session_.package.model;
  auto& loaded = session_.adapter;
  if (loaded.adapter == nullptr) {
    const std::vector<nn::Linear*> layers = model.linears();
    loaded.adapter = adapters::LoraAdapter::create({.rank = config.lora_rank,
                                                    .alpha = config.alpha(),
                                                    .dropout = config.lora_dropout,
                                                    .rank_stabilised = config.use_rslora,
                                                    .target_modules = config.lora_target},
                                                   layers, model.dtype(), config.seed, session_.engine->allocator());
  }
  std::vector<train::Optimizer::Named> parameters;
  for (std::size_t i = 0; i < loaded.adapter->modules().size(); ++i) {
    const adapters::LoraModule& module = loaded.adapter->modules()[i];
    const bool stored = i < loaded.masters.size();
    parameters.push_back({module.name + ".lora_A", module.a, stored ? loaded.masters[i].first : tensor::Tensor()});
    parameters.push_back({module.name + ".lora_B", module.b, stored ? loaded.masters[i].second : tensor::Tensor()});
  }
  return parameters;
}

std::vector<train::Optimizer::Named> TrainedModel::all_parameters() {
  std::vector<train::Optimizer::Named> parameters;
  for (const models::NamedWeight& weight : models::trained_weights(*session_.package.model))
    parameters.push_back({weight.name, weight.variable, {}});
  return parameters;
}

// A and B of each module as the optimizer holds them.
std::vector<std::pair<tensor::Tensor, tensor::Tensor>> TrainedModel::masters() const {
  std::vector<std::pair<tensor::Tensor, tensor::Tensor>> result;
  const auto& parameters = optimizer_->parameters();
  for (std::size_t i = 0; i + 1 < parameters.size(); i += 2)
    result.emplace_back(optimizer_->master(parameters[i]), optimizer_->master(parameters[i + 1]));
  return result;
}

models::WeightLookup TrainedModel::full_weights() const {
  return [this](const std::string& name) -> tensor::Tensor {
    for (const train::TrainedParameter& parameter : optimizer_->parameters()) {
      if (parameter.name == name) return optimizer_->master(parameter);
    }
    for (const models::NamedWeight& weight : session_.package.model->weights()) {
      if (weight.name == name) return weight.variable.value();  // one that isn't trained, kept as f32
    }
    raise(ErrorCategory::kInternal, "no weight '{}'", name);
  };
}

void TrainedModel::write(const std::filesystem::path& folder) const {
  if (lora_) {
    models::write_peft_files(folder, *session_.adapter.adapter, masters(), session_.origin(),
                             session_.package.config.layers);
  } else {
    models::write_hugging_face_files(folder, session_.package, session_.dialogue->template_source(), full_weights(),
                                     tensor::DType::kF32);
  }
}

}  // namespace instruct::cli
