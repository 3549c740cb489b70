// Data sets by name: dataset_info.json as LLaMA-Factory has it, less what needs the network.
#include <array>

#include "base/file.h"
#include "base/json.h"
#include "base/text.h"
#include "data/rows.h"

namespace instruct::data {
namespace {

namespace fs = std::filesystem;

// One entry of dataset_info.json. Errors start with `where`.
class Entry {
 public:
  Entry(const Value& value, std::string where) : value_(value), where_(std::move(where)) {
    if (!value.is_object())
      raise(ErrorCategory::kBadData, "{}: expected an object, got {}", where_, kind_name(value.kind()));
    check_keys(value,
               {"file_name", "formatting", "columns", "tags", "num_samples", "ranking", "verb", "split", "subset",
                "folder", "hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name"},
               "key");
    if (const Value* ranking = value.find("ranking"); ranking != nullptr && ranking->is_bool() && ranking->as_bool()) {
      raise(ErrorCategory::kUnsupported, "{} is for ranking: only supervised rows can be read", where_);
    }
  }

  std::string file_name() const {
    if (const Value* name = value_.find("file_name")) return text(*name, "file_name");
    raise(ErrorCategory::kUnsupported, "{} has no file_name: data sets are read from files, never from the network",
          where_);
  }

  ColumnMap map() const {
    ColumnMap map;
    if (const Value* formatting = value_.find("formatting")) map.formatting = text(*formatting, "formatting");
    if (const Value* verb = value_.find("verb")) map.verb = text(*verb, "verb");
    map.columns = names("columns");
    map.tags = names("tags");
    if (map.formatting.empty() && map.verb.empty() && map.columns.is_object()) {
      map.formatting = map.columns.find("messages") != nullptr ? "sharegpt" : "alpaca";
    }
    for (const char* preference : {"chosen", "rejected", "kto_tag"}) {
      if (map.columns.find(preference) != nullptr) {
        raise(ErrorCategory::kUnsupported, "{} maps '{}': only supervised rows can be read", where_, preference);
      }
    }
    if (!map.formatting.empty() && map.formatting != "instruction") {
      check_keys(map.columns,
                 {"prompt", "query", "response", "history", "system", "tools", "messages", "completion", "text",
                  "images", "videos", "audios"},
                 "column");
    }
    check_keys(
        map.tags,
        {"role_tag", "content_tag", "user_tag", "assistant_tag", "observation_tag", "function_tag", "system_tag"},
        "tag");
    return map;
  }

  // Above 0: only so many rows are wanted.
  std::int64_t sample_count() const {
    const Value* count = value_.find("num_samples");
    if (count == nullptr || count->is_null()) return 0;
    if (!count->is_integer() || count->as_integer() < 1)
      raise(ErrorCategory::kBadData, "{}: num_samples: expected a count above 0", where_);
    return count->as_integer();
  }

 private:
  void check_keys(const Value& object, std::initializer_list<const char*> known, const char* what) const {
    if (!object.is_object()) return;
    const std::vector<std::string> names(known.begin(), known.end());
    for (const auto& [key, value] : object.as_object()) {
      if (std::find(names.begin(), names.end(), key) == names.end()) {
        raise(ErrorCategory::kBadData, "{}: unknown {} '{}'{}", where_, what, key, did_you_mean(key, names));
      }
    }
  }
  std::string text(const Value& value, std::string_view key) const {
    if (!value.is_string())
      raise(ErrorCategory::kBadData, "{}: {}: expected text, got {}", where_, key, kind_name(value.kind()));
    return value.as_string();
  }
  // An object of texts, or null.
  Value names(std::string_view key) const {
    const Value* object = value_.find(key);
    if (object == nullptr || object->is_null()) return {};
    if (!object->is_object())
      raise(ErrorCategory::kBadData, "{}: {}: expected an object, got {}", where_, key, kind_name(object->kind()));
    for (const auto& [name, value] : object->as_object()) {
      if (!value.is_null()) text(value, fmt::format("{}.{}", key, name));
    }
    return *object;
  }

  const Value& value_;
  std::string where_;
};

Dataset open_one(const std::string& name, const fs::path& dataset_dir, std::vector<RowProblem>* problems) {
  if (fs::exists(name)) return read_dataset(name, {}, problems);
  const fs::path info_path = dataset_dir / "dataset_info.json";
  if (dataset_dir.empty() || !fs::exists(info_path)) {
    raise(ErrorCategory::kNotFound, "data set '{}' does not exist{}", name,
          dataset_dir.empty() ? " (and no dataset_dir was given to look it up in)"
                              : " (and there is no " + info_path.string() + " to look it up in)");
  }
  const Value info = parse_json(read_file(info_path), info_path.string());
  const Value* found = info.find(name);
  if (found == nullptr) {
    std::vector<std::string> names;
    if (info.is_object()) {
      for (const auto& [key, value] : info.as_object()) names.push_back(key);
    }
    raise(ErrorCategory::kNotFound, "{}: no data set '{}'{}", info_path.string(), name, did_you_mean(name, names));
  }
  const Entry entry(*found, fmt::format("{}: data set '{}'", info_path.string(), name));
  Dataset dataset = read_dataset(dataset_dir / entry.file_name(), entry.map(), problems);
  const auto wanted = static_cast<std::size_t>(entry.sample_count());
  if (wanted > 0 && wanted < dataset.examples.size()) dataset.examples.resize(wanted);
  return dataset;
}

}  // namespace

Dataset open_dataset(const std::string& names, const fs::path& dataset_dir, std::vector<RowProblem>* problems) {
  if (fs::exists(names) || names.find(',') == std::string::npos) return open_one(names, dataset_dir, problems);
  Dataset joined{.origin = names};
  for (const std::string_view part : split(names, ',')) {
    const std::string_view name = trim(part);
    if (name.empty())
      raise(ErrorCategory::kInvalidArgument, "data set '{}': a name between two commas is missing", names);
    Dataset dataset = open_one(std::string(name), dataset_dir, problems);
    if (joined.examples.empty()) joined.format = dataset.format;
    for (Example& example : dataset.examples) {
      example.source += static_cast<std::int32_t>(joined.sources.size());
      joined.examples.push_back(std::move(example));
    }
    joined.sources.insert(joined.sources.end(), dataset.sources.begin(), dataset.sources.end());
  }
  return joined;
}

}  // namespace instruct::data
