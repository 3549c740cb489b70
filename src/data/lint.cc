#include "data/lint.h"

#include <algorithm>
#include <array>
#include <map>

#include "base/json.h"
#include "base/text.h"
#include "data/duplicates.h"

namespace instruct::data {
namespace {

using instructions::EncodedDialogue;
using instructions::Message;

// Spellings of special tokens that turn up in data templated for another tool; used when no tokenizer says better.
constexpr std::array<std::string_view, 12> kUsualSpecials{
    "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|start_header_id|>", "<|begin_of_text|>",
    "<s>",          "</s>",       "[INST]",        "[/INST]",    "<start_of_turn>",     "<end_of_turn>"};

// Findings by check, in order of first use.
class Findings {
 public:
  void add(std::string_view check, Severity severity, std::string_view message, std::int64_t row) {
    Finding& finding = find(check, severity, message);
    if (row > 0 && (finding.rows.empty() || finding.rows.back() != row)) finding.rows.push_back(row);
    finding.count =
        std::max<std::int64_t>(finding.count + (row > 0 ? 0 : 1), static_cast<std::int64_t>(finding.rows.size()));
  }
  // One line of detail behind the message of a finding, for its first few rows.
  void detail(std::string_view check, std::string_view line) {
    constexpr int kShown = 3;
    if (details_[std::string(check)]++ >= kShown) return;
    for (Finding& finding : findings_) {
      if (finding.check == check) finding.message += "\n  " + std::string(line);
    }
  }
  std::vector<Finding> take() {
    std::stable_sort(findings_.begin(), findings_.end(),
                     [](const Finding& a, const Finding& b) { return a.severity < b.severity; });
    return std::move(findings_);
  }

 private:
  Finding& find(std::string_view check, Severity severity, std::string_view message) {
    for (Finding& finding : findings_) {
      if (finding.check == check) return finding;
    }
    findings_.push_back({.check = std::string(check), .severity = severity, .message = std::string(message)});
    return findings_.back();
  }
  std::vector<Finding> findings_;
  std::map<std::string, int> details_;
};

// What a row asks. Fields of an instruction row that its verb does not take (names, dates) are no part of it.
std::string question_text(const Example& example, const instructions::InstructionSet* set) {
  if (example.format == RowFormat::kInstruction) {
    const instructions::Instruction* instruction = set == nullptr ? nullptr : set->find_instruction(example.verb);
    std::string text = example.verb;
    for (const auto& [name, value] : example.variables.as_object()) {
      if (instruction != nullptr &&
          std::find(instruction->inputs.begin(), instruction->inputs.end(), name) == instruction->inputs.end())
        continue;
      text += " " + (value.is_string() ? value.as_string() : dump_json(value));
    }
    return text;
  }
  if (example.format == RowFormat::kText) return example.messages.front().content;
  std::string text;
  for (std::size_t i = 0; i < example.messages.size(); ++i) {
    if (i + 1 == example.messages.size() && example.messages[i].role == "assistant") break;
    if (example.messages[i].role != "system") text += example.messages[i].content + "\n";
  }
  return text;
}

std::string answer_text(const Example& example) {
  if (example.format == RowFormat::kInstruction)
    return example.output.is_string() ? example.output.as_string() : dump_json(example.output);
  if (example.format == RowFormat::kText || example.messages.empty()) return {};
  return example.messages.back().role == "assistant" ? example.messages.back().content : std::string();
}

class Linter {
 public:
  Linter(const Dataset& dataset, const RowEncoder* encoder, const LintOptions& options)
      : dataset_(dataset), encoder_(encoder), options_(options) {
    if (encoder == nullptr) {
      specials_.assign(kUsualSpecials.begin(), kUsualSpecials.end());
      return;
    }
    const tokenizers::TokenizerSpec& spec = encoder->dialogue().tokenizer().spec();
    for (std::size_t id = 0; id < spec.tokens.size(); ++id) {
      if (encoder->dialogue().tokenizer().is_special(static_cast<std::int32_t>(id)))
        specials_.push_back(spec.tokens[id]);
    }
    if (spec.bos) bos_ = spec.tokens[static_cast<std::size_t>(*spec.bos)];
  }

