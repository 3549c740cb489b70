// An encoder with a head for each verb of an instruction set: labels of texts, a choice of their sentences, spans of
// them, or words for what is masked in them.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "models/encoder_head.h"
#include "models/package.h"

namespace instruct::models {

// What a head says of a part of a text: one of the labels, any number of them, whether to choose a sentence, whether a
// span starts or ends at a token, one of the tags of a word, the word that is masked.
enum class TextKind { kLabel, kLabels, kSentences, kSpan, kTags, kMasked };
std::string_view kind_name(TextKind kind);

struct TextTask {
  std::string verb;  // empty: of a model that knows none, for any verb
  TextKind kind = TextKind::kLabel;
  std::vector<std::string> labels = {};  // or tags; none for sentences, spans and masked words

  // How many scores a part gets; 0 for masked words: the vocabulary.
  std::int64_t columns() const {
    return kind == TextKind::kSentences ? 1 : kind == TextKind::kSpan ? 2 : static_cast<std::int64_t>(labels.size());
  }
  friend bool operator==(const TextTask&, const TextTask&) = default;
};

// Tasks that a tuned model's folder has heads for: those of its instruct.json, or the one that config.json names (a
// model of transformers for sequence or token classification, or question answering). Empty for a model that was not
// tuned. A head of masked words is none of them: see has_head.
std::vector<TextTask> stored_tasks(const Package& package);
// Those of an adapter's folder; empty where its instruct.json names none.
std::vector<TextTask> adapter_tasks(const std::filesystem::path& folder);
// Whether its heads take the mean over a text's tokens: what it was tuned with, else what a sentence-transformers
// folder says, else false (the first token).
bool stored_mean_pooling(const Package& package);
// What an adapter's folder says; nothing where it does not.
std::optional<bool> adapter_mean_pooling(const std::filesystem::path& folder);

class TextModel {
 public:
  // The package must outlive the model. Heads are those of the file where they fit, new ones where `draw` allows it.
  // Raises as load_head.
  TextModel(Package& package, std::vector<TextTask> tasks, Draw draw, std::uint64_t seed, const WeightOptions& options,
            tensor::Allocator& allocator);

  Encoder& encoder() { return *package_.encoder; }
  const Encoder& encoder() const { return *package_.encoder; }
  const std::vector<TextTask>& tasks() const { return tasks_; }
  // Raises InvalidArgument naming those there are when there is no task of this kind for the verb.
  std::size_t task_of(const std::string& verb, TextKind kind) const;
  // Scores [M, columns] of pooled parts, which are read by nothing else.
  Variable scores(const ops::Context& context, std::size_t task, const Variable& pooled,
                  const nn::Dropout& dropout) const {
    return heads_[task](context, pooled, dropout);
  }
  const EncoderHead& head(std::size_t task) const { return heads_[task]; }
  // Every weight once: the encoder's and the heads'; and those that are trained where the encoder is frozen.
  std::vector<NamedWeight> weights() const;
  std::vector<NamedWeight> head_weights() const;
  // Takes what was trained beside an adapter. Raises BadData for a weight that is missing, unknown or of another shape.
  void take_heads(const std::map<std::string, Tensor>& weights, const std::string& origin,
                  tensor::Allocator& allocator);

 private:
  Package& package_;
  std::vector<TextTask> tasks_;
  std::vector<EncoderHead> heads_;
};

// What PEFT calls it; empty for masked words, which it has no name for.
std::string peft_task_type(const TextModel& model);
// Tasks and pooling as instruct.json has them.
Value text_model_description(const TextModel& model, bool mean_pooling);

// Writes config.json, model.safetensors (as `dtype`: f32, f16 or bf16), the tokenizer's files and instruct.json (tasks,
// pooling) into an existing folder. `weights` gives them in f32. With one task transformers loads it for that: sequence
// classification (labels over the first token), token classification, question answering, masked language modelling.
void write_text_model(const std::filesystem::path& folder, const Package& package, const TextModel& model,
                      bool mean_pooling, const std::function<Tensor(const std::string& name)>& weights,
                      DType dtype = DType::kF32);

}  // namespace instruct::models
