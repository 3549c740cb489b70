#include "cli/text_session.h"

#include <CLI/CLI.hpp>

#include <algorithm>

#include "base/error.h"
#include "base/log.h"
#include "cli/session.h"
#include "instructions/extraction.h"

namespace instruct::cli {
namespace {

using instructions::Instruction;
using instructions::OutputType;
using models::TextKind;
using models::TextTask;

std::optional<TextKind> kind_of(const Instruction& instruction) {
  switch (instruction.output.type) {
    case OutputType::kLabel:
      return instruction.is_cloze() ? TextKind::kMasked : TextKind::kLabel;
    case OutputType::kLabels:
      return TextKind::kLabels;
    case OutputType::kSentences:
      return TextKind::kSentences;
    case OutputType::kSpan:
      return TextKind::kSpan;
    default:
      return instructions::extracted_fields(instruction).empty() ? std::nullopt : std::optional(TextKind::kTags);
  }
}

const TextTask kMaskedTask{.verb = "", .kind = TextKind::kMasked};

TextTask task_of(const Instruction& instruction) {
  const std::optional<TextKind> kind = kind_of(instruction);
  if (!kind) {
    raise(
        ErrorCategory::kUnsupported,
        "verb '{}' has outputs of type {}, which no head of an encoder gives: label, labels, sentences, span, and list "
        "or json of texts out of an input are what encoders can; for others take a model that writes text",
        instruction.verb, instructions::type_name(instruction.output.type));
  }
  if (*kind == TextKind::kMasked) return kMaskedTask;
  return {.verb = instruction.verb,
          .kind = *kind,
          .labels = *kind == TextKind::kTags ? instructions::extraction_tags(instruction) : instruction.output.labels};
}

void add_once(const TextTask& task, std::vector<TextTask>& tasks) {
  if (std::find(tasks.begin(), tasks.end(), task) == tasks.end()) tasks.push_back(task);
}

std::vector<TextTask> tasks_of(const instructions::InstructionSet& set) {
  std::vector<TextTask> tasks;
  for (const Instruction& instruction : set.instructions) add_once(task_of(instruction), tasks);
  return tasks;
}

// Whether a model's labels are those that a verb wants, in any order. Of tags it may lack the B of a field.
bool fits(const TextTask& stored, const TextTask& wanted) {
  const auto has = [](const std::vector<std::string>& labels, const std::string& label) {
    return std::find(labels.begin(), labels.end(), label) != labels.end();
  };
  const auto in_stored = [&](const std::string& label) {
    return has(stored.labels, label) ||
           (stored.kind == TextKind::kTags && label.starts_with('B') && has(stored.labels, "I" + label.substr(1)));
  };
  const auto in_wanted = [&](const std::string& label) { return has(wanted.labels, label); };
  return stored.kind == wanted.kind && std::all_of(wanted.labels.begin(), wanted.labels.end(), in_stored) &&
         std::all_of(stored.labels.begin(), stored.labels.end(), in_wanted);
}

// The stored task that is this verb's, with the same labels in any order.
const TextTask& stored_task(const std::vector<TextTask>& stored, const TextTask& wanted, const std::string& model) {
  for (const TextTask& task : stored) {
    if (!task.verb.empty() && task.verb != wanted.verb) continue;
    if (task.kind == TextKind::kMasked) continue;
    if (fits(task, wanted)) return task;
    std::vector<std::string> missing;
    for (const std::string& label : wanted.labels) {
      if (std::find(task.labels.begin(), task.labels.end(), label) == task.labels.end()) missing.push_back(label);
    }
    raise(
        ErrorCategory::kInvalidArgument,
        "'{}' was tuned for other outputs of verb '{}' ({}, {} labels; the instruction set has {}, {}{}): tune it with "
        "this instruction set",
        model, wanted.verb, models::kind_name(task.kind), task.labels.size(), models::kind_name(wanted.kind),
        wanted.labels.size(), missing.empty() ? "" : ", among them '" + missing.front() + "'");
  }
  raise(ErrorCategory::kInvalidArgument, "'{}' was not tuned for verb '{}': tune it with 'instruct train'", model,
        wanted.verb);
}

// A template that has no gap among others that have one would be answered by another head.
void check_gaps(const Instruction& instruction) {
  if (instruction.output.type != OutputType::kLabel || instruction.is_cloze()) return;
  for (const templates::Template& wording : instruction.templates) {
    if (wording.source().find(instructions::kMaskMark) != std::string::npos)
      raise(ErrorCategory::kInvalidArgument, "verb '{}': some templates have a gap {} and some have none",
            instruction.verb, instructions::kMaskMark);
  }
}

void check_masked(const TextSession& session, const TextSessionOptions& options) {
  if (models::has_head(session.package.encoder->config(), *session.package.encoder_source, models::HeadKind::kMasked))
    return;
  if (options.draw == models::Draw::kNothing) {
    raise(
        ErrorCategory::kInvalidArgument,
        "'{}' has no head for masked words, which a gap [MASK] and a masked language model need: take a model that was "
        "made with one, or train it on texts",
        options.model);
  }
  log_warning("'{}' has no head for masked words: a new one is trained", options.model);
}

// The tasks of a model that was tuned, and in the instruction set the labels in its order.
std::vector<TextTask> tuned_tasks(TextSession& session, const TextSessionOptions& options) {
  std::vector<TextTask> stored =
      options.adapter.empty() ? models::stored_tasks(session.package) : models::adapter_tasks(options.adapter);
  // An adapter that another program made has heads without a name: those of the instruction set.
  if (stored.empty() && !options.adapter.empty()) stored = tasks_of(*session.set);
  std::vector<TextTask> tasks = tasks_of(*session.set);
  if (tasks == std::vector{kMaskedTask}) return tasks;  // no other head is needed
  const bool masked = std::find(tasks.begin(), tasks.end(), kMaskedTask) != tasks.end();
  tasks = stored;
  if (masked) add_once(kMaskedTask, tasks);
  for (Instruction& instruction : session.set->instructions) {
    const TextTask wanted = task_of(instruction);
    if (wanted.kind == TextKind::kMasked) continue;
    if (stored.empty())
      raise(ErrorCategory::kInvalidArgument, "'{}' is an encoder without heads: tune it with 'instruct train' first",
            options.model);
    instruction.output.labels = stored_task(stored, wanted, options.model).labels;
  }
  return tasks;
}

// The tasks that adapter or model say they have heads for; else that of masked words, where there is such a head.
std::vector<TextTask> tasks_of_files(const TextSession& session, const TextSessionOptions& options) {
  const models::Package& package = session.package;
  std::vector<TextTask> tasks;
  if (!options.adapter.empty()) tasks = models::adapter_tasks(options.adapter);
  if (tasks.empty()) tasks = models::stored_tasks(package);
  if (tasks.empty() && models::has_head(package.encoder->config(), *package.encoder_source, models::HeadKind::kMasked))
    tasks.push_back(kMaskedTask);
  return tasks;
}

void open_heads(TextSession& session, const TextSessionOptions& options) {
  std::vector<TextTask> tasks{kMaskedTask};
  const bool stored = !session.set && options.without == TextSessionOptions::Without::kStored;
  if (stored) tasks = tasks_of_files(session, options);
  if (session.set) {
    for (const Instruction& instruction : session.set->instructions) check_gaps(instruction);
    tasks = options.draw == models::Draw::kNothing ? tuned_tasks(session, options) : tasks_of(*session.set);
    for (Instruction& instruction : session.set->instructions) {
      if (kind_of(instruction) == TextKind::kTags && instruction.output.labels.empty())
        instruction.output.labels = instructions::extraction_tags(instruction);
    }
  }
  if (!stored && std::find(tasks.begin(), tasks.end(), kMaskedTask) != tasks.end()) check_masked(session, options);
  // The heads of an adapter stand in its own folder.
  const models::Draw draw = options.adapter.empty() ? options.draw : models::Draw::kMissing;
  session.model = std::make_unique<models::TextModel>(session.package, std::move(tasks), draw, options.seed,
                                                      session.weights, session.engine->allocator());
  if (stored) return;
  if (!session.set) session.tasks = {session.model->task_of("", TextKind::kMasked)};
  for (const Instruction& instruction : session.set ? session.set->instructions : std::vector<Instruction>())
    session.tasks.push_back(session.model->task_of(instruction.verb, kind_of(instruction).value()));
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
  const data::TextEncoder encoder(*package.tokenizer, *set);
  data::TextOptions options = text_options();
  data::TextReport report;
  options.overflow = data::Overflow::kRight;
  options.windows = true;
  std::vector<data::TextRow> rows = encoder.encode_all(dataset, data::row_indices(dataset, limit), options, report);
  if (!report.shortened.empty())
    log_warning("{} rows are longer than the model's context of {} tokens and were cut, first: row {}",
                report.shortened.size(), options.cutoff, report.shortened.front());
  return rows;
}

std::vector<data::TextRow> TextSession::encode_masked(const data::Dataset& dataset, const data::MaskingOptions& options,
                                                      std::int64_t limit) const {
  const instructions::InstructionSet none;
  data::TextOptions text = text_options();
  text.overflow = data::Overflow::kSplit;
  data::TextReport report;
  return masked(data::TextEncoder(*package.tokenizer, none)
                    .encode_texts(dataset, data::row_indices(dataset, limit), text, report),
                options);
}

std::vector<data::TextRow> TextSession::masked(std::span<const data::TextRow> texts,
                                               const data::MaskingOptions& options) const {
  const std::optional<std::int32_t> mask = package.tokenizer->mask();
  if (!mask) raise(ErrorCategory::kUnsupported, "'{}' has no token for what is masked", package.path.string());
  return data::masked_rows(texts, options, *mask,
                           std::min(package.tokenizer->vocabulary_size(), package.encoder->config().vocabulary));
}

bool is_masked_lm(const std::string& instructions, const data::Dataset& dataset) {
  return instructions.empty() && dataset.format == data::RowFormat::kText;
}

void add_masking_options(CLI::App& command, data::MaskingOptions& options) {
  command
      .add_option("--mlm-probability", options.rate, "of an encoder's texts without verbs: how many tokens are masked")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 1.0));
  command.add_flag("--whole-word-masking", options.whole_words, "mask whole words");
}