  LintReport run(const std::vector<RowProblem>& problems, const Dataset* held_out) {
    report_.origin = dataset_.origin;
    report_.format = std::string(format_name(dataset_.format));
    report_.rows = static_cast<std::int64_t>(dataset_.examples.size());
    for (const RowProblem& problem : problems) add_problem(problem);
    for (const Example& example : dataset_.examples) {
      count_verb(example);
      check_texts(example);
      if (example.format != RowFormat::kInstruction && example.format != RowFormat::kText) check_roles(example);
      if (encoder_ != nullptr) check_encoded(example);
    }
    check_duplicates();
    if (held_out != nullptr) check_overlap(*held_out);
    check_labels();
    if (encoder_ != nullptr) summarise_lengths();
    report_.findings = findings_.take();
    return std::move(report_);
  }

 private:
  void add_problem(const RowProblem& problem) {
    const bool encoding = problem.message.find("invalid UTF-8") != std::string::npos;
    const std::string_view check = encoding ? "invalid-utf8" : "unreadable";
    findings_.add(check, Severity::kError, encoding ? "rows that are not UTF-8" : "rows that cannot be read",
                  problem.row);
    findings_.detail(check, problem.message);
  }

  void count_verb(const Example& example) {
    if (example.verb.empty()) return;
    const auto found = std::find_if(report_.verbs.begin(), report_.verbs.end(),
                                    [&](const auto& verb) { return verb.first == example.verb; });
    if (found == report_.verbs.end()) {
      report_.verbs.emplace_back(example.verb, 1);
    } else {
      ++found->second;
    }
  }

  void check_texts(const Example& example) {
    const bool calls_tool = !example.messages.empty() && example.messages.back().extra.find("tool_calls") != nullptr;
    if (example.format != RowFormat::kText && !calls_tool && (example.output.is_null() || example.output.is_string()) &&
        trim(answer_text(example)).empty() &&
        (example.format == RowFormat::kInstruction ||
         (!example.messages.empty() && example.messages.back().role == "assistant"))) {
      findings_.add("empty-output", Severity::kError,
                    "rows whose answer is empty: the model would learn to say nothing", example.row);
    }
    bool empty_question = example.format == RowFormat::kText && trim(example.messages.front().content).empty();
    for (const Message& message : example.messages) {
      if (example.format != RowFormat::kText && message.role == "user" && trim(message.content).empty())
        empty_question = true;
      check_specials(example, message.content);
    }
    if (empty_question)
      findings_.add("empty-input", Severity::kWarning, "rows with an empty question or text", example.row);
    if (example.variables.is_object()) {
      for (const auto& [name, value] : example.variables.as_object()) {
        if (value.is_string()) check_specials(example, value.as_string());
      }
    }
    if (example.output.is_string()) check_specials(example, example.output.as_string());
    if (!bos_.empty() && !example.messages.empty() && trim(example.messages.front().content).starts_with(bos_)) {
      findings_.add("double-bos", Severity::kError,
                    "rows that start with the spelled-out token " + bos_ +
                        ", which is added anyway: their text has been through a chat template",
                    example.row);
    }
  }

  void check_specials(const Example& example, std::string_view text) {
    for (const std::string& special : specials_) {
      if (special.size() < 3 || text.find(special) == std::string_view::npos) continue;
      findings_.add(
          "special-text", Severity::kWarning,
          "rows that spell special tokens: they are read as plain text; has the data been through a chat template?",
          example.row);
      findings_.detail("special-text", fmt::format("row {}: {}", example.row, special));
      return;
    }
  }

  void check_roles(const Example& example) {
    const std::string problem = role_problem(example.messages);
    if (problem.empty()) return;
    const bool trains = std::any_of(example.messages.begin(), example.messages.end(),
                                    [](const Message& m) { return m.role == "assistant"; });
    findings_.add(trains ? "role-order" : "no-answer", trains ? Severity::kWarning : Severity::kError,
                  trains ? "dialogues whose turns are out of order"
                         : "dialogues without an assistant turn: nothing would be trained",
                  example.row);
    findings_.detail(trains ? "role-order" : "no-answer", fmt::format("row {}: {}", example.row, problem));
  }

