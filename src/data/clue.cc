#include "data/clue.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/text.h"
#include "data/rows.h"

namespace instruct::data {
namespace {

const std::vector<std::string>& task_names() {
  static const std::vector<std::string> names{"tnews", "iflytek", "csldcp", "eprstmt", "ocnli", "cmnli",
                                              "bustm", "afqmc",   "csl",    "cluewsc", "chid"};
  return names;
}

// A label as files write it, and its Chinese name. Further spellings follow as rows of their own.
using Labels = std::span<const std::pair<std::string_view, std::string_view>>;

// Numbers and names of the sections of Toutiao news; 105 and 111 do not exist.
constexpr std::pair<std::string_view, std::string_view> kSections[] = {{"news_story", "故事"},
                                                                       {"news_culture", "文化"},
                                                                       {"news_entertainment", "娱乐"},
                                                                       {"news_sports", "体育"},
                                                                       {"news_finance", "财经"},
                                                                       {"news_house", "房产"},
                                                                       {"news_car", "汽车"},
                                                                       {"news_edu", "教育"},
                                                                       {"news_tech", "科技"},
                                                                       {"news_military", "军事"},
                                                                       {"news_travel", "旅游"},
                                                                       {"news_world", "国际"},
                                                                       {"news_stock", "证券"},
                                                                       {"news_agriculture", "农业"},
                                                                       {"news_game", "电竞"},
                                                                       {"100", "故事"},
                                                                       {"101", "文化"},
                                                                       {"102", "娱乐"},
                                                                       {"103", "体育"},
                                                                       {"104", "财经"},
                                                                       {"106", "房产"},
                                                                       {"107", "汽车"},
                                                                       {"108", "教育"},
                                                                       {"109", "科技"},
                                                                       {"110", "军事"},
                                                                       {"112", "旅游"},
                                                                       {"113", "国际"},
                                                                       {"114", "证券"},
                                                                       {"115", "农业"},
                                                                       {"116", "电竞"}};
constexpr std::pair<std::string_view, std::string_view> kSentiments[] = {{"Positive", "正向"}, {"Negative", "负向"}};
constexpr std::pair<std::string_view, std::string_view> kInferences[] = {
    {"entailment", "蕴含"}, {"neutral", "中立"}, {"contradiction", "矛盾"}};
constexpr std::pair<std::string_view, std::string_view> kTruths[] = {
    {"1", "是"}, {"0", "否"}, {"true", "是"}, {"false", "否"}};

constexpr std::string_view kGap = "____";         // the gap that is asked for
constexpr std::string_view kOtherGap = "（略）";  // other gaps of the same text

bool is_text(const Value* value) {
  return value != nullptr && value->is_string();
}
bool is_one_of(std::string_view label, Labels labels) {
  return std::any_of(labels.begin(), labels.end(), [&](const auto& known) { return known.first == label; });
}

// Reads the fields of one row.
class Row {
 public:
  Row(const Value& row, std::string where) : row_(row), where_(std::move(where)) {
    if (!row.is_object())
      raise(ErrorCategory::kBadData, "{}: expected an object, got {}", where_, kind_name(row.kind()));
  }

