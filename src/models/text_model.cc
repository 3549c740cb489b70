#include "models/text_model.h"

#include <algorithm>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/text.h"
#include "formats/safetensors.h"
#include "models/export_parts.h"
#include "models/tokenizer_files.h"

namespace instruct::models {
namespace {

namespace fs = std::filesystem;

constexpr std::pair<const char*, TextKind> kKinds[] = {
    {"label", TextKind::kLabel}, {"labels", TextKind::kLabels}, {"sentences", TextKind::kSentences}};

Value json_or_null(const fs::path& path) {
  return fs::exists(path) ? parse_json(read_file(path, 1 << 28), path.string()) : Value();
}

TextTask task_from(const Value& stored) {
  TextTask task{.verb = stored.at("verb").as_string()};
  const std::string& kind = stored.at("kind").as_string();
  const auto* found =
      std::find_if(std::begin(kKinds), std::end(kKinds), [&](const auto& k) { return kind == k.first; });
  if (found == std::end(kKinds))
    raise(ErrorCategory::kUnsupported, "instruct.json: head of kind '{}': this program knows label, labels, sentences",
          kind);
  task.kind = found->second;
  for (const Value& label : stored.at("labels").as_array()) task.labels.push_back(label.as_string());
  return task;
}

// What a model of transformers for sequence classification says.
std::vector<TextTask> tasks_of_labels(const Value& config) {
  const Value* labels = config.find("id2label");
  const Value* architectures = config.find("architectures");
  const bool classifies = architectures != nullptr && architectures->is_array() && architectures->size() > 0 &&
                          architectures->as_array()[0].as_string().ends_with("ForSequenceClassification");
  if (!classifies || labels == nullptr || !labels->is_object()) return {};
  TextTask task;
  task.labels.resize(labels->size());
  for (const auto& [id, label] : labels->as_object()) {
    const std::size_t place = id.find_first_not_of("0123456789") == std::string::npos && id.size() < 8
                                  ? static_cast<std::size_t>(std::stoul(id))
                                  : task.labels.size();
    if (place >= task.labels.size()) raise(ErrorCategory::kBadData, "config.json: id2label has a label '{}'", id);
    task.labels[place] = label.as_string();
  }
  const Value* problem = config.find("problem_type");
  const bool several =
      problem != nullptr && problem->is_string() && problem->as_string() == "multi_label_classification";
  if (several) task.kind = TextKind::kLabels;
  return {task};
}

Value written_config(const Package& package, const TextModel& model, bool mean_pooling) {
  Value config = package.hugging_face_config;
  const EncoderFamily& family = encoder_family_of(package.config.architecture);
  const TextTask& task = model.tasks().front();
  const bool plain =
      model.tasks().size() == 1 && task.kind != TextKind::kSentences && (!mean_pooling || family.pools_by_config);
  const char* kind = plain ? "ForSequenceClassification" : "Model";
  config.set("architectures", Value::array().push(Value(std::string(family.architecture) + kind)));
  if (mean_pooling || family.pools_by_config) config.set("classifier_pooling", mean_pooling ? "mean" : "cls");
  if (plain) {
    Value names = Value::object();
    Value ids = Value::object();
    for (std::size_t i = 0; i < task.labels.size(); ++i) {
      names.set(std::to_string(i), task.labels[i]);
      ids.set(task.labels[i], static_cast<std::int64_t>(i));
    }
    config.set("id2label", names);
    config.set("label2id", ids);
    config.set("problem_type",
               task.kind == TextKind::kLabels ? "multi_label_classification" : "single_label_classification");
  }
  config.set("torch_dtype", "float32");
  if (config.find("dtype") != nullptr) config.set("dtype", "float32");
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

std::vector<TextTask> stored_tasks(const Package& package) {
  std::vector<TextTask> tasks = tasks_of_file(package.path / "instruct.json");
  return tasks.empty() ? tasks_of_labels(package.hugging_face_config) : tasks;
}

std::vector<TextTask> adapter_tasks(const fs::path& folder) {
  return tasks_of_file(folder / "instruct.json");
}

std::optional<bool> adapter_mean_pooling(const fs::path& folder) {
  return mean_pooling_of_file(folder / "instruct.json");
}

Value text_model_description(const TextModel& model, bool mean_pooling) {
  Value tasks = Value::array();
  for (const TextTask& task : model.tasks()) {
    Value labels = Value::array();
    for (const std::string& label : task.labels) labels.push(label);
    const auto* kind =
        std::find_if(std::begin(kKinds), std::end(kKinds), [&](const auto& k) { return task.kind == k.second; });
    tasks.push(Value::object({{"verb", task.verb}, {"kind", kind->first}, {"labels", labels}}));
  }
  return Value::object({{"tasks", tasks}, {"pooling", mean_pooling ? "mean" : "first"}});
}

bool stored_mean_pooling(const Package& package) {
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
    const HeadOptions head{.kind = HeadKind::kText,
                           .labels = task.columns(),
                           .prefix = tasks_.size() == 1 ? "" : fmt::format("heads.{}.", task.verb),
                           .draw = draw == Draw::kMissing && !known ? Draw::kAll : draw,
                           .seed = seed + i};
    heads_.push_back(load_head(*package.encoder, *package.encoder_source, head, options, allocator));
  }
}

std::size_t TextModel::task_of(const std::string& verb) const {
  std::vector<std::string> verbs;
  for (std::size_t i = 0; i < tasks_.size(); ++i) {
    if (tasks_[i].verb == verb || tasks_[i].verb.empty()) return i;
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
                      const std::function<Tensor(const std::string& name)>& weights) {
  std::vector<formats::TensorToWrite> tensors;
  const auto allocator = tensor::make_host_allocator();
  ThreadPool threads(1);
  for (const NamedWeight& entry : model.weights()) {
    tensors.push_back({entry.name, entry.variable.value().shape(), DType::kF32, [&, name = entry.name] {
                         return encoded_weight(name, weights(name), DType::kF32, *allocator, threads);
                       }});
  }
  write_file_atomic(folder / "config.json",
                    dump_json(written_config(package, model, mean_pooling), {.indent = 2}) + "\n");
  copy_tokenizer_files(package.path, folder);
  write_file_atomic(folder / "instruct.json",
                    dump_json(text_model_description(model, mean_pooling), {.indent = 2}) + "\n");
  formats::write_safetensors(folder / "model.safetensors", tensors, Value::object({{"format", "pt"}}));
}

}  // namespace instruct::models
