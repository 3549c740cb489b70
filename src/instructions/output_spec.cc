// Reading `output:` of a verb.
#include <fmt/core.h>

#include <algorithm>
#include <array>

#include "base/text.h"
#include "instructions/instruction_set_reader.h"

namespace instruct::instructions {
namespace {

constexpr auto kTypes =
    std::to_array<std::string_view>({"text", "label", "labels", "number", "span", "json", "list", "sentences"});
constexpr auto kAllKeys =
    std::to_array<std::string_view>({"type", "max_tokens", "labels", "minimum", "min", "maximum", "max", "integer",
                                     "min_items", "max_items", "schema", "from", "verbalisers"});

// Which keys mean something for which type; `type` and `max_tokens` always do.
std::vector<std::string_view> keys_of(OutputType type) {
  switch (type) {
    case OutputType::kLabel:
      return {"labels", "verbalisers"};
    case OutputType::kLabels:
      return {"labels", "min_items", "max_items"};
    case OutputType::kNumber:
      return {"minimum", "min", "maximum", "max", "integer"};
    case OutputType::kSpan:
      return {"from"};
    case OutputType::kJson:
      return {"schema", "from"};
    case OutputType::kList:
      return {"min_items", "max_items", "from"};
    case OutputType::kSentences:
      return {"from", "min_items", "max_items"};
    case OutputType::kText:
      return {};
  }
  return {};
}

class OutputReader {
 public:
  OutputReader(const Value& body, const Instruction& instruction, const InstructionSet& set, FieldReader& fields)
      : body_(body), instruction_(instruction), set_(set), fields_(fields) {}

  OutputSpec read() {
    fields_.known_keys(body_, kAllKeys, fmt::format(" of the output of '{}'", instruction_.verb));
    if (const auto type = fields_.choice(body_, "type", kTypes)) {
      output_.type = static_cast<OutputType>(*type);
      check_keys_fit();
    } else if (body_.find("type") == nullptr) {
      fields_.problem(body_.mark(), fmt::format("verb '{}': the output has no 'type'", instruction_.verb));
    }
    if (const auto tokens = fields_.whole_number(body_, "max_tokens", 1)) output_.max_tokens = *tokens;
    read_labels();
    read_range();
    read_items();
    if (output_.type == OutputType::kLabel) read_verbalisers();
    if (is_part_of_text()) read_from();
    if (output_.type == OutputType::kJson) read_schema();
    if (output_.type == OutputType::kLabels || output_.type == OutputType::kList) output_.form = list_form();
    return std::move(output_);
  }

 private:
  void check_keys_fit() {
    const std::vector<std::string_view> fitting = keys_of(output_.type);
    for (const auto& [key, value] : body_.as_object()) {
      const bool known = std::find(kAllKeys.begin(), kAllKeys.end(), key) != kAllKeys.end();
      if (!known || key == "type" || key == "max_tokens") continue;
      if (std::find(fitting.begin(), fitting.end(), key) != fitting.end()) continue;
      fields_.problem_at_key(body_, key,
                             fmt::format("'{}' means nothing for output type '{}'", key, type_name(output_.type)));
    }
  }

  void read_labels() {
    output_.labels = fields_.texts(body_, "labels", FieldReader::Items::kTextsAndNumbers);
    const bool labelled = output_.type == OutputType::kLabel || output_.type == OutputType::kLabels;
    if (!labelled) return;
    const Value* list = body_.find("labels");
    const Mark mark = list == nullptr ? body_.mark() : list->mark();
    if (output_.labels.size() < 2) {
      fields_.problem(mark, fmt::format("verb '{}': output type '{}' needs 'labels' with at least two of them",
                                        instruction_.verb, type_name(output_.type)));
    }
    std::vector<std::string> seen;
    for (const std::string& label : output_.labels) {
      if (trim(label) != label || label.empty())
        fields_.problem(mark, fmt::format("label '{}' is empty or has space at its ends", label));
      if (std::find(seen.begin(), seen.end(), label) != seen.end())
        fields_.problem(mark, fmt::format("label '{}' appears twice", label));
      seen.push_back(label);
    }
  }

  void read_verbalisers() {
    const Value* given = fields_.object(body_, "verbalisers");
    if (given == nullptr) return;
    for (const templates::Template& wording : instruction_.templates) {
      if (wording.source().find(kMaskMark) != std::string::npos) continue;
      fields_.problem_at_key(body_, "verbalisers",
                             fmt::format("verb '{}': verbalisers stand at {}, which a template does not have",
                                         instruction_.verb, kMaskMark));
    }
    for (const auto& [label, words] : given->as_object()) {
      if (std::find(output_.labels.begin(), output_.labels.end(), label) == output_.labels.end())
        fields_.problem_at_key(*given, label,
                               fmt::format("'{}' is no label{}", label, did_you_mean(label, output_.labels)));
    }
    for (const std::string& label : output_.labels) {
      std::vector<std::string>& words = output_.verbalisers.emplace_back(std::vector{label});
      const Value* own = given->find(label);
      if (own == nullptr) continue;
      words = fields_.texts(*given, label, FieldReader::Items::kTextsAndNumbers);
      for (const std::string& word : words) {
        if (trim(word) != word || word.empty())
          fields_.problem(own->mark(), fmt::format("verbaliser '{}' is empty or has space at its ends", word));
      }
      if (words.empty()) fields_.problem(own->mark(), fmt::format("label '{}' has no verbaliser", label));
    }
  }

