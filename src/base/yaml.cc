#include "base/yaml.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <sstream>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/text.h"

namespace instruct {
namespace {

constexpr std::size_t kMaxDepth = 200;
constexpr std::int64_t kMaxCopied = 1'000'000;

std::optional<Value> as_number(const std::string& text) {
  std::string_view digits = text;
  if (digits.starts_with('+')) digits.remove_prefix(1);
  if (digits.empty() || (digits.size() < text.size() && digits.starts_with('-'))) return std::nullopt;
  std::int64_t integer = 0;
  const char* end = digits.data() + digits.size();
  if (const auto [stop, status] = std::from_chars(digits.data(), end, integer); status == std::errc() && stop == end) {
    return Value(integer);
  }
  const bool plausible = digits.find_first_not_of("0123456789+-.eE") == std::string_view::npos &&
                         digits.find_first_of("0123456789") != std::string_view::npos;
  double number = 0;
  if (const auto [stop, status] = std::from_chars(digits.data(), end, number);
      plausible && status == std::errc() && stop == end) {
    return Value(number);
  }
  return std::nullopt;
}

// Core schema: only plain (unquoted) scalars get a type. "!" is the tag of quoted ones.
Value scalar(const std::string& tag, const std::string& text) {
  if (tag == "!" || tag == "tag:yaml.org,2002:str") return Value(text);
  if (text.empty() || text == "~" || text == "null" || text == "Null" || text == "NULL") return Value();
  if (text == "true" || text == "True" || text == "TRUE") return Value(true);
  if (text == "false" || text == "False" || text == "FALSE") return Value(false);
  if (auto number = as_number(text)) return *number;
  return Value(text);
}

// Builds the value from the parser's events. Collections under construction sit on a stack, each moved into its parent
// when it ends; anchored values are kept for their aliases, which copy them.
class Builder final : public YAML::EventHandler {
 public:
  explicit Builder(std::string_view origin) : origin_(origin) {}
  Value take() { return std::move(root_); }

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (documents_++ > 0) fail(mark, "something follows the end of the document, expected one document");
  }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override { put({Value(), 0, 1}, mark, anchor); }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    const auto found = anchors_.find(anchor);
    if (found == anchors_.end()) fail(mark, "an alias inside the value it stands for");
    count_copy(found->second, mark);
    put(found->second, mark, 0);
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& text) override {
    if (!expects_key()) return put({scalar(tag, text), 0, cost_of(text)}, mark, anchor);
    Level& level = levels_.back();
    if (!level.names.insert(text).second) fail(mark, fmt::format("key '{}' appears twice", text));
    level.key = text;
    level.key_mark = mark;
    if (anchor != 0) keep(anchor, {scalar(tag, text), 0, cost_of(text)}, mark);
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open(Value::array(), mark, anchor);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open(Value::object(), mark, anchor);
  }
  void OnMapEnd() override { close(); }

 private:
  struct Built {
    Value value;
    std::size_t height = 0;  // levels of collections below the value
    std::int64_t cost = 0;   // values in it, itself included; long texts count more
  };
  struct Level {
    Built built;
    YAML::Mark mark;
    YAML::anchor_t anchor = 0;
    std::optional<std::string> key;  // of the member that comes next
    YAML::Mark key_mark;
    std::unordered_set<std::string> names;
  };

  bool expects_key() const { return !levels_.empty() && levels_.back().built.value.is_object() && !levels_.back().key; }
  void open(Value collection, const YAML::Mark& mark, YAML::anchor_t anchor) {
    if (expects_key()) fail(mark, "a key must be plain text");
    if (levels_.size() >= kMaxDepth) fail(mark, fmt::format("nested deeper than {}", kMaxDepth));
    levels_.push_back({{std::move(collection), 1, 1}, mark, anchor, {}, {}, {}});
  }
  void close() {
    Level level = std::move(levels_.back());
    levels_.pop_back();
    put(std::move(level.built), level.mark, level.anchor);
  }
  void put(Built built, const YAML::Mark& mark, YAML::anchor_t anchor) {
    if (expects_key()) fail(mark, "a key must be plain text");
    if (levels_.size() + built.height > kMaxDepth) fail(mark, fmt::format("nested deeper than {}", kMaxDepth));
    built.value.set_mark({mark.line + 1, mark.column + 1});
    if (anchor != 0) keep(anchor, built, mark);
    if (levels_.empty()) {
      root_ = std::move(built.value);
      return;
    }
    Level& parent = levels_.back();
    parent.built.cost += built.cost;
    parent.built.height = std::max(parent.built.height, built.height + 1);
    if (!parent.key) return static_cast<void>(parent.built.value.push(std::move(built.value)));
    // An empty value has no place of its own: it gets its key's.
    if (built.value.is_null()) built.value.set_mark({parent.key_mark.line + 1, parent.key_mark.column + 1});
    parent.built.value.as_object().emplace_back(std::move(*parent.key), std::move(built.value));
    parent.key.reset();
  }
  static std::int64_t cost_of(const std::string& text) { return 1 + static_cast<std::int64_t>(text.size() / 64); }
  // A document without aliases is as large as its text; copies could be larger without end.
  void count_copy(const Built& built, const YAML::Mark& mark) {
    copied_ += built.cost;
    if (copied_ > kMaxCopied) fail(mark, "aliases expand to too many values");
  }
  void keep(YAML::anchor_t anchor, const Built& built, const YAML::Mark& mark) {
    count_copy(built, mark);
    anchors_[anchor] = built;
  }
  [[noreturn]] void fail(const YAML::Mark& mark, const std::string& what) {
    raise(ErrorCategory::kBadData, "{}: line {}, column {}: {}", origin_, mark.line + 1, mark.column + 1, what);
  }

  std::string_view origin_;
  std::vector<Level> levels_;
  std::unordered_map<YAML::anchor_t, Built> anchors_;
  Value root_;
  std::int64_t copied_ = 0;
  int documents_ = 0;
};

}  // namespace

Value parse_yaml(std::string_view text, std::string_view origin) {
  if (const auto bad = find_invalid_utf8(text)) {
    raise(ErrorCategory::kBadData, "{}: invalid UTF-8 at byte {}", origin, *bad);
  }
  try {
    std::istringstream stream{std::string(text)};
    YAML::Parser parser(stream);
    Builder builder(origin);
    // Once more after the document: a second one, or text that belongs to none, is refused. (YAML::LoadAll of 0.7.0
    // does not end on such text.)
    if (parser.HandleNextDocument(builder)) parser.HandleNextDocument(builder);
    return builder.take();
  } catch (const YAML::Exception& error) {
    raise(ErrorCategory::kBadData, "{}: line {}, column {}: malformed YAML: {}", origin, error.mark.line + 1,
          error.mark.column + 1, error.msg);
  }
}

}  // namespace instruct
