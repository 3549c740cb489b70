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
#include "models/export.h"

namespace instruct::cli {
namespace {

struct Options {
  ModelOptions model;
  std::string format, output, quantise;
  bool overwrite = false;
  bool json = false;
};

tensor::DType stored_type(const Options& options) {
  const std::string name = options.quantise.empty() ? (options.format == "gguf" ? "f16" : "bf16") : options.quantise;
  const auto dtype = tensor::dtype_from_name(name);
  const std::string known =
      options.format == "gguf" ? "f32, f16, bf16, q8_0, q5_1, q5_0, q4_1 or q4_0" : "f32, f16 or bf16";
  using tensor::DType;
  std::vector<DType> possible{DType::kF32, DType::kF16, DType::kBF16};
  if (options.format == "gguf")
    possible.insert(possible.end(), {DType::kQ8_0, DType::kQ5_1, DType::kQ5_0, DType::kQ4_1, DType::kQ4_0});
  if (!dtype || std::find(possible.begin(), possible.end(), *dtype) == possible.end())
    raise(ErrorCategory::kInvalidArgument, "--quantize {}: --format {} takes {}", name, options.format, known);
  return *dtype;
}

void run(const Options& options) {
  if (std::filesystem::exists(options.output) && !options.overwrite) {
    raise(ErrorCategory::kInvalidArgument, "'{}' exists already: choose another --output or give --overwrite",
          options.output);
  }
  const tensor::DType stored = stored_type(options);
  const auto session = open_session(options.model);
  const models::LoadedAdapter* adapter = session->adapter.adapter == nullptr ? nullptr : &session->adapter;
  const std::string& chat_template = session->dialogue->template_source();
  const bool needs_adapter = options.format == "peft" || options.format == "gguf-lora";
  if (needs_adapter && adapter == nullptr)
    raise(ErrorCategory::kInvalidArgument, "--format {} needs --adapter", options.format);
  if (options.format == "gguf") {
    models::write_gguf(options.output, session->package, chat_template,
                       models::merged_weights(session->package, adapter, session->engine->allocator()), stored);
  } else if (options.format == "gguf-lora") {
    models::write_gguf_lora(options.output, session->package, *adapter);
  } else {
    AtomicFolder folder(options.output, options.overwrite ? Existing::kReplace : Existing::kRefuse);
    if (options.format == "hf") {
      models::write_hugging_face_files(folder.path(), session->package, chat_template,
                                       models::merged_weights(session->package, adapter, session->engine->allocator()),
                                       stored);
    } else {
      models::write_peft_files(folder.path(), *adapter->adapter, adapter->masters, session->origin(),
                               session->package.config.layers);
    }
    folder.commit();
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
                      "type of the matrices: f32, f16, bf16, and for gguf q8_0, q5_1, q5_0, q4_1, q4_0");
  command->add_option("--output,-o", options->output, "file (gguf, gguf-lora) or folder")->required();
  command->add_flag("--overwrite", options->overwrite, "replace what is there");
  command->add_flag("--json", options->json, "say what was written as JSON");
  command->footer(
      "\nExample:\n  instruct export --model M.gguf --adapter runs/notes --format gguf --quantize q8_0 --output "
      "notes.gguf");
  command->callback([options] { run(*options); });
}

}  // namespace instruct::cli
