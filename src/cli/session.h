// What commands that use a model share: its options, and opening it with adapter, template and instruction set.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "adapters/adapter_set.h"
#include "instructions/dialogue.h"
#include "instructions/instruction_set.h"
#include "models/adapter_files.h"
#include "models/package.h"
#include "ops/engine.h"

namespace CLI {
class App;
}

namespace instruct::cli {

struct ModelOptions {
  std::string model;
  std::string adapter;
  std::vector<std::string> adapters;  // of commands that take several: one is as `adapter`
  std::string instructions;
  std::string chat_template;
  std::string dtype = "auto";
  std::string base_compute = "auto";
  int threads = 0;
  std::uint64_t seed = 42;

  // --model (required), --adapter (`several`: may be repeated), --instructions, --chat-template, --dtype,
  // --base-compute, --threads, --seed.
  void add_to(CLI::App& command, bool several = false);
};

// A model ready for use. Members refer to one another: it stays where it was made.
struct Session {
  std::unique_ptr<ops::Engine> engine;
  models::Package package;
  std::unique_ptr<instructions::DialogueEncoder> dialogue;
  std::optional<instructions::InstructionSet> set;
  double chat_template_seconds = 0;
  models::LoadedAdapter adapter;                   // adapter.adapter is null without --adapter, and with several
  std::unique_ptr<adapters::AdapterSet> adapters;  // of several, in their order

  // What an adapter trained here is bound to.
  models::AdapterOrigin origin() const;
  const instructions::InstructionSet* instruction_set() const { return set ? &*set : nullptr; }
};

// The template to use: the file at `path`, or the package's own where that is empty. Raises BadData for a blank file.
std::string chat_template_of(const models::Package& package, const std::string& path);

// How the package's model is asked: by its template (or the one at `path`), or as an encoder-decoder.
std::unique_ptr<instructions::DialogueEncoder> dialogue_of(const models::Package& package, const std::string& path);

// Raises Unsupported where `command` is for decoders alone and the model is none.
void require_decoder(const Session& session, const char* command);

// Raises InvalidArgument for more threads than processors: they would wait for each other.
void check_threads(int threads);

// `weights.integers` is what --base-compute auto means.
std::unique_ptr<Session> open_session(const ModelOptions& options, const models::WeightOptions& weights = {});

}  // namespace instruct::cli