  [[noreturn]] void fail(std::string_view name, const std::string& expected) const {
    const Value* value = row_.find(std::string(name));
    raise(ErrorCategory::kBadData, "{}: field '{}': expected {}, got {}", where_, name, expected,
          value == nullptr     ? "nothing"
          : value->is_string() ? "'" + shortened(value->as_string()) + "'"
                               : std::string(kind_name(value->kind())));
  }
  const Value* find(std::string_view name) const { return row_.find(std::string(name)); }
  std::string text(std::string_view name) const {
    const Value* value = find(name);
    if (!is_text(value)) fail(name, "a text");
    return value->as_string();
  }
  std::vector<std::string> texts(std::string_view name) const {
    const Value* value = find(name);
    if (value == nullptr || !value->is_array() || value->size() == 0) fail(name, "a list of texts");
    std::vector<std::string> result;
    for (const Value& item : value->as_array()) {
      if (!item.is_string()) fail(name, "a list of texts");
      result.push_back(item.as_string());
    }
    return result;
  }
  // Labels are texts, whole numbers, or true and false; nothing when the row has none.
  std::optional<std::string> label(std::string_view name) const {
    const Value* value = find(name);
    if (value == nullptr || value->is_null()) return std::nullopt;
    if (value->is_integer()) return std::to_string(value->as_integer());
    if (value->is_bool()) return value->as_bool() ? "true" : "false";
    if (!value->is_string()) fail(name, "a label");
    return value->as_string();
  }
  // The label's Chinese name.
  std::optional<std::string> named(std::string_view name, Labels labels) const {
    const std::optional<std::string> given = label(name);
    if (!given) return std::nullopt;
    for (const auto& [known, chinese] : labels) {
      if (known == *given) return std::string(chinese);
    }
    std::string expected;
    for (const auto& [known, chinese] : labels.first(std::min<std::size_t>(4, labels.size())))
      expected += (expected.empty() ? "" : ", ") + std::string(known);
    fail(name, "one of " + expected + (labels.size() > 4 ? ", ..." : ""));
  }
  const std::string& where() const { return where_; }
  std::int64_t number() const { return row_.mark().line; }

 private:
  static std::string shortened(const std::string& text) {
    constexpr std::size_t kShown = 60;
    return text.size() <= kShown ? text : text.substr(0, utf8_boundary(text, kShown)) + "...";
  }
  static std::size_t utf8_boundary(const std::string& text, std::size_t at) {
    while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xC0U) == 0x80U) --at;
    return at;
  }

  const Value& row_;
  std::string where_;
};

std::string replaced(std::string text, std::string_view from, std::string_view to) {
  for (std::size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size()))
    text.replace(at, from.size(), to);
  return text;
}

class Converter {
 public:
  Converter(ClueRows& result, const Value& answers) : result_(result), answers_(answers) {}

  void convert(const Row& row) {
    switch (result_.task) {
      case ClueTask::kTnews:
        return tnews(row);
      case ClueTask::kIflytek:
        return add(row, {{"text", row.text("sentence")}},
                   row.label(row.find("label_des") ? "label_des" : "label_desc"));
      case ClueTask::kCsldcp:
        return add(row, {{"text", row.text("content")}}, row.label("label"));
      case ClueTask::kEprstmt:
        return add(row, {{"text", row.text("sentence")}}, row.named("label", kSentiments));
      case ClueTask::kOcnli:
      case ClueTask::kCmnli:
        return inference(row);
      case ClueTask::kBustm:
      case ClueTask::kAfqmc:
        return add(row, {{"text", row.text("sentence1")}, {"other", row.text("sentence2")}},
                   row.named("label", kTruths));
      case ClueTask::kCsl:
        return add(row, {{"text", row.text("abst")}, {"keywords", joined(row.texts("keyword"))}},
                   row.named("label", kTruths));
      case ClueTask::kCluewsc:
        return cluewsc(row);
      case ClueTask::kChid:
        return chid(row);
    }
  }

 private:
  void add(const Row& row, Value::Object variables, const std::optional<std::string>& output) {
    Value made = Value::object({{"verb", std::string(clue_task_name(result_.task))}});
    for (auto& [name, value] : variables) made.set(name, std::move(value));
    if (output) made.set("output", *output);
    result_.unlabelled += output ? 0 : 1;
    for (const char* id : {"id", "idx"}) {
      if (const Value* given = row.find(id)) made.set("id", *given);
    }
    result_.rows.push_back(std::move(made));
  }

  static std::string joined(const std::vector<std::string>& texts) {
    std::string result;
    for (const std::string& text : texts) result += (result.empty() ? "" : "、") + text;
    return result;
  }

