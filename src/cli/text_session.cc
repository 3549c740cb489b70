#include "cli/text_session.h"

#include <algorithm>

#include "base/error.h"
#include "base/log.h"
#include "cli/session.h"

namespace instruct::cli {
namespace {

using instructions::Instruction;
using instructions::OutputType;
using models::TextKind;
using models::TextTask;

std::optional<TextKind> kind_of(OutputType type) {
  if (type == OutputType::kLabel) return TextKind::kLabel;
  if (type == OutputType::kLabels) return TextKind::kLabels;
  if (type == OutputType::kSentences) return TextKind::kSentences;
  return std::nullopt;
}

TextTask task_of(const Instruction& instruction) {
  const std::optional<TextKind> kind = kind_of(instruction.output.type);
  if (!kind) {
    raise(ErrorCategory::kUnsupported,
          "verb '{}' has outputs of type {}, which no head of an encoder gives: label, labels and sentences are what "
          "encoders can; for others take a model that writes text",
          instruction.verb, instructions::type_name(instruction.output.type));
  }
  return {.verb = instruction.verb, .kind = *kind, .labels = instruction.output.labels};
}

std::vector<TextTask> tasks_of(const instructions::InstructionSet& set) {
  std::vector<TextTask> tasks;
  for (const Instruction& instruction : set.instructions) tasks.push_back(task_of(instruction));
  return tasks;
}

// The stored task that is this verb's, with the same labels in any order.
const TextTask& stored_task(const std::vector<TextTask>& stored, const TextTask& wanted, const std::string& model) {
  const auto sorted = [](std::vector<std::string> labels) {
    std::sort(labels.begin(), labels.end());
    return labels;
  };
  for (const TextTask& task : stored) {
    if (!task.verb.empty() && task.verb != wanted.verb) continue;
    if (task.kind == wanted.kind && sorted(task.labels) == sorted(wanted.labels)) return task;
    std::vector<std::string> missing;
    for (const std::string& label : wanted.labels) {
      if (std::find(task.labels.begin(), task.labels.end(), label) == task.labels.end()) missing.push_back(label);
    }
    raise(ErrorCategory::kInvalidArgument,
          "'{}' was tuned for other outputs of verb '{}' ({} labels, the instruction set has {}{}): tune it with this "
          "instruction set",
          model, wanted.verb, task.labels.size(), wanted.labels.size(),
          missing.empty() ? "" : ", among them '" + missing.front() + "'");
  }
  raise(ErrorCategory::kInvalidArgument, "'{}' was not tuned for verb '{}': tune it with 'instruct train'", model,
        wanted.verb);
}

void open_heads(TextSession& session, const TextSessionOptions& options) {
  std::vector<TextTask> tasks = tasks_of(*session.set);
  if (options.draw == models::Draw::kNothing) {
    std::vector<TextTask> stored =
        options.adapter.empty() ? models::stored_tasks(session.package) : models::adapter_tasks(options.adapter);
    // An adapter that another program made has heads without a name: those of the instruction set.
    if (stored.empty() && !options.adapter.empty()) stored = tasks;
    if (stored.empty())
      raise(ErrorCategory::kInvalidArgument, "'{}' is an encoder without heads: tune it with 'instruct train' first",
            options.model);
    for (Instruction& instruction : session.set->instructions)
      instruction.output.labels = stored_task(stored, task_of(instruction), options.model).labels;
    tasks = stored;
  }
  // The heads of an adapter stand in its own folder.
  const models::Draw draw = options.adapter.empty() ? options.draw : models::Draw::kMissing;
  session.model = std::make_unique<models::TextModel>(session.package, std::move(tasks), draw, options.seed,
                                                      session.weights, session.engine->allocator());
  for (const Instruction& instruction : session.set->instructions)
    session.tasks.push_back(session.model->task_of(instruction.verb));
}

}  // namespace

data::TextOptions TextSession::text_options() const {
  return {.cutoff = package.config.context_length,
          .pooling = mean_pooling ? data::Pooling::kMean : data::Pooling::kFirst};
}

models::AdapterOrigin TextSession::origin() const {
  return {package.path.string(), package.encoder->fingerprint(), package.tokenizer->fingerprint(), ""};
}

std::vector<data::TextRow> TextSession::encode(const data::Dataset& dataset, std::int64_t limit) const {
  data::TextOptions options = text_options();
  options.overflow = data::Overflow::kRight;
  data::TextReport report;
  std::vector<data::TextRow> rows = data::TextEncoder(*package.tokenizer, *set)
                                        .encode_all(dataset, data::row_indices(dataset, limit), options, report);
  if (!report.shortened.empty())
    log_warning("{} rows are longer than the model's context of {} tokens and were cut, first: row {}",
                report.shortened.size(), options.cutoff, report.shortened.front());
  return rows;
}

std::unique_ptr<TextSession> open_text_session(const TextSessionOptions& options) {
  check_threads(options.threads);
  auto session = std::make_unique<TextSession>();
  session->engine = std::make_unique<ops::Engine>(options.threads);
  session->weights = {
      .dtype = ops::dtype_from_option(options.dtype), .trainable = options.trainable, .threads = options.threads};
  if (options.needs_instructions && options.instructions.empty())
    raise(ErrorCategory::kInvalidArgument, "an encoder answers the verbs of an instruction set: --instructions FILE");
  if (!options.instructions.empty()) session->set = instructions::load_instruction_set(options.instructions);
  session->package =
      models::open_package(options.model, models::PackageParts::kAll, session->weights, session->engine->allocator());
  if (session->package.encoder == nullptr) {
    raise(ErrorCategory::kUnsupported, "'{}' is a decoder ({}): this command is for encoders ({})", options.model,
          session->package.config.architecture, models::encoder_family_names());
  }
  session->mean_pooling =
      options.pooling == "auto" ? models::stored_mean_pooling(session->package) : options.pooling == "mean";
  if (const auto mean = options.adapter.empty() ? std::nullopt : models::adapter_mean_pooling(options.adapter);
      mean && options.pooling == "auto")
    session->mean_pooling = *mean;
  if (session->set) open_heads(*session, options);
  if (!options.adapter.empty()) {
    std::map<std::string, tensor::Tensor> heads;
    session->adapter =
        models::load_adapter_folder(options.adapter, *session->package.encoder, session->engine->allocator(), heads);
    models::check_origin(session->adapter.origin, session->origin(), options.adapter);
    if (session->model) session->model->take_heads(heads, options.adapter, session->engine->allocator());
  }
  return session;
}

}  // namespace instruct::cli
