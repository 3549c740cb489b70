// An encoder opened for a command: model, heads, instruction set.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/masking.h"
#include "data/text_rows.h"
#include "evaluate/text_answers.h"
#include "instructions/instruction_set.h"
#include "models/adapter_files.h"
#include "models/text_model.h"
#include "ops/engine.h"

namespace CLI {
class App;
}

namespace instruct::cli {

struct TextSessionOptions {
  std::string model;
  std::string adapter;  // folder of a LoRA adapter with heads, or empty
  std::string instructions;
  std::string dtype = "auto";
  int threads = 0;
  std::uint64_t seed = 42;
  std::string pooling = "auto";  // first, mean, or what the model was made with
  models::Draw draw = models::Draw::kNothing;
  bool trainable = false;  // the encoder's weights too
  // Without an instruction set: refused, no heads, that of masked words, or those that model or adapter have.
  enum class Without { kRefused, kEmbeds, kMasks, kStored } without = Without::kRefused;
};

// Members refer to one another: it stays where it was made.
struct TextSession {
  std::unique_ptr<ops::Engine> engine;
  models::WeightOptions weights;
  models::Package package;
  bool mean_pooling = false;
  std::optional<instructions::InstructionSet> set;  // its labels in the order of the model's
  std::unique_ptr<models::TextModel> model;         // null for embeddings
  std::vector<std::size_t> tasks;                   // of the model, by verb; without a set the one of masked words
  models::LoadedAdapter adapter;                    // adapter.adapter is null without one

  data::TextOptions text_options() const;
  evaluate::TextAnswerer answerer() const { return {*engine, *model, tasks, *set}; }
  // What an adapter trained here is bound to.
  models::AdapterOrigin origin() const;
  // The first `limit` rows of a data set (0: all). Those that are longer than what the model takes become windows
  // (spans and extraction) or are cut at their end, with a warning.
  std::vector<data::TextRow> encode(const data::Dataset& dataset, std::int64_t limit = 0) const;
  // Its texts, long ones in pieces, with tokens left out.
  std::vector<data::TextRow> encode_masked(const data::Dataset& dataset, const data::MaskingOptions& options,
                                           std::int64_t limit = 0) const;
  std::vector<data::TextRow> masked(std::span<const data::TextRow> texts, const data::MaskingOptions& options) const;
};

// Whether a data set without an instruction set is texts for a masked language model.
bool is_masked_lm(const std::string& instructions, const data::Dataset& dataset);
// --mlm-probability and --whole-word-masking.
void add_masking_options(CLI::App& command, data::MaskingOptions& options);

// Opens the encoder, and where there is an instruction set its heads. Without `draw` they are those the model was tuned
// with: raises InvalidArgument for a verb or labels that it was not tuned for, Unsupported for a verb whose output no
// head gives, naming those that one does. The head of masked words is the one that the model was made with: raises
// InvalidArgument where there is none, and with `draw` warns.
std::unique_ptr<TextSession> open_text_session(const TextSessionOptions& options);

}  // namespace instruct::cli