  void tnews(const Row& row) {
    const char* described = row.find("label_desc") != nullptr ? "label_desc" : "label_des";
    const char* label = row.find(described) != nullptr ? described : "label";
    Value::Object variables{{"text", row.text("sentence")}};
    if (const std::optional<std::string> keywords = row.label("keywords"); keywords && !keywords->empty())
      variables.emplace_back("keywords", *keywords);
    add(row, std::move(variables), row.named(label, kSections));
  }

  void inference(const Row& row) {
    if (row.label("label") == "-") {
      result_.unanswered.push_back(row.number());
      return;
    }
    add(row, {{"text", row.text("sentence1")}, {"other", row.text("sentence2")}}, row.named("label", kInferences));
  }

  void cluewsc(const Row& row) {
    const Value* target = row.find("target");
    if (target == nullptr || !target->is_object()) row.fail("target", "an object with span1_text and span2_text");
    const Row spans(*target, row.where() + ": target");
    add(row, {{"text", row.text("text")}, {"noun", spans.text("span1_text")}, {"pronoun", spans.text("span2_text")}},
        row.named("label", kTruths));
  }

  // One gap "#idiom#" in a text, or gaps "#idiom000123#" in a list of texts.
  void chid(const Row& row) {
    const std::vector<std::string> candidates = row.texts("candidates");
    if (const Value* content = row.find("content"); is_text(content)) {
      if (content->as_string().find("#idiom#") == std::string::npos) row.fail("content", "a text with #idiom# in it");
      const Value* answer = row.find("answer");
      return add(row, {{"text", replaced(content->as_string(), "#idiom#", kGap)}, {"candidates", joined(candidates)}},
                 answer == nullptr || answer->is_null() ? std::nullopt : chosen(row, *answer, candidates, "answer"));
    }
    std::size_t gaps = 0;
    for (const std::string& text : row.texts("content")) gaps += gaps_of(row, text, candidates);
    if (gaps == 0) row.fail("content", "texts with #idiom000000# in them");
  }

  std::size_t gaps_of(const Row& row, const std::string& text, const std::vector<std::string>& candidates) {
    constexpr std::string_view kStart = "#idiom";
    std::vector<std::string> names;
    for (std::size_t at = text.find(kStart); at != std::string::npos; at = text.find(kStart, at + kStart.size())) {
      const std::size_t end = text.find('#', at + 1);
      if (end == std::string::npos) break;
      names.push_back(text.substr(at, end + 1 - at));
    }
    for (const std::string& name : names) {
      std::string asked = replaced(text, name, kGap);
      for (const std::string& other : names) asked = replaced(std::move(asked), other, kOtherGap);
      const Value* answer = answers_.is_object() ? answers_.find(name) : nullptr;
      if (answers_.is_object() && answer == nullptr)
        raise(ErrorCategory::kBadData, "{}: the answer file has no answer for {}", row.where(), name);
      add(row, {{"text", std::move(asked)}, {"candidates", joined(candidates)}, {"gap", name}},
          answer == nullptr ? std::nullopt : chosen(row, *answer, candidates, name));
    }
    return names.size();
  }

  static std::optional<std::string> chosen(const Row& row, const Value& answer,
                                           const std::vector<std::string>& candidates, std::string_view name) {
    const bool fits = answer.is_integer() && answer.as_integer() >= 0 &&
                      answer.as_integer() < static_cast<std::int64_t>(candidates.size());
    if (!fits)
      raise(ErrorCategory::kBadData, "{}: the answer of '{}': expected the place of a candidate, 0 to {}", row.where(),
            name, candidates.size() - 1);
    return candidates[static_cast<std::size_t>(answer.as_integer())];
  }

  ClueRows& result_;
  const Value& answers_;
};