std::unique_ptr<TextSession> open_text_session(const TextSessionOptions& options) {
  check_threads(options.threads);
  auto session = std::make_unique<TextSession>();
  session->engine = std::make_unique<ops::Engine>(options.threads);
  session->weights = {
      .dtype = ops::dtype_from_option(options.dtype), .trainable = options.trainable, .threads = options.threads};
  using Without = TextSessionOptions::Without;
  if (options.without == Without::kRefused && options.instructions.empty())
    raise(ErrorCategory::kInvalidArgument,
          "an encoder answers the verbs of an instruction set (--instructions FILE), or without one finds masked words "
          "of rows with a text");
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
  if (options.without != Without::kEmbeds) open_heads(*session, options);
  if (!options.adapter.empty()) {
    std::map<std::string, tensor::Tensor> heads;
    session->adapter =
        models::load_adapter_folder(options.adapter, *session->package.encoder, session->engine->allocator(), heads);
    models::check_origin(session->adapter.origin, session->origin(), options.adapter);
    const bool named = session->set || !models::adapter_tasks(options.adapter).empty() ||
                       !models::stored_tasks(session->package).empty();
    if (options.without == Without::kStored && !named && !heads.empty())
      raise(ErrorCategory::kInvalidArgument,
            "{}: the adapter has a head ('{}') and does not say for which labels: give its --instructions",
            options.adapter, heads.begin()->first);
    if (session->model) session->model->take_heads(heads, options.adapter, session->engine->allocator());
  }
  return session;
}

}  // namespace instruct::cli
