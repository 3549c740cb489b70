#include "cli/session.h"

#include <CLI/CLI.hpp>

#include <algorithm>

#include "base/error.h"
#include "base/file.h"
#include "base/stopwatch.h"
#include "base/text.h"
#include "base/threads.h"
#include "ops/weights.h"

namespace instruct::cli {

void ModelOptions::add_to(CLI::App& command, bool several) {
  command.add_option("--model,-m", model, "GGUF file or Hugging Face folder")->required();
  if (several) {
    command
        .add_option("--adapter,-a", adapters,
                    "LoRA adapter (folder of PEFT, mlx-lm or AdapterHub); repeated, each answers in the same batch")
        ->expected(1)
        ->take_all();
  } else {
    command.add_option("--adapter,-a", adapter, "LoRA adapter (folder of PEFT, mlx-lm or AdapterHub)");
  }
  command.add_option("--instructions,-i", instructions, "instruction set (*.iset.yaml)");
  command.add_option("--chat-template", chat_template, "template file used instead of the model's own");
  command.add_option("--dtype", dtype, "compute type: auto, bf16 or f32")->capture_default_str();
  command
      .add_option("--base-compute", base_compute,
                  "products with quantised weights: int16 or int8 (activations rounded to integers), dtype (weights "
                  "converted first), or auto")
      ->capture_default_str()
      ->check(CLI::IsMember({"auto", "int16", "int8", "dtype"}));
  command.add_option("--threads", threads, "threads; 0 takes all processors")
      ->capture_default_str()
      ->check(CLI::Range(0, 4096));
  command.add_option("--seed", seed, "of everything random")->capture_default_str();
}

models::AdapterOrigin Session::origin() const {
  return {package.path.string(), package.model->fingerprint(), dialogue->fingerprint(), dialogue->template_source()};
}

std::string chat_template_of(const models::Package& package, const std::string& path) {
  if (path.empty()) return package.chat_template;
  std::string source = read_file(path, 16 << 20);
  if (trim(source).empty()) raise(ErrorCategory::kBadData, "{}: the template is empty", path);
  return source;
}

std::unique_ptr<instructions::DialogueEncoder> dialogue_of(const models::Package& package, const std::string& path) {
  if (!package.seq2seq) {
    return std::make_unique<instructions::DialogueEncoder>(*package.tokenizer, chat_template_of(package, path),
                                                           path.empty() ? package.path.string() : path);
  }
  if (!path.empty()) {
    raise(ErrorCategory::kInvalidArgument, "'{}' is an encoder-decoder ({}), which reads a text and no chat template",
          package.path.string(), package.config.architecture);
  }
  return std::make_unique<instructions::DialogueEncoder>(
      *package.tokenizer, instructions::TextToText{.start = package.seq2seq->start,
                                                   .forced_first = package.seq2seq->forced_first,
                                                   .source = package.source_tokenizer.get()});
}

void require_decoder(const Session& session, const char* command) {
  if (!session.package.seq2seq) return;
  raise(ErrorCategory::kUnsupported, "'{}' is an encoder-decoder ({}), and {} is for decoders",
        session.package.path.string(), session.package.config.architecture, command);
}

namespace {

models::LoadedAdapter open_adapter(Session& session, const std::string& folder) {
  models::LoadedAdapter loaded =
      models::load_adapter_folder(folder, *session.package.model, session.engine->allocator());
  models::check_origin(loaded.origin, session.origin(), folder);
  return loaded;
}

void open_adapters(Session& session, const std::vector<std::string>& folders) {
  if (session.package.seq2seq)
    raise(ErrorCategory::kUnsupported, "several adapters at once: of decoders alone, and '{}' is an encoder-decoder",
          session.package.path.string());
  std::vector<models::LoadedAdapter> loaded;
  std::vector<const adapters::LoraAdapter*> together;
  for (std::size_t i = 0; i < folders.size(); ++i) {
    if (std::find(folders.begin(), folders.begin() + static_cast<std::ptrdiff_t>(i), folders[i]) !=
        folders.begin() + static_cast<std::ptrdiff_t>(i))
      raise(ErrorCategory::kInvalidArgument, "--adapter {} is given twice", folders[i]);
    loaded.push_back(open_adapter(session, folders[i]));
    together.push_back(loaded.back().adapter.get());
  }
  const std::vector<nn::Linear*> layers = session.package.model->linears();
  session.adapters = std::make_unique<adapters::AdapterSet>(together, layers, session.engine->allocator());
}

}  // namespace

void check_threads(int threads) {
  const int processors = available_processors();
  if (threads <= processors) return;
  raise(ErrorCategory::kInvalidArgument, "{} threads: this process may run on {} processor{}; 0 takes all of them",
        threads, processors, processors == 1 ? "" : "s");
}

std::unique_ptr<Session> open_session(const ModelOptions& options, const models::WeightOptions& weights) {
  check_threads(options.threads);
  auto session = std::make_unique<Session>();
  session->engine = std::make_unique<ops::Engine>(options.threads);
  models::WeightOptions chosen = weights;
  chosen.dtype = ops::dtype_from_option(options.dtype);
  chosen.threads = options.threads;
  const bool integers = options.base_compute.starts_with("int");
  if (options.base_compute == "dtype") chosen.integers = ops::IntegerUse::kNone;
  if (integers && chosen.integers != ops::IntegerUse::kGradients8)
    chosen.integers = options.base_compute == "int8" ? ops::IntegerUse::kForward8 : ops::IntegerUse::kForward16;
  if (integers && chosen.trainable) {
    raise(ErrorCategory::kInvalidArgument,
          "products on integers (base compute {}) need a frozen base, and full tuning trains it: use lora",
          options.base_compute);
  }
  if (integers && !ops::has_integer_products()) {
    raise(ErrorCategory::kUnsupported, "--base-compute {} needs a processor with AVX2 (this one has none): use auto",
          options.base_compute);
  }
  if (!options.instructions.empty()) session->set = instructions::load_instruction_set(options.instructions);
  session->package =
      models::open_package(options.model, models::PackageParts::kAll, chosen, session->engine->allocator());
  if (session->package.encoder != nullptr && session->package.gguf != nullptr) {
    raise(ErrorCategory::kUnsupported, "'{}' is an encoder as GGUF, which is for 'embed': take its Hugging Face folder",
          options.model);
  }
  if (session->package.encoder != nullptr) {
    raise(ErrorCategory::kUnsupported,
          "'{}' is an encoder ({}), which writes no text: encoders have train, eval and score with an instruction set, "
          "and embed",
          options.model, session->package.config.architecture);
  }
  if (integers && !session->package.model->has_integer_products()) {
    raise(ErrorCategory::kInvalidArgument,
          "--base-compute {} needs quantised weights, and '{}' has none: 'instruct export --quantize q8_0' makes them",
          options.base_compute, options.model);
  }
  Stopwatch watch;
  session->dialogue = dialogue_of(session->package, options.chat_template);
  session->chat_template_seconds = watch.lap();
  if (options.adapters.size() > 1) {
    open_adapters(*session, options.adapters);
  } else if (!options.adapter.empty() || !options.adapters.empty()) {
    session->adapter = open_adapter(*session, options.adapter.empty() ? options.adapters.front() : options.adapter);
  }
  return session;
}

}  // namespace instruct::cli
