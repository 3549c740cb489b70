// trainer_state.json: position, best metric, log, and the SHA-256 of optimizer.safetensors. optimizer.safetensors: for
// every parameter "<name>.master", "<name>.m", "<name>.v", f32; of moments in 8 bits the codes, with "<name>.m_scale"
// and
// "<name>.v_scale".
#include "train/checkpoint.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/log.h"
#include "formats/safetensors.h"

namespace instruct::train {
namespace {

namespace fs = std::filesystem;
using tensor::DType;

constexpr std::string_view kPrefix = "checkpoint-";

std::optional<std::int64_t> step_of(const fs::path& folder) {
  const std::string name = folder.filename().string();
  if (!name.starts_with(kPrefix)) return std::nullopt;
  std::int64_t step = 0;
  const char* end = name.data() + name.size();
  const auto [stop, status] = std::from_chars(name.data() + kPrefix.size(), end, step);
  return status == std::errc() && stop == end ? std::optional(step) : std::nullopt;
}

// Checkpoint folders, newest first.
std::vector<std::pair<std::int64_t, fs::path>> checkpoints(const fs::path& output) {
  std::vector<std::pair<std::int64_t, fs::path>> found;
  if (!fs::is_directory(output)) return found;
  for (const auto& entry : fs::directory_iterator(output)) {
    if (const auto step = step_of(entry.path()); step && entry.is_directory()) found.emplace_back(*step, entry.path());
  }
  std::sort(found.rbegin(), found.rend());
  return found;
}

// The moments of a parameter, by the ending of their names.
std::vector<std::pair<const char*, const Tensor*>> moments_of(const ops::AdamwState& state) {
  std::vector<std::pair<const char*, const Tensor*>> moments{{".m", &state.first}, {".v", &state.second}};
  if (state.first_scale.defined()) {
    moments.emplace_back(".m_scale", &state.first_scale);
    moments.emplace_back(".v_scale", &state.second_scale);
  }
  return moments;
}

// A tensor of a checkpoint, of what this run expects.
Tensor stored(const formats::SafetensorsFile& file, const std::string& name, const tensor::Shape& shape, DType dtype) {
  const Tensor found = file.tensor(name);
  if (!(found.shape() == shape)) {
    raise(ErrorCategory::kBadData, "{}: '{}' is {}, this run needs {}: was the configuration changed?", file.origin(),
          name, found.shape().text(), shape.text());
  }
  if (found.dtype() != dtype) {
    raise(ErrorCategory::kBadData, "{}: '{}' is {}, this run needs {}: go on with the optim it was saved with",
          file.origin(), name, tensor::info(found.dtype()).name, tensor::info(dtype).name);
  }
  return found;
}

Value state_value(const TrainingState& state, const Value& config, const std::string& hash) {
  return Value::object({{"format_version", 1},
                        {"global_step", state.position.step},
                        {"epoch", state.position.epoch},
                        {"row", state.position.row},
                        {"trained_tokens", state.position.units},
                        {"best_metric", state.has_best ? Value(state.best_metric) : Value()},
                        {"best_step", state.best_step},
                        {"evaluations_without_improvement", state.evaluations_without_improvement},
                        {"evaluated_step", state.evaluated_step},
                        {"pass_rows", state.pass_rows},
                        {"pass_checkpointing", state.checkpoint},
                        {"optimizer_sha256", hash},
                        {"config", config},
                        {"log_history", state.log}});
}

}  // namespace

fs::path save_checkpoint(const fs::path& output, const TrainingState& state, const Optimizer& optimizer,
                         const Value& config, const std::function<void(const fs::path&)>& write_model) {
  const fs::path target = output / fmt::format("{}{}", kPrefix, state.position.step);
  AtomicFolder folder(target, Existing::kReplace);
  write_model(folder.path());
  std::vector<formats::TensorToWrite> tensors;
  for (const TrainedParameter& parameter : optimizer.parameters()) {
    tensors.push_back({parameter.name + ".master", parameter.state.weight.shape(), tensor::DType::kF32,
                       [&] { return optimizer.master(parameter); }});
    for (const auto& [suffix, tensor] : moments_of(parameter.state)) {
      tensors.push_back(
          {parameter.name + suffix, tensor->shape(), tensor->dtype(), [tensor = tensor] { return *tensor; }});
    }
  }
  const fs::path optimizer_path = folder.path() / "optimizer.safetensors";
  formats::write_safetensors(optimizer_path, tensors, Value::object());
  const std::string hash = sha256_of_file(optimizer_path);
  write_file_atomic(folder.path() / "trainer_state.json",
                    dump_json(state_value(state, config, hash), {.indent = 2}) + "\n");
  folder.commit();
  return target;
}

bool TrainingState::judge(double metric, Direction better) {
  evaluated_step = position.step;
  if (has_best && !(better == Direction::kGreater ? metric > best_metric : metric < best_metric)) {
    ++evaluations_without_improvement;
    return false;
  }
  best_metric = metric;
  has_best = true;
  best_step = position.step;
  evaluations_without_improvement = 0;
  return true;
}

TrainingState load_checkpoint(const fs::path& folder, Optimizer& optimizer, Value* config) {
  const fs::path state_path = folder / "trainer_state.json";
  const fs::path optimizer_path = folder / "optimizer.safetensors";
  const Value json = parse_json(read_file(state_path, std::int64_t{1} << 30), state_path.string());
  if (sha256_of_file(optimizer_path) != json.at("optimizer_sha256").as_string()) {
    raise(ErrorCategory::kBadData, "{}: damaged: its SHA-256 is not the recorded one", optimizer_path.string());
  }
  const auto file = formats::SafetensorsFile::open(optimizer_path);
  for (TrainedParameter& parameter : optimizer.parameters()) {
    parameter.set_master(stored(*file, parameter.name + ".master", parameter.state.weight.shape(), DType::kF32));
    for (const auto& [suffix, tensor] : moments_of(parameter.state)) {
      const Tensor moment = stored(*file, parameter.name + suffix, tensor->shape(), tensor->dtype());
      Tensor target = *tensor;
      std::memcpy(target.raw(), moment.raw(), static_cast<std::size_t>(moment.bytes()));
    }
    file->release();
  }
  TrainingState state;
  state.position = {.step = json.at("global_step").as_integer(),
                    .epoch = json.at("epoch").as_integer(),
                    .row = json.at("row").as_integer(),
                    .units = json.at("trained_tokens").as_integer()};
  state.has_best = !json.at("best_metric").is_null();
  if (state.has_best) state.best_metric = json.at("best_metric").as_double();
  state.best_step = json.at("best_step").as_integer();
  state.evaluations_without_improvement = json.at("evaluations_without_improvement").as_integer();
  state.evaluated_step = json.at("evaluated_step").as_integer();
  state.log = json.at("log_history");
  if (const Value* rows = json.find("pass_rows"); rows != nullptr) {
    state.pass_rows = rows->as_integer();
    state.checkpoint = json.at("pass_checkpointing").as_bool();
  }
  if (config != nullptr) *config = json.at("config");
  optimizer.set_steps(state.position.step);
  return state;
}

std::optional<fs::path> newest_checkpoint(const fs::path& output) {
  for (const auto& [step, path] : checkpoints(output)) {
    try {
      const Value json = parse_json(read_file(path / "trainer_state.json", std::int64_t{1} << 30), path.string());
      if (sha256_of_file(path / "optimizer.safetensors") == json.at("optimizer_sha256").as_string()) return path;
      log_warning("{} is damaged (its SHA-256 differs) and is passed over", path.string());
    } catch (const Error& error) {
      log_warning("{} is passed over: {}", path.string(), error.what());
    }
  }
  return std::nullopt;
}

void remove_unfinished(const fs::path& output) {
  if (!fs::is_directory(output)) return;
  for (const auto& entry : fs::directory_iterator(output)) {
    // NAME.<process>.tmp and .old, as base/file.h makes them.
    const fs::path ending = entry.path().extension();
    const std::string process = entry.path().stem().extension().string();
    const bool number = process.size() > 1 && process.find_first_not_of("0123456789", 1) == std::string::npos;
    if ((ending != ".tmp" && ending != ".old") || !number) continue;
    std::error_code code;
    fs::remove_all(entry.path(), code);
    if (code) log_warning("cannot delete {}: {}", entry.path().string(), code.message());
  }
}

void remove_checkpoints(const fs::path& output) {
  for (const auto& [step, path] : checkpoints(output)) fs::remove_all(path);
}

void prune_checkpoints(const fs::path& output, std::int64_t keep, std::int64_t protect_step) {
  if (keep <= 0) return;
  std::int64_t kept = 0;
  for (const auto& [step, path] : checkpoints(output)) {
    if (kept++ < keep || step == protect_step) continue;
    std::error_code code;
    fs::remove_all(path, code);
    if (code) log_warning("cannot delete {}: {}", path.string(), code.message());
  }
}

}  // namespace instruct::train