// What one row shows; several tasks when it could be of each.
std::vector<ClueTask> tasks_of(const Row& row) {
  const std::optional<std::string> label = row.label("label");
  const Value* described = row.find(row.find("label_desc") != nullptr ? "label_desc" : "label_des");
  if (row.find("abst") != nullptr) return {ClueTask::kCsl};
  if (row.find("candidates") != nullptr) return {ClueTask::kChid};
  if (row.find("target") != nullptr) return {ClueTask::kCluewsc};
  if (row.find("sentence1") != nullptr) {
    if (row.find("genre") != nullptr || row.find("prem_id") != nullptr) return {ClueTask::kOcnli};
    if (label && (is_one_of(*label, kInferences) || *label == "-")) return {ClueTask::kOcnli};
    if (label && is_one_of(*label, kTruths)) return {ClueTask::kBustm};
    return {ClueTask::kOcnli, ClueTask::kCmnli, ClueTask::kBustm, ClueTask::kAfqmc};
  }
  if (row.find("sentence") != nullptr) {
    if (row.find("keywords") != nullptr || (is_text(described) && is_one_of(described->as_string(), kSections)))
      return {ClueTask::kTnews};
    if (described != nullptr) return {ClueTask::kIflytek};
    if (label && is_one_of(*label, kSentiments)) return {ClueTask::kEprstmt};
    return {ClueTask::kTnews, ClueTask::kIflytek, ClueTask::kEprstmt};
  }
  if (row.find("content") != nullptr) return {ClueTask::kCsldcp};
  return {};
}

std::string where_of(const Value& row, const std::string& origin) {
  return fmt::format("{}: row {}", origin, row.mark().line);
}

}  // namespace

ClueTask clue_task_from_name(std::string_view name) {
  const std::vector<std::string>& names = task_names();
  const auto found = std::find(names.begin(), names.end(), name);
  if (found == names.end())
    raise(ErrorCategory::kInvalidArgument, "unknown CLUE task '{}'{}", name, did_you_mean(name, names));
  return static_cast<ClueTask>(found - names.begin());
}

std::string_view clue_task_name(ClueTask task) {
  return task_names()[static_cast<std::size_t>(task)];
}

ClueTask detect_clue_task(std::span<const Value> rows, const std::string& origin) {
  std::vector<ClueTask> possible;
  for (const Value& row : rows) {
    possible = tasks_of(Row(row, where_of(row, origin)));
    if (possible.size() == 1) return possible.front();
    if (possible.empty())
      raise(ErrorCategory::kBadData, "{}: the keys are those of no CLUE task", where_of(row, origin));
  }
  std::string names;
  for (const ClueTask task : possible) names += (names.empty() ? "" : ", ") + std::string(clue_task_name(task));
  raise(ErrorCategory::kInvalidArgument, "{}: rows like these have several tasks: {}; name the one it is", origin,
        names);
}

ClueRows convert_clue(std::span<const Value> rows, const std::string& origin, ClueTask task, const Value& answers) {
  ClueRows result{.task = task};
  Converter converter(result, answers);
  for (const Value& row : rows) converter.convert(Row(row, where_of(row, origin)));
  return result;
}

ClueRows read_clue(const std::filesystem::path& path, std::string_view task, const std::filesystem::path& answers) {
  const std::string text = read_file(path);
  const std::string_view content = trim(text);
  const std::vector<Value> rows = parse_raw_rows(text, content.starts_with('[') ? ".json" : ".jsonl", path.string());
  Value given;
  if (!answers.empty()) {
    given = parse_json(read_file(answers), answers.string());
    if (!given.is_object())
      raise(ErrorCategory::kBadData, "{}: expected an object of answers, got {}", answers.string(),
            kind_name(given.kind()));
  }
  return convert_clue(rows, path.string(),
                      task == "clue" ? detect_clue_task(rows, path.string()) : clue_task_from_name(task), given);
}

}  // namespace instruct::data
