#include "evaluate/text_answers.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>

#include "base/cancel.h"
#include "base/json.h"
#include "ops/rows.h"

namespace instruct::evaluate {
namespace {

using autograd::Variable;
using instructions::FoundSpan;
using instructions::Instruction;
using instructions::OutputType;

double log_sigmoid(double z) {
  return std::min(z, 0.0) - std::log1p(std::exp(-std::abs(z)));
}

// Which are chosen of parts with these probabilities: those above one half, but at least and at most so many, the most
// likely ones first.
std::vector<float> choose(const std::vector<double>& probabilities, std::int64_t least, std::int64_t most) {
  std::vector<std::size_t> order(probabilities.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return probabilities[a] > probabilities[b]; });
  std::vector<float> chosen(probabilities.size(), 0.0F);
  for (std::size_t i = 0; i < order.size(); ++i) {
    const auto count = static_cast<std::int64_t>(i);
    if (count >= most || (count >= least && probabilities[order[i]] <= 0.5)) break;
    chosen[order[i]] = 1;
  }
  return chosen;
}

std::vector<double> log_softmax(std::span<const float> scores) {
  return data::log_softmax(std::vector<double>(scores.begin(), scores.end()));
}

TextAnswer answer_of_label(const Instruction& instruction, const data::TextRow& row, std::span<const float> scores) {
  TextAnswer answer{.log_probabilities = log_softmax(scores)};
  for (const double value : answer.log_probabilities) answer.probabilities.push_back(std::exp(value));
  const auto best = static_cast<std::size_t>(std::max_element(scores.begin(), scores.end()) - scores.begin());
  answer.text = instruction.output.labels[best];
  answer.units = 1;
  answer.log_probability =
      answer.log_probabilities[row.truth.empty() ? best : static_cast<std::size_t>(row.truth.front())];
  return answer;
}

// Of labels or sentences that are each true or not.
TextAnswer answer_of_each(const Instruction& instruction, const data::TextRow& row, std::span<const float> scores) {
  TextAnswer answer;
  for (const float score : scores) {
    answer.log_probabilities.push_back(log_sigmoid(static_cast<double>(score)));
    answer.probabilities.push_back(std::exp(answer.log_probabilities.back()));
  }
  const bool sentences = instruction.output.type == OutputType::kSentences;
  const std::int64_t least = std::max<std::int64_t>(sentences ? 1 : 0, instruction.output.min_items);
  answer.units = static_cast<std::int64_t>(scores.size());
  answer.chosen = choose(answer.probabilities, least, instruction.output.max_items);
  Value labels = Value::array();
  for (std::size_t i = 0; i < scores.size(); ++i) {
    const bool truth = (row.truth.empty() ? answer.chosen[i] : row.truth[i]) > 0;
    answer.log_probability += log_sigmoid(truth ? static_cast<double>(scores[i]) : -static_cast<double>(scores[i]));
    if (answer.chosen[i] == 0) continue;
    if (sentences) {
      answer.text += (answer.text.empty() ? "" : " ") + row.sentences[i];
    } else {
      labels.push(instruction.output.labels[i]);
    }
  }
  if (!sentences) answer.text = dump_json(labels);
  return answer;
}

// The likeliest span of an example's windows; scores [tokens, 2] by window.
TextAnswer answer_of_span(const Instruction& instruction, std::span<const data::TextRow> windows,
                          std::span<const std::vector<float>> scores) {
  constexpr double kNever = -std::numeric_limits<double>::infinity();
  double best = kNever;
  double true_one = kNever;
  TextAnswer answer;
  answer.found.resize(1);
  answer.units = 2;
  for (std::size_t w = 0; w < windows.size(); ++w) {
    const data::TextRow& window = windows[w];
    const std::size_t count = window.parts.size();
    std::vector<float> starts, ends;
    for (std::size_t i = 0; i < count; ++i) {
      starts.push_back(scores[w][2 * i]);
      ends.push_back(scores[w][2 * i + 1]);
    }
    const std::vector<double> start = log_softmax(starts);
    const std::vector<double> end = log_softmax(ends);
    for (std::size_t i = 0; i < count; ++i) {
      if (window.places[i].begin == window.places[i].end) continue;
      const std::size_t last = std::min(count, i + static_cast<std::size_t>(instruction.output.max_tokens));
      for (std::size_t j = i; j < last; ++j) {
        if (window.places[j].begin == window.places[j].end || start[i] + end[j] <= best) continue;
        best = start[i] + end[j];
        answer.found[0].bytes = {window.places[i].begin, window.places[j].end};
      }
    }
    if (!window.truth.empty() && window.truth[1] > 0)
      true_one = std::max(
          true_one, start[static_cast<std::size_t>(window.truth[0])] + end[static_cast<std::size_t>(window.truth[1])]);
  }
  const data::ByteRange& bytes = answer.found[0].bytes;
  answer.found[0].probability = std::exp(best);
  answer.text = windows.front().source->substr(bytes.begin, bytes.end - bytes.begin);
  answer.log_probability = windows.front().truth.empty() ? best : true_one;
  return answer;
}

// The parts that tags of words make.
class PartsOfTags {
 public:
  explicit PartsOfTags(const Instruction& instruction) {
    const std::vector<instructions::ExtractedField> fields = instructions::extracted_fields(instruction);
    for (const std::string& tag : instruction.output.labels) {
      const auto field = std::find_if(fields.begin(), fields.end(), [&](const instructions::ExtractedField& f) {
        return tag.size() > 2 && std::string_view(tag).substr(2) == f.name;
      });
      tags_.push_back({tag != "O", tag.starts_with('B'), static_cast<std::size_t>(field - fields.begin())});
    }
  }
  void add(std::size_t number, const data::ByteRange& word, double probability, std::vector<FoundSpan>& parts) {
    const Tag& tag = tags_[number];
    const bool goes_on = tag.inside && !tag.begins && last_ && *last_ == tag.field;
    if (goes_on) {
      parts.back().bytes.end = word.end;
      parts.back().probability *= probability;
    } else if (tag.inside) {
      parts.push_back({tag.field, word, probability});
    }
    last_ = tag.inside ? std::optional(tag.field) : std::nullopt;
  }

