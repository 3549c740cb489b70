// An encoder opened for a command: model, heads, instruction set.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/text_rows.h"
#include "instructions/instruction_set.h"
#include "models/adapter_files.h"
#include "models/text_model.h"
#include "ops/engine.h"

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
  bool needs_instructions = true;
};

// Members refer to one another: it stays where it was made.
struct TextSession {
  std::unique_ptr<ops::Engine> engine;
  models::WeightOptions weights;
  models::Package package;
  bool mean_pooling = false;
  std::optional<instructions::InstructionSet> set;  // its labels in the order of the model's
  std::unique_ptr<models::TextModel> model;         // null without an instruction set
  std::vector<std::size_t> tasks;                   // of the model, by verb
  models::LoadedAdapter adapter;                    // adapter.adapter is null without one

  data::TextOptions text_options() const;
  // What an adapter trained here is bound to.
  models::AdapterOrigin origin() const;
  // The first `limit` rows of a data set (0: all), cut at their end to what the model takes, with a warning.
  std::vector<data::TextRow> encode(const data::Dataset& dataset, std::int64_t limit = 0) const;
};

// Opens the encoder, and where there is an instruction set its heads. Without `draw` they are those the model was tuned
// with: raises InvalidArgument for a verb or labels that it was not tuned for, Unsupported for a verb whose output no
// head gives, naming those that one does.
std::unique_ptr<TextSession> open_text_session(const TextSessionOptions& options);

}  // namespace instruct::cli