  static std::string role_problem(const std::vector<Message>& messages) {
    std::string before;
    for (std::size_t i = 0; i < messages.size(); ++i) {
      const std::string& role = messages[i].role;
      if (role == "system" && i > 0) return fmt::format("message {} is the system's, which comes first only", i + 1);
      if (role == "assistant" && (before.empty() || before == "system"))
        return fmt::format("message {} answers nothing", i + 1);
      if (role == "tool" && before != "assistant" && before != "tool")
        return fmt::format("message {} is a tool's, without a call before it", i + 1);
      if (role == before && role != "tool") return fmt::format("messages {} and {} are both the {}'s", i, i + 1, role);
      before = role;
    }
    return before == "assistant" ? std::string() : "the last message is the " + before + "'s";
  }

  void check_encoded(const Example& example) {
    EncodedDialogue encoded;
    try {
      row_messages(dataset_, example, encoder_->set(), options_.encode);
    } catch (const Error& error) {
      return unusable(example, error);
    }
    try {
      encoded = encoder_->encode_dialogue(dataset_, example, options_.encode);
    } catch (const Error& error) {
      if (error.category() != ErrorCategory::kInvalidArgument) return unusable(example, error);
      return findings_.add("zero-mask", Severity::kError, "rows with no trained token", example.row);
    }
    if (!encoded.end_trained && example.format != RowFormat::kText) {
      findings_.add("no-end", Severity::kError,
                    "rows whose answer's end-of-turn token is not trained: the model would not learn to stop",
                    example.row);
    }
    if (!encoded.follows_prompt) {
      findings_.add(
          "prompt-differs", Severity::kWarning,
          "rows that do not start with the prompt their answer is served with: the template opens thoughts "
          "that the row has not (it may give them as reasoning_content), or treats the last message in its own "
          "way",
          example.row);
    }
    if (!encoded.seams.empty()) {
      findings_.add("seam", Severity::kNote,
                    "rows with a token that holds characters from the answer and from outside of it", example.row);
    }
    lengths_.push_back(static_cast<std::int64_t>(encoded.tokens.size()));
    answers_.push_back(std::count(encoded.trained.begin(), encoded.trained.end(), std::uint8_t{1}));
    if (lengths_.back() > options_.encode.cutoff) {
      const bool stops = options_.encode.overflow == Overflow::kRaise;
      findings_.add("overflow", stops ? Severity::kError : Severity::kWarning,
                    fmt::format("rows longer than {} tokens", options_.encode.cutoff), example.row);
    }
  }

  void unusable(const Example& example, const Error& error) {
    findings_.add("unusable", Severity::kError, "rows that do not fit the instruction set or the template",
                  example.row);
    findings_.detail("unusable", error.what());
  }

  std::vector<std::string> texts_of(const Dataset& dataset) const {
    std::vector<std::string> texts;
    for (const Example& example : dataset.examples)
      texts.push_back(question_text(example, encoder_ == nullptr ? nullptr : encoder_->set()));
    return texts;
  }

  void check_duplicates() {
    for (const Duplicate& duplicate : find_duplicates(texts_of(dataset_), options_.near)) {
      const Example& example = dataset_.examples[duplicate.index];
      const Example& first = dataset_.examples[duplicate.of];
      const bool same_answer = folded(answer_text(example)) == folded(answer_text(first));
      const std::string pair =
          fmt::format("row {} and row {} ({:.0f}%)", example.row, first.row, 100 * duplicate.similarity);
      if (duplicate.similarity < 1) {
        findings_.add("near-duplicate", Severity::kNote, "rows whose question is nearly that of a row before",
                      example.row);
        findings_.detail("near-duplicate", pair);
      } else if (same_answer) {
        findings_.add("duplicate", Severity::kWarning, "rows that repeat a row before", example.row);
        findings_.detail("duplicate", pair);
      } else {
        findings_.add("contradiction", Severity::kWarning, "rows that answer a question of a row before in another way",
                      example.row);
        findings_.detail("contradiction", pair);
      }
    }
  }