  // `min` and `max` are short forms.
  std::optional<double> limit(std::string_view name, std::string_view short_name) {
    if (body_.find(name) != nullptr && body_.find(short_name) != nullptr) {
      fields_.problem_at_key(body_, short_name, fmt::format("'{}' and '{}' mean the same; give one", name, short_name));
    }
    const auto value = fields_.number(body_, name);
    return value ? value : fields_.number(body_, short_name);
  }

  void read_range() {
    output_.minimum = limit("minimum", "min");
    output_.maximum = limit("maximum", "max");
    output_.integer = fields_.boolean(body_, "integer").value_or(false);
    if (output_.minimum && output_.maximum && *output_.minimum > *output_.maximum) {
      fields_.problem(body_.mark(), fmt::format("verb '{}': minimum {} is above maximum {}", instruction_.verb,
                                                *output_.minimum, *output_.maximum));
    }
  }

  void read_items() {
    output_.min_items = fields_.whole_number(body_, "min_items", 0).value_or(0);
    output_.max_items = fields_.whole_number(body_, "max_items", 1).value_or(SchemaNode::kUnbounded);
    if (output_.min_items > output_.max_items) {
      fields_.problem(body_.mark(), fmt::format("verb '{}': min_items {} is above max_items {}", instruction_.verb,
                                                output_.min_items, output_.max_items));
    }
    if (output_.type == OutputType::kLabels && output_.min_items > static_cast<std::int64_t>(output_.labels.size())) {
      fields_.problem(body_.mark(), fmt::format("verb '{}': min_items {} with {} labels", instruction_.verb,
                                                output_.min_items, output_.labels.size()));
    }
  }

  bool is_part_of_text() const {
    return output_.type == OutputType::kSpan || output_.type == OutputType::kSentences || may_be_extracted();
  }
  // A decoder writes these whether they are parts of a text or not.
  bool may_be_extracted() const { return output_.type == OutputType::kList || output_.type == OutputType::kJson; }

  // The input a span is taken from: named, or the first text input.
  void read_from() {
    std::vector<std::string> texts;
    for (const std::string& input : instruction_.inputs) {
      const Variable* variable = set_.find_variable(input);
      if (variable != nullptr && variable->type == VariableType::kText) texts.push_back(input);
    }
    if (const auto from = fields_.text(body_, "from")) {
      output_.from = *from;
      if (std::find(texts.begin(), texts.end(), *from) == texts.end()) {
        fields_.problem(body_.at("from").mark(),
                        fmt::format("verb '{}': the output is a part of a text input, '{}' is none{}",
                                    instruction_.verb, *from, did_you_mean(*from, texts)));
      }
    } else if (!texts.empty()) {
      output_.from = texts.front();
    } else if (!may_be_extracted()) {
      fields_.problem(body_.mark(), fmt::format("verb '{}': output type '{}' needs a text input to be a part of",
                                                instruction_.verb, type_name(output_.type)));
    }
  }

  void read_schema() {
    const Value* schema = body_.find("schema");
    if (schema == nullptr) {
      output_.form = std::make_shared<const JsonSchema>();
      return;
    }
    output_.schema = *schema;
    std::vector<SchemaProblem> problems;
    output_.form = std::make_shared<const JsonSchema>(*schema, problems);
    for (SchemaProblem& problem : problems) {
      fields_.problem(problem.mark.line > 0 ? problem.mark : schema->mark(),
                      fmt::format("verb '{}': {}", instruction_.verb, problem.message));
    }
  }

  // Lists and sets of labels are JSON arrays.
  std::shared_ptr<const JsonSchema> list_form() const {
    SchemaNode list{
        .kind = SchemaKind::kArray, .items = 1, .min_items = output_.min_items, .max_items = output_.max_items};
    SchemaNode item{.kind = SchemaKind::kString};
    if (output_.type == OutputType::kLabels) {
      list.unique = true;
      item.kind = SchemaKind::kEnum;
      for (const std::string& label : output_.labels) item.values.emplace_back(label);
    }
    return std::make_shared<const JsonSchema>(std::vector<SchemaNode>{list, item});
  }

  const Value& body_;
  const Instruction& instruction_;
  const InstructionSet& set_;
  FieldReader& fields_;
  OutputSpec output_;
};

}  // namespace

std::string_view type_name(OutputType type) {
  return kTypes[static_cast<std::size_t>(type)];
}

OutputSpec read_output_spec(const Value& body, const Instruction& instruction, const InstructionSet& set,
                            FieldReader& fields) {
  return OutputReader(body, instruction, set, fields).read();
}

}  // namespace instruct::instructions
