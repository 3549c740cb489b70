#include "models/text_model.h"

#include <algorithm>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/text.h"
#include "formats/safetensors.h"
#include "models/encoder_gguf.h"
#include "models/export_parts.h"
#include "models/tokenizer_files.h"

namespace instruct::models {
namespace {

namespace fs = std::filesystem;

// Names in instruct.json, of the models of transformers that have such a head, and of PEFT's tasks.
struct Kind {
  TextKind kind;
  std::string_view name;
  std::string_view architecture;
  std::string_view peft = "SEQ_CLS";
};
constexpr Kind kKinds[] = {{TextKind::kLabel, "label", "ForSequenceClassification"},
                           {TextKind::kLabels, "labels", "ForSequenceClassification"},
                           {TextKind::kSentences, "sentences", ""},
                           {TextKind::kSpan, "span", "ForQuestionAnswering", "QUESTION_ANS"},
                           {TextKind::kTags, "tags", "ForTokenClassification", "TOKEN_CLS"},
                           {TextKind::kMasked, "masked", "ForMaskedLM", ""}};

const Kind& kind_of(TextKind kind) {
  return *std::find_if(std::begin(kKinds), std::end(kKinds), [&](const Kind& k) { return k.kind == kind; });
}

Value json_or_null(const fs::path& path) {
  return fs::exists(path) ? parse_json(read_file(path, 1 << 28), path.string()) : Value();
}

TextTask task_from(const Value& stored) {
  TextTask task{.verb = stored.at("verb").as_string()};
  const std::string& kind = stored.at("kind").as_string();
  const auto* found = std::find_if(std::begin(kKinds), std::end(kKinds), [&](const Kind& k) { return kind == k.name; });
  if (found == std::end(kKinds)) {
    std::vector<std::string> known;
    for (const Kind& k : kKinds) known.emplace_back(k.name);
    raise(ErrorCategory::kUnsupported, "instruct.json: unknown kind of head '{}'{}", kind, did_you_mean(kind, known));
  }
  task.kind = found->kind;
  for (const Value& label : stored.at("labels").as_array()) task.labels.push_back(label.as_string());
  return task;
}

// Labels by number, as config.json has them.
std::vector<std::string> labels_of(const Value& config) {
  const Value* names = config.find("id2label");
  if (names == nullptr || !names->is_object()) return {};
  std::vector<std::string> labels(names->size());
  for (const auto& [id, label] : names->as_object()) {
    const std::size_t place = !id.empty() && id.find_first_not_of("0123456789") == std::string::npos && id.size() < 8
                                  ? static_cast<std::size_t>(std::stoul(id))
                                  : labels.size();
    if (place >= labels.size()) raise(ErrorCategory::kBadData, "config.json: id2label has a label '{}'", id);
    labels[place] = label.as_string();
  }
  return labels;
}

// What a model of transformers says.
std::vector<TextTask> tasks_of_config(const Value& config) {
  const Value* architectures = config.find("architectures");
  if (architectures == nullptr || !architectures->is_array() || architectures->size() == 0) return {};
  const std::string& name = architectures->as_array()[0].as_string();
  const auto* found = std::find_if(std::begin(kKinds), std::end(kKinds), [&](const Kind& k) {
    return !k.architecture.empty() && name.ends_with(k.architecture);
  });
  if (found == std::end(kKinds) || found->kind == TextKind::kMasked) return {};
  TextTask task{.verb = "", .kind = found->kind};
  if (task.kind == TextKind::kSpan) return {task};
  task.labels = labels_of(config);
  if (task.labels.empty()) return {};
  const Value* problem = config.find("problem_type");
  const bool several =
      problem != nullptr && problem->is_string() && problem->as_string() == "multi_label_classification";
  if (several && task.kind == TextKind::kLabel) task.kind = TextKind::kLabels;
  return {task};
}

// What transformers loads a model with these heads as; empty: as none with a head.
std::string_view architecture_of(const TextModel& model, bool mean_pooling) {
  const EncoderFamily& family = encoder_family_of(model.encoder().config().architecture);
  if (model.tasks().size() != 1) return "";
  const TextKind kind = model.tasks().front().kind;
  const bool text = kind == TextKind::kLabel || kind == TextKind::kLabels;
  return text && mean_pooling && !family.pools_by_config ? "" : kind_of(kind).architecture;
}

Value written_config(const Package& package, const TextModel& model, bool mean_pooling, DType dtype) {
  Value config = package.hugging_face_config;
  const EncoderFamily& family = encoder_family_of(package.config.architecture);
  const std::string_view kind = architecture_of(model, mean_pooling);
  const std::string name = std::string(family.architecture) + std::string(kind.empty() ? "Model" : kind);
  config.set("architectures", Value(Value::Array{Value(name)}));
  if (mean_pooling || family.pools_by_config) config.set("classifier_pooling", mean_pooling ? "mean" : "cls");
  if (!kind.empty() && model.tasks().front().columns() > 0) {
    const TextTask& task = model.tasks().front();
    std::vector<std::string> labels = task.labels;
    if (task.kind == TextKind::kSpan) labels = {"start", "end"};
    Value names = Value::object();
    Value ids = Value::object();
    for (std::size_t i = 0; i < labels.size(); ++i) {
      names.set(std::to_string(i), labels[i]);
      ids.set(labels[i], static_cast<std::int64_t>(i));
    }
    config.set("id2label", names);
    config.set("label2id", ids);
    if (task.kind == TextKind::kLabel || task.kind == TextKind::kLabels)
      config.set("problem_type",
                 task.kind == TextKind::kLabels ? "multi_label_classification" : "single_label_classification");
  }
  set_stored_type(config, dtype);
  return config;
}

std::vector<TextTask> tasks_of_file(const fs::path& file) {
  const Value stored = json_or_null(file);
  std::vector<TextTask> result;
  const Value* tasks = stored.find("tasks");
  if (tasks == nullptr) return result;
  with_origin(file.string(), [&] {
    for (const Value& task : tasks->as_array()) result.push_back(task_from(task));
  });
  return result;
}

std::optional<bool> mean_pooling_of_file(const fs::path& file) {
  const Value stored = json_or_null(file);
  const Value* pooling = stored.find("pooling");
  if (pooling == nullptr || !pooling->is_string()) return std::nullopt;
  return pooling->as_string() == "mean";
}

HeadKind head_kind(TextKind kind) {
  switch (kind) {
    case TextKind::kSpan:
      return HeadKind::kSpan;
    case TextKind::kTags:
      return HeadKind::kTokens;
    case TextKind::kMasked:
      return HeadKind::kMasked;
    default:
      return HeadKind::kText;
  }
}

// Each once.
std::vector<NamedWeight> all_weights(const std::vector<EncoderHead>& heads) {
  std::vector<NamedWeight> result;
  for (const EncoderHead& head : heads) {
    for (const NamedWeight& weight : head.weights()) {
      const bool there = std::any_of(result.begin(), result.end(),
                                     [&](const NamedWeight& other) { return other.name == weight.name; });
      if (!there) result.push_back(weight);
    }
  }
  return result;
}

}  // namespace

std::string_view kind_name(TextKind kind) {
  return kind_of(kind).name;
}

std::vector<TextTask> stored_tasks(const Package& package) {
  std::vector<TextTask> tasks = tasks_of_file(package.path / "instruct.json");
  return tasks.empty() ? tasks_of_config(package.hugging_face_config) : tasks;
}

std::vector<TextTask> adapter_tasks(const fs::path& folder) {
  return tasks_of_file(folder / "instruct.json");
}

std::optional<bool> adapter_mean_pooling(const fs::path& folder) {
  return mean_pooling_of_file(folder / "instruct.json");
}

std::string peft_task_type(const TextModel& model) {
  return std::string(kind_of(model.tasks().front().kind).peft);
}

Value text_model_description(const TextModel& model, bool mean_pooling) {
  Value tasks = Value::array();
  for (const TextTask& task : model.tasks()) {
    Value labels = Value::array();
    for (const std::string& label : task.labels) labels.push(label);
    tasks.push(Value::object({{"verb", task.verb}, {"kind", kind_name(task.kind)}, {"labels", labels}}));
  }
  return Value::object({{"tasks", tasks}, {"pooling", mean_pooling ? "mean" : "first"}});
}

bool stored_mean_pooling(const Package& package) {
  if (package.gguf != nullptr) return has_mean_pooling(*package.gguf);
  if (const auto mean = mean_pooling_of_file(package.path / "instruct.json")) return *mean;
  const Value* pooling = package.hugging_face_config.find("classifier_pooling");
  if (pooling != nullptr && pooling->is_string()) return pooling->as_string() == "mean";
  if (!stored_tasks(package).empty()) return false;
  const Value sentences = json_or_null(package.path / "1_Pooling" / "config.json");
  const Value* mean = sentences.find("pooling_mode_mean_tokens");
  return mean != nullptr && mean->is_bool() && mean->as_bool();
}

TextModel::TextModel(Package& package, std::vector<TextTask> tasks, Draw draw, std::uint64_t seed,
                     const WeightOptions& options, tensor::Allocator& allocator)
    : package_(package), tasks_(std::move(tasks)) {
  const std::vector<TextTask> stored = stored_tasks(package);
  for (std::size_t i = 0; i < tasks_.size(); ++i) {
    const TextTask& task = tasks_[i];
    const bool known = std::any_of(stored.begin(), stored.end(), [&](const TextTask& other) {
      return other.kind == task.kind && other.labels == task.labels && (other.verb == task.verb || other.verb.empty());
    });
    const bool masked = task.kind == TextKind::kMasked;  // a head that the model was made with
    const HeadOptions head{
        .kind = head_kind(task.kind),
        .labels = task.columns(),
        .prefix = tasks_.size() == 1 || masked || task.verb.empty() ? "" : fmt::format("heads.{}.", task.verb),
        .draw = draw == Draw::kMissing && !known && !masked ? Draw::kAll : draw,
        .seed = seed + i};
    heads_.push_back(load_head(*package.encoder, *package.encoder_source, head, options, allocator));
  }
}

std::size_t TextModel::task_of(const std::string& verb, TextKind kind) const {
  std::vector<std::string> verbs;
  for (std::size_t i = 0; i < tasks_.size(); ++i) {
    if (tasks_[i].kind == kind && (tasks_[i].verb == verb || tasks_[i].verb.empty())) return i;
    verbs.push_back(tasks_[i].verb);
  }
  raise(ErrorCategory::kInvalidArgument, "the model has no head for verb '{}'{}", verb, did_you_mean(verb, verbs));
}

std::vector<NamedWeight> TextModel::head_weights() const {
  std::vector<NamedWeight> result = all_weights(heads_);
  std::erase_if(result, [](const NamedWeight& weight) { return !weight.variable.is_parameter(); });
  return result;
}

void TextModel::take_heads(const std::map<std::string, Tensor>& weights, const std::string& origin,
                           tensor::Allocator& allocator) {
  std::size_t taken = 0;
  for (const NamedWeight& weight : head_weights()) {
    const auto found = weights.find(weight.name);
    if (found == weights.end())
      raise(ErrorCategory::kBadData, "{}: the head's weight '{}' is missing: was it tuned for this instruction set?",
            origin, weight.name);
    Variable variable = weight.variable;
    if (!(found->second.shape() == variable.value().shape()))
      raise(ErrorCategory::kBadData, "{}: tensor '{}' is {}, the head has {}", origin, weight.name,
            found->second.shape().text(), variable.value().shape().text());
    variable.mutable_value() = ops::converted_copy(found->second, variable.dtype(), allocator);
    ++taken;
  }
  if (taken == weights.size()) return;
  std::vector<std::string> known;
  for (const NamedWeight& weight : head_weights()) known.push_back(weight.name);
  for (const auto& [name, tensor] : weights) {
    if (std::find(known.begin(), known.end(), name) == known.end())
      raise(ErrorCategory::kBadData, "{}: tensor '{}' is no weight of a head{}", origin, name,
            did_you_mean(name, known));
  }
}

std::vector<NamedWeight> TextModel::weights() const {
  std::vector<NamedWeight> result = package_.encoder->weights();
  const std::size_t encoder = result.size();
  for (const NamedWeight& weight : all_weights(heads_)) {
    const bool there = std::any_of(result.begin(), result.begin() + static_cast<std::ptrdiff_t>(encoder),
                                   [&](const NamedWeight& other) { return other.name == weight.name; });
    if (!there) result.push_back(weight);
  }
  return result;
}

void write_text_model(const fs::path& folder, const Package& package, const TextModel& model, bool mean_pooling,
                      const std::function<Tensor(const std::string& name)>& weights, DType dtype) {
  std::vector<formats::TensorToWrite> tensors;
  const auto allocator = tensor::make_host_allocator();
  ThreadPool threads(1);
  for (const NamedWeight& entry : model.weights()) {
    tensors.push_back({entry.name, entry.variable.value().shape(), dtype, [&, name = entry.name] {
                         return encoded_weight(name, weights(name), dtype, *allocator, threads);
                       }});
  }
  write_file_atomic(folder / "config.json",
                    dump_json(written_config(package, model, mean_pooling, dtype), {.indent = 2}) + "\n");
  copy_tokenizer_files(package.path, folder);
  write_file_atomic(folder / "instruct.json",
                    dump_json(text_model_description(model, mean_pooling), {.indent = 2}) + "\n");
  formats::write_safetensors(folder / "model.safetensors", tensors, Value::object({{"format", "pt"}}));
}

}  // namespace instruct::models