 private:
  struct Tag {
    bool inside = false, begins = false;
    std::size_t field = 0;
  };
  std::vector<Tag> tags_;
  std::optional<std::size_t> last_;  // the field that the word before is of
};

// The parts of an example's windows; scores [words, tags] by window.
TextAnswer answer_of_tags(const Instruction& instruction, std::span<const data::TextRow> windows,
                          std::span<const std::vector<float>> scores) {
  const std::size_t tags = instruction.output.labels.size();
  PartsOfTags found(instruction), truth(instruction);
  TextAnswer answer;
  for (std::size_t w = 0; w < windows.size(); ++w) {
    const data::TextRow& window = windows[w];
    for (std::size_t i = 0; i < window.parts.size(); ++i) {
      const std::vector<double> log_probabilities = log_softmax(std::span(scores[w]).subspan(i * tags, tags));
      const auto likeliest = static_cast<std::size_t>(
          std::max_element(log_probabilities.begin(), log_probabilities.end()) - log_probabilities.begin());
      found.add(likeliest, window.places[i], std::exp(log_probabilities[likeliest]), answer.found);
      const std::size_t right = window.truth.empty() ? likeliest : static_cast<std::size_t>(window.truth[i]);
      if (!window.truth.empty()) truth.add(right, window.places[i], 1, answer.truth);
      answer.log_probability += log_probabilities[right];
      ++answer.units;
    }
  }
  answer.text = dump_json(instructions::extracted_value(instruction, answer.found, *windows.front().source));
  return answer;
}

// Of the rows of one example.
TextAnswer answer_of(const Instruction& instruction, std::span<const data::TextRow> rows,
                     std::span<const std::vector<float>> scores) {
  switch (instruction.output.type) {
    case OutputType::kLabel:
      return answer_of_label(instruction, rows.front(), scores.front());
    case OutputType::kSpan:
      return answer_of_span(instruction, rows, scores);
    case OutputType::kList:
    case OutputType::kJson:
      return answer_of_tags(instruction, rows, scores);
    default:
      return answer_of_each(instruction, rows.front(), scores.front());
  }
}

std::vector<const data::TextRow*> pointers(std::span<const data::TextRow> rows) {
  std::vector<const data::TextRow*> result;
  for (const data::TextRow& row : rows) result.push_back(&row);
  return result;
}

// Runs `body` over stretches [begin, end) of rows that make a pass each.
void for_each_pass(std::span<const data::TextRow> rows,
                   const std::function<void(std::size_t begin, std::size_t end)>& body) {
  constexpr std::size_t kTokens = 4096;  // of a pass
  for (std::size_t begin = 0; begin < rows.size();) {
    std::size_t end = begin;
    for (std::size_t tokens = 0; end < rows.size(); ++end) {
      tokens += rows[end].tokens.size();
      if (end > begin && tokens > kTokens) break;
    }
    body(begin, end);
    begin = end;
  }
}

// All parts of rows side by side [M, D].
Variable pooled_parts(ops::Engine& engine, models::TextModel& model, std::span<const data::TextRow* const> rows) {
  const data::TextBatch batch = data::make_text_batch(rows, model.encoder().config().first_position);
  const std::vector<std::int32_t> single = data::single_tokens(batch);
  return model.encoder().pooled(
      engine.context(),
      {.tokens = batch.tokens, .positions = batch.positions, .types = batch.types, .plan = &batch.plan, .rows = single},
      batch.parts);
}

// Scores of labels by gap, for rows of a cloze whose masks are `pooled`.
std::vector<std::vector<double>> cloze_scores(const ops::Context& context, const models::EncoderHead& head,
                                              const Variable& pooled, std::span<const data::TextRow* const> rows) {
  data::ClozeScores gaps;
  std::size_t first = 0;
  for (const data::TextRow* row : rows) {
    gaps.add(*row->verbalisers, first);
    first += row->parts.size();
  }
  const std::vector<float> weights(gaps.targets().size(), 0.0F);
  return gaps.of(head.word_log_probabilities(context, head.before_out(context, pooled, {}),
                                             {.targets = gaps.targets(), .weights = weights, .rows = gaps.rows()}));
}

// Scores of every row of a pass: those of its parts, one after the other, or of a cloze its labels'.
void add_scores(const TextAnswerer& answerer, std::span<const data::TextRow> rows,
                std::span<std::vector<float>> scores) {
  const ops::Context context = answerer.engine.context();
  const Variable pooled = pooled_parts(answerer.engine, answerer.model, pointers(rows));
  for (std::size_t verb = 0; verb < answerer.set.instructions.size(); ++verb) {
    std::vector<std::int32_t> parts;
    std::vector<const data::TextRow*> members;
    std::vector<std::size_t> numbers;
    std::int32_t part = 0;
    for (std::size_t i = 0; i < rows.size(); ++i) {
      for (std::size_t k = 0; k < rows[i].parts.size(); ++k, ++part) {
        if (rows[i].verb == verb) parts.push_back(part);
      }
      if (rows[i].verb != verb) continue;
      members.push_back(&rows[i]);
      numbers.push_back(i);
    }
    if (parts.empty()) continue;
    const std::size_t task = answerer.tasks[verb];
    const Variable own = ops::select_rows(context, pooled, parts);
    if (answerer.set.instructions[verb].is_cloze()) {
      const auto by_gap = cloze_scores(context, answerer.model.head(task), own, members);
      for (std::size_t i = 0; i < numbers.size(); ++i) scores[numbers[i]].assign(by_gap[i].begin(), by_gap[i].end());
      continue;
    }
    const std::vector<float> values = answerer.model.scores(context, task, own, {}).value().to_floats();
    const std::size_t columns = values.size() / parts.size();
    auto next = values.begin();
    for (const std::size_t i : numbers) {
      const auto end = next + static_cast<std::ptrdiff_t>(rows[i].parts.size() * columns);
      scores[i].assign(next, end);
      next = end;
    }
  }
}

}  // namespace