  void check_overlap(const Dataset& held_out) {
    for (const Duplicate& duplicate : find_overlap(texts_of(dataset_), texts_of(held_out), options_.near)) {
      const std::int64_t row = held_out.examples[duplicate.index].row;
      const bool same = duplicate.similarity >= 1;
      const std::string_view check = same ? "leak" : "near-leak";
      findings_.add(check, same ? Severity::kError : Severity::kWarning,
                    same ? "rows of the evaluation data that are trained on (numbers are theirs)"
                         : "rows of the evaluation data that are nearly trained on (numbers are theirs)",
                    row);
      findings_.detail(check, fmt::format("row {} there, row {} here ({:.0f}%)", row,
                                          dataset_.examples[duplicate.of].row, 100 * duplicate.similarity));
    }
  }

  // Labels of the set that no row has.
  void check_labels() {
    if (encoder_ == nullptr || encoder_->set() == nullptr) return;
    for (const auto& [verb, rows] : report_.verbs) {
      const instructions::Instruction* instruction = encoder_->set()->find_instruction(verb);
      if (instruction == nullptr || instruction->output.type != instructions::OutputType::kLabel) continue;
      std::map<std::string, std::int64_t> seen;
      for (const Example& example : dataset_.examples) {
        if (example.verb == verb && example.output.is_string()) ++seen[example.output.as_string()];
      }
      std::string missing;
      for (const std::string& label : instruction->output.labels) {
        if (!seen.contains(label)) missing += (missing.empty() ? "" : ", ") + label;
      }
      if (!missing.empty())
        findings_.add("unseen-label:" + verb, Severity::kNote,
                      fmt::format("labels of {} that no row has: {}", verb, missing), 0);
    }
  }

  void summarise_lengths() {
    report_.has_lengths = true;
    report_.row_lengths = summary_of(lengths_);
    report_.answer_lengths = summary_of(answers_);
    for (const std::int64_t length : lengths_) report_.tokens += length;
    for (const std::int64_t length : answers_) report_.trained_tokens += length;
    std::vector<std::int64_t> cutoffs{256, 512, 1024, 2048, 4096, 8192, options_.encode.cutoff};
    std::sort(cutoffs.begin(), cutoffs.end());
    cutoffs.erase(std::unique(cutoffs.begin(), cutoffs.end()), cutoffs.end());
    for (const std::int64_t cutoff : cutoffs) {
      OverflowLine line{.cutoff = cutoff};
      for (const std::int64_t length : lengths_) {
        line.rows += length > cutoff ? 1 : 0;
        line.tokens += std::max<std::int64_t>(0, length - cutoff);
      }
      if (line.rows > 0 || cutoff == options_.encode.cutoff) report_.overflow.push_back(line);
    }
  }

  const Dataset& dataset_;
  const RowEncoder* encoder_;
  const LintOptions& options_;
  std::vector<std::string> specials_;
  std::string bos_;
  Findings findings_;
  LintReport report_;
  std::vector<std::int64_t> lengths_, answers_;
};

}  // namespace

std::string_view severity_name(Severity severity) {
  switch (severity) {
    case Severity::kError:
      return "error";
    case Severity::kWarning:
      return "warning";
    case Severity::kNote:
      return "note";
  }
  return "unknown";
}

LengthSummary summary_of(std::vector<std::int64_t> lengths) {
  if (lengths.empty()) return {};
  std::sort(lengths.begin(), lengths.end());
  // Nearest rank: the least value that at least this share of all does not exceed.
  const auto at = [&](std::size_t percent) {
    return lengths[std::max<std::size_t>(1, (lengths.size() * percent + 99) / 100) - 1];
  };
  double sum = 0;
  for (const std::int64_t length : lengths) sum += static_cast<double>(length);
  return {.minimum = lengths.front(),
          .median = at(50),
          .p90 = at(90),
          .p95 = at(95),
          .p99 = at(99),
          .maximum = lengths.back(),
          .mean = sum / static_cast<double>(lengths.size())};
}

bool LintReport::has_errors() const {
  return std::any_of(findings.begin(), findings.end(),
                     [](const Finding& finding) { return finding.severity == Severity::kError; });
}

LintReport lint(const Dataset& dataset, const std::vector<RowProblem>& problems, const Dataset* held_out,
                const RowEncoder* encoder, const LintOptions& options) {
  return Linter(dataset, encoder, options).run(problems, held_out);
}

}  // namespace instruct::data
