#include <CLI/CLI.hpp>

#include <algorithm>
#include <iostream>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "cli/commands.h"
#include "cli/session.h"
#include "cli/text_session.h"
#include "models/export.h"

namespace instruct::cli {
namespace {

struct Options {
  ModelOptions model;
  std::string format, output, quantise;
  bool overwrite = false;
  bool json = false;
};

// Of the weights of a Hugging Face folder.
tensor::DType stored_type(const std::string& name) {
  using tensor::DType;
  const auto dtype = tensor::dtype_from_name(name);
  if (dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16) return *dtype;
  raise(ErrorCategory::kInvalidArgument, "--quantize {}: --format hf takes f32, f16 or bf16", name);
}

// Encoder and heads.
void export_encoder(const Options& options, const models::GgufType& gguf, tensor::DType stored) {
  if (options.format != "hf" && options.format != "gguf") {
    raise(ErrorCategory::kUnsupported, "--format {}: '{}' is an encoder, which is written as hf or gguf",
          options.format, options.model.model);
  }
  // In f32, so that the opened weights are what the files hold.
  const auto session = open_text_session({.model = options.model.model,
                                          .adapter = options.model.adapter,
                                          .instructions = options.model.instructions,
                                          .dtype = "f32",
                                          .threads = options.model.threads,
                                          .without = TextSessionOptions::Without::kStored});
  const models::WeightLookup weights = models::merged_weights(*session->model, &session->adapter, *session->engine);
  if (options.format == "gguf") {
    if (!session->model->tasks().empty())
      log_warning("GGUF has no place for heads: the encoder is written alone, for embeddings");
    models::write_gguf_encoder(options.output, session->package, session->mean_pooling, weights,
                               {gguf, session->engine->threads()});
    return;
  }
  AtomicFolder folder(options.output, options.overwrite ? Existing::kReplace : Existing::kRefuse);
  models::write_text_model(folder.path(), session->package, *session->model, session->mean_pooling, weights, stored);
  folder.commit();
}

void export_model(const Options& options, const models::GgufType& gguf, tensor::DType stored) {
  const auto session = open_session(options.model);
  const models::LoadedAdapter* adapter = session->adapter.adapter == nullptr ? nullptr : &session->adapter;
  const std::string& chat_template = session->dialogue->template_source();
  const bool needs_adapter = options.format == "peft" || options.format == "gguf-lora";
  if (needs_adapter && adapter == nullptr)
    raise(ErrorCategory::kInvalidArgument, "--format {} needs --adapter", options.format);
  if (options.format == "gguf") {
    models::write_gguf(options.output, session->package, chat_template,
                       models::merged_weights(session->package, adapter, *session->engine),
                       {gguf, session->engine->threads()});
  } else if (options.format == "gguf-lora") {
    models::write_gguf_lora(options.output, session->package, *adapter);
  } else {
    AtomicFolder folder(options.output, options.overwrite ? Existing::kReplace : Existing::kRefuse);
    if (options.format == "hf") {
      models::write_hugging_face_files(folder.path(), session->package, chat_template,
                                       models::merged_weights(session->package, adapter, *session->engine), stored);
    } else {
      models::write_peft_files(folder.path(), *adapter->adapter, adapter->masters, session->origin(),
                               session->package.config.layers);
    }
    folder.commit();
  }
}

void run(const Options& options) {
  if (std::filesystem::exists(options.output) && !options.overwrite) {
    raise(ErrorCategory::kInvalidArgument, "'{}' exists already: choose another --output or give --overwrite",
          options.output);
  }
  // Said wrongly, before the model is opened.
  const std::string& quantise = options.quantise;
  const models::GgufType& gguf = models::gguf_type(quantise.empty() || options.format != "gguf" ? "f16" : quantise);
  const bool encoder = models::is_encoder(options.model.model);
  const char* usual = encoder ? "f32" : "bf16";
  const tensor::DType stored = stored_type(quantise.empty() || options.format == "gguf" ? usual : quantise);
  if (encoder) {
    export_encoder(options, gguf, stored);
  } else {
    export_model(options, gguf, stored);
  }
  if (options.json) {
    std::cout << dump_json(Value::object({{"output", options.output}, {"format", options.format}})) << '\n';
  } else {
    log_info("Wrote {}", options.output);
  }
}

}  // namespace

void add_export_command(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("export", "Write a model, with its adapter merged in, for other programs");
  options->model.add_to(*command);
  command->add_option("--format,-f", options->format, "gguf, hf, peft or gguf-lora")
      ->required()
      ->check(CLI::IsMember({"gguf", "hf", "peft", "gguf-lora"}));
  command->add_option("--quantize", options->quantise,
                      "type of the matrices; hf takes f32, f16 or bf16 (the default; of encoders f32), gguf " +
                          models::gguf_type_names());
  command->add_option("--output,-o", options->output, "file (gguf, gguf-lora) or folder")->required();
  command->add_flag("--overwrite", options->overwrite, "replace what is there");
  command->add_flag("--json", options->json, "say what was written as JSON");
  command->footer(
      "\nExample:\n  instruct export --model M.gguf --adapter runs/notes --format gguf --quantize q8_0 --output "
      "notes.gguf");
  command->callback([options] { run(*options); });
}

}  // namespace instruct::cli