std::vector<TextAnswer> answer_texts(const TextAnswerer& answerer, std::span<const data::TextRow> rows,
                                     const std::function<void(std::int64_t)>& on_done) {
  std::vector<TextAnswer> answers;
  std::vector<std::vector<float>> scores(rows.size());
  const std::vector<std::span<const data::TextRow>> examples = data::by_example(rows);
  std::size_t answered = 0;  // rows
  for_each_pass(rows, [&](std::size_t begin, std::size_t end) {
    throw_if_cancelled("answering");
    add_scores(answerer, rows.subspan(begin, end - begin), std::span(scores).subspan(begin));
    while (answers.size() < examples.size() && answered + examples[answers.size()].size() <= end) {
      const std::span<const data::TextRow> example = examples[answers.size()];
      answers.push_back(answer_of(answerer.set.instructions[example.front().verb], example,
                                  std::span(scores).subspan(answered, example.size())));
      for (std::size_t i = 0; i < example.size(); ++i) scores[answered++] = {};
    }
    if (on_done) on_done(static_cast<std::int64_t>(end));
  });
  return answers;
}

std::vector<RowScore> score_masked(ops::Engine& engine, models::TextModel& model, std::size_t task,
                                   std::span<const data::TextRow> rows,
                                   const std::function<void(std::int64_t)>& on_done) {
  std::vector<RowScore> scores;
  for_each_pass(rows, [&](std::size_t begin, std::size_t end) {
    throw_if_cancelled("scoring");
    const std::vector<const data::TextRow*> chosen = pointers(rows.subspan(begin, end - begin));
    const ops::Context context = engine.context();
    const models::EncoderHead& head = model.head(task);
    std::vector<std::int32_t> words;
    for (const data::TextRow* row : chosen) words.insert(words.end(), row->truth.begin(), row->truth.end());
    const std::vector<float> weights(words.size(), 0.0F);
    const std::vector<float> found = head.word_log_probabilities(
        context, head.before_out(context, pooled_parts(engine, model, chosen), {}), {words, weights});
    std::size_t word = 0;
    for (const data::TextRow* row : chosen) {
      RowScore& score = scores.emplace_back();
      score.tokens = data::units_of(*row);
      for (std::size_t i = 0; i < row->truth.size(); ++i) score.log_probability += static_cast<double>(found[word++]);
    }
    if (on_done) on_done(static_cast<std::int64_t>(end));
  });
  return scores;
}

}  // namespace instruct::evaluate
