// Scoring, answering, measuring and programs with a tiny model and a small instruction set.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "evaluate/program.h"
#include "evaluate/responder.h"
#include "evaluate/score.h"
#include "evaluate/task.h"
#include "generate/test_support.h"
#include "instructions/adaptation.h"
#include "instructions/program_check.h"

namespace instruct::evaluate {
namespace {

constexpr std::string_view kSet = R"(
name: notes
system: Be short.
variables:
  text: {type: text}
  question: {type: text, optional: true}
instructions:
  summary:
    inputs: [text]
    templates: ["{{ text }} Summarize."]
    output: {type: text, max_tokens: 6}
  section:
    inputs: [text]
    templates: ["{{ text }} Which section?"]
    output: {type: label, labels: [games, library, mail tool, mail, databases]}
    metrics: [f1, accuracy]
  tags:
    inputs: [text]
    templates: ["{{ text }} Tags?"]
    output: {type: labels, labels: [games, mail, library], max_tokens: 24}
  year:
    inputs: [text]
    templates: ["{{ text }} Which year?"]
    output: {type: number, minimum: 1990, maximum: 2030, integer: true, max_tokens: 8}
  part:
    inputs: [text]
    templates: ["{{ text }} Quote."]
    output: {type: span, from: text, max_tokens: 12}
  names:
    inputs: [text]
    templates: ["{{ text }} Names?"]
    output: {type: list, max_items: 3, max_tokens: 12}
  facts:
    inputs: [text]
    templates: ["{{ text }} Facts?"]
    output:
      type: json
      max_tokens: 16
      schema: {type: object, properties: {name: {type: string, maxLength: 8}, free: {type: boolean}}, required: [name, free]}
examples:
  summary: [{text: "A tool.", output: "tool"}]
  section: [{text: "A tool for mail.", output: "mail tool"}, {text: "Games.", output: games}]
)";

constexpr std::string_view kRows = R"({"verb": "summary", "text": "The library reads files.", "output": "file library"}
{"verb": "section", "text": "Games for the console.", "output": "games"}
{"verb": "section", "text": "A tool to read mail.", "output": "mail tool"}
{"verb": "year", "text": "Made in 1999.", "output": 1999}
{"verb": "facts", "text": "这个软件包", "output": {"name": "x", "free": true}}
{"verb": "tags", "text": "Games by mail.", "output": ["games", "mail"]}
)";

constexpr const char* kTexts[] = {"The library reads and writes files.", "A tool to read mail.",
                                  "这个软件包 提供数据库。", "Größe und Straße; naïve café."};

class Evaluate : public ::testing::Test {
 protected:
  Question question(const std::string& verb, const std::string& text) const {
    Question asked{.instruction = &set_.instruction(verb), .variables = Value::object({{"text", text}})};
    asked.messages = instructions::decode_call(set_, *asked.instruction, asked.variables, {});
    asked.prompt = tiny_.dialogue.encode_prompt(asked.messages);
    asked.max_new_tokens = asked.instruction->output.max_tokens;
    return asked;
  }
  Responder responder(const ResponderOptions& options = {}) {
    return {tiny_.engine, tiny_.model(), tiny_.dialogue, options};
  }
  data::Dataset rows() const { return data::parse_dataset(kRows, ".jsonl", "rows.jsonl"); }
  TaskReport evaluate(const TaskOptions& options) {
    return evaluate_rows(tiny_.engine, tiny_.model(), tiny_.dialogue, &set_, rows(), options);
  }
  ProgramResult run(const instructions::Plan& plan, const ProgramOptions& options = {}) {
    Responder answering = responder();
    return run_plan(answering, tiny_.dialogue, set_, plan, options);
  }
  instructions::Plan plan(const std::string& program, const std::string& document) const {
    return instructions::make_plan(instructions::parse_checked_program(program, set_, "program"), set_,
                                   Value::object({{"text", document}}));
  }

  generate::TinyModel tiny_;
  instructions::InstructionSet set_ = instructions::parse_instruction_set(kSet, "notes.iset.yaml");
};

TEST_F(Evaluate, ScoresAreTheSameOverATreeInRowsAndInSmallBatches) {
  const data::Dataset dataset = rows();
  const data::RowEncoder encoder(tiny_.dialogue, &set_);
  std::vector<data::EncodedRow> encoded;
  for (std::size_t i = 0; i < dataset.examples.size(); ++i) encoded.push_back(encoder.encode(dataset, i, {.shots = 0}));
  const std::int64_t vocabulary = tiny_.tokenizer().vocabulary_size();
  std::vector<std::int64_t> done;
  const auto together = score_rows(tiny_.engine, tiny_.model(), encoded, vocabulary, {},
                                   [&](std::int64_t count) { done.push_back(count); });
  EXPECT_EQ(done.back(), static_cast<std::int64_t>(encoded.size()));
  for (const ScoreOptions& options : {ScoreOptions{.layout = data::Layout::kRows}, ScoreOptions{.batch_tokens = 1}}) {
    const auto other = score_rows(tiny_.engine, tiny_.model(), encoded, vocabulary, options);
    for (std::size_t i = 0; i < encoded.size(); ++i) {
      EXPECT_EQ(other[i].tokens, encoded[i].trained_tokens());
      // Sums of up to 30 log-probabilities of magnitude 10, each off by some roundings of 6e-8 relative.
      EXPECT_NEAR(other[i].log_probability, together[i].log_probability, 1e-4);
    }
  }
}

// Few-shot examples and documents that fill several passes are computed once and kept.
TEST_F(Evaluate, WhatPassesShareIsKeptAndChangesNoScore) {
  std::vector<data::EncodedRow> encoded;
  for (const char* text : kTexts) {
    for (const std::string& label : set_.instruction("section").output.labels) {
      for (const std::int64_t shots : {0, 2}) {
        auto messages = instructions::decode_call(set_, set_.instruction("section"), Value::object({{"text", text}}),
                                                  {.shots = shots});
        messages.push_back({"assistant", label, {}});
        auto dialogue = tiny_.dialogue.encode_training(messages, {.mask_history = true});
        encoded.push_back({.tokens = dialogue.tokens, .trained = dialogue.trained});
      }
    }
  }
  const std::int64_t vocabulary = tiny_.tokenizer().vocabulary_size();
  const auto alone = score_rows(tiny_.engine, tiny_.model(), encoded, vocabulary, {.layout = data::Layout::kRows});
  // Every row its own pass, some rows a pass, several documents a pass.
  for (const std::int64_t tokens : {1, 150, 400}) {
    const auto kept = score_rows(tiny_.engine, tiny_.model(), encoded, vocabulary, {.batch_tokens = tokens});
    for (std::size_t i = 0; i < encoded.size(); ++i) {
      EXPECT_EQ(kept[i].tokens, alone[i].tokens);
      EXPECT_NEAR(kept[i].log_probability, alone[i].log_probability, 1e-5 * static_cast<double>(alone[i].tokens)) << i;
    }
  }
}

TEST_F(Evaluate, LabelsAreComparedAsAsked) {
  const std::vector<std::string>& labels = set_.instruction("section").output.labels;
  Question asked = question("section", kTexts[1]);
  asked.content_free = question("section", "N/A").messages;
  const std::vector<Question> questions{asked, asked};
  const std::vector<Question> nothing{question("section", "N/A")};
  const Reply sum = responder().reply(questions).front();
  const Reply prior = responder().reply(nothing).front();
  const auto expect = [&](const Reply& reply, const std::vector<double>& compared) {
    double total = 0;
    for (const double value : compared) total += std::exp(value);
    for (std::size_t l = 0; l < labels.size(); ++l) {
      EXPECT_NEAR(reply.label_log_probabilities[l], sum.label_log_probabilities[l], 1e-4);
      EXPECT_NEAR(reply.label_probabilities[l], std::exp(compared[l]) / total, 1e-4) << labels[l];
    }
    const auto best = std::max_element(compared.begin(), compared.end()) - compared.begin();
    EXPECT_EQ(reply.text, labels[static_cast<std::size_t>(best)]);
    EXPECT_NEAR(reply.log_probability, sum.label_log_probabilities[static_cast<std::size_t>(best)], 1e-4);
  };
  expect(sum, sum.label_log_probabilities);
  std::vector<double> mean, calibrated;
  for (std::size_t l = 0; l < labels.size(); ++l) {
    std::vector<instructions::Message> messages = asked.messages;
    messages.push_back({"assistant", labels[l], {}});
    const auto trained = tiny_.dialogue.encode_training(messages, {.mask_history = true}).trained;
    const auto tokens = static_cast<double>(std::accumulate(trained.begin(), trained.end(), 0));
    mean.push_back(sum.label_log_probabilities[l] / tokens);
    calibrated.push_back(sum.label_log_probabilities[l] - prior.label_log_probabilities[l]);
  }
  expect(responder({.label_score = LabelScore::kMean}).reply(questions).back(), mean);
  expect(responder({.label_score = LabelScore::kCalibrated}).reply(questions).back(), calibrated);
  expect(responder({.generation = {.layout = data::Layout::kRows}}).reply(questions).back(),
         sum.label_log_probabilities);
  const TaskReport report = evaluate({.responder = {.label_score = LabelScore::kCalibrated}});
  EXPECT_EQ(report.answers[1].label_log_probabilities.size(), labels.size());
  EXPECT_THROW(label_score_from_name("average"), Error);
}

TEST_F(Evaluate, LabelsOfOnePassAreAsLikelyAsEachScoredAlone) {
  std::vector<Question> questions;
  for (const char* text : kTexts) questions.push_back(question("section", text));
  const std::vector<Reply> replies = responder().reply(questions);
  const auto& labels = set_.instruction("section").output.labels;
  for (std::size_t q = 0; q < questions.size(); ++q) {
    std::vector<double> alone;
    for (const std::string& label : labels) {
      std::vector<instructions::Message> messages = questions[q].messages;
      messages.push_back({"assistant", label, {}});
      auto dialogue = tiny_.dialogue.encode_training(messages, {.mask_history = true});
      const std::vector<data::EncodedRow> row{{.tokens = dialogue.tokens, .trained = dialogue.trained}};
      alone.push_back(
          score_rows(tiny_.engine, tiny_.model(), row, tiny_.tokenizer().vocabulary_size()).front().log_probability);
    }
    double sum = 0;
    for (const double value : alone) sum += std::exp(value);
    ASSERT_EQ(replies[q].label_probabilities.size(), labels.size());
    for (std::size_t l = 0; l < labels.size(); ++l)
      EXPECT_NEAR(replies[q].label_probabilities[l], std::exp(alone[l]) / sum, 1e-4) << labels[l];
    const auto best = static_cast<std::size_t>(std::max_element(alone.begin(), alone.end()) - alone.begin());
    EXPECT_EQ(replies[q].text, labels[best]);
    EXPECT_NEAR(replies[q].log_probability, alone[best], 1e-4);
    EXPECT_TRUE(replies[q].finished);
  }
}

TEST_F(Evaluate, TypedAnswersAreAlwaysOfTheirType) {
  for (const double temperature : {0.0, 1.0, 3.0}) {
    std::vector<Question> questions;
    for (const char* verb : {"section", "tags", "year", "part", "names", "facts"}) {
      for (const char* text : kTexts) {
        questions.push_back(question(verb, text));
        questions.back().stream = questions.size();
      }
    }
    // Stop texts are for free text: values stay whole.
    const auto replies =
        responder({.sampling = {.temperature = temperature}, .stop = {"\"", "1", "e"}}).reply(questions);
    for (std::size_t i = 0; i < questions.size(); ++i) {
      const instructions::Instruction& instruction = *questions[i].instruction;
      SCOPED_TRACE(instruction.verb + ": " + replies[i].text);
      Value value;
      EXPECT_NO_THROW(value = instructions::decode_output(instruction, replies[i].text));
      EXPECT_NO_THROW(instructions::encode_output(instruction, value, &questions[i].variables));
    }
  }
}

TEST_F(Evaluate, FreeAnswersObeyStopTextsAndUnconstrainedOnesAreFree) {
  const std::vector<Question> questions{question("summary", kTexts[0])};
  const std::string whole = responder().reply(questions).front().text;
  // Some ASCII character of the answer behind its first.
  const auto ascii = std::find_if(whole.begin() + 1, whole.end(), [](char c) { return c > ' '; });
  ASSERT_NE(ascii, whole.end());
  const std::string stop(1, *ascii);
  const Reply cut = responder({.stop = {stop}}).reply(questions).front();
  EXPECT_EQ(cut.text, whole.substr(0, whole.find(stop)));
  EXPECT_TRUE(cut.finished);
  const std::vector<Question> typed{question("section", kTexts[0])};
  EXPECT_TRUE(responder({.constrained = false}).reply(typed).front().label_probabilities.empty());
}

TEST_F(Evaluate, SampledLabelsFollowTheirProbabilitiesAndTheStream) {
  std::vector<Question> questions(400, question("section", kTexts[1]));
  for (std::size_t i = 0; i < questions.size(); ++i) questions[i].stream = i;
  const ResponderOptions options{.sampling = {.temperature = 1, .seed = 5}};
  const auto replies = responder(options).reply(questions);
  const auto& labels = set_.instruction("section").output.labels;
  for (std::size_t l = 0; l < labels.size(); ++l) {
    const double probability = replies.front().label_probabilities[l];
    const auto drawn =
        std::count_if(replies.begin(), replies.end(), [&](const Reply& r) { return r.text == labels[l]; });
    // Four standard errors of 400 draws.
    EXPECT_NEAR(static_cast<double>(drawn) / 400, probability, 4 * std::sqrt(0.25 / 400)) << labels[l];
  }
  EXPECT_EQ(responder(options).reply({&questions[77], 1}).front().text, replies[77].text);
}

TEST_F(Evaluate, AReportHasEveryVerbRowAndFigure) {
  std::int64_t done = 0;
  const TaskReport report =
      evaluate_rows(tiny_.engine, tiny_.model(), tiny_.dialogue, &set_, rows(), {.likelihood = true, .bootstrap = 20},
                    [&](std::int64_t count) { done = count; });
  EXPECT_EQ(done, 6);
  ASSERT_EQ(report.answers.size(), 6U);
  ASSERT_EQ(report.verbs.size(), 5U);
  const Value value = report_value(report);
  for (const char* verb : {"summary", "section", "year", "facts", "tags"}) EXPECT_NE(value.find(verb), nullptr) << verb;
  const Value& section = value.at("section");
  EXPECT_EQ(section.at("rows").as_integer(), 2);
  for (const char* name : {"macro_f1", "macro_f1_low", "macro_f1_high", "accuracy", "loss", "perplexity"})
    EXPECT_NE(section.find(name), nullptr) << name;
  EXPECT_NEAR(section.at("perplexity").as_double(), std::exp(section.at("loss").as_double()), 1e-9);
  double accuracy = 0;
  for (const AnsweredRow& row : report.answers) {
    if (row.verb == "section") accuracy += row.answer == row.reference ? 50 : 0;
    EXPECT_NE(row.prompt.find("<|im_start|>assistant"), std::string::npos);
  }
  EXPECT_EQ(section.at("accuracy").as_double(), accuracy);
  EXPECT_EQ(report.answers[3].reference, "1999");
  EXPECT_EQ(report.answers[5].reference, R"(["games", "mail"])");
  const std::string table = report_table(report);
  EXPECT_NE(table.find("section (2 rows)"), std::string::npos);
  EXPECT_NE(table.find("95%"), std::string::npos);
}

TEST_F(Evaluate, ShotsLimitLengthAndLikelihoodAlone) {
  const TaskReport zero = evaluate({.limit = 1, .bootstrap = 0});
  ASSERT_EQ(zero.answers.size(), 1U);
  EXPECT_EQ(zero.answers[0].prompt.find("A tool."), std::string::npos);
  EXPECT_FALSE(zero.verbs[0].metrics.front().interval);
  const TaskReport one = evaluate({.max_new_tokens = 1, .shots = 1, .limit = 1});
  EXPECT_NE(one.answers[0].prompt.find("A tool."), std::string::npos);
  EXPECT_LE(tiny_.plain(one.answers[0].answer).size(), 1U);
  const TaskReport likely = evaluate({.generate = false, .likelihood = true});
  EXPECT_TRUE(likely.verbs[0].metrics.empty());
  EXPECT_GT(mean_loss(likely), 0);
}

TEST_F(Evaluate, AQuestionLongerThanTheContextNamesItsRow) {
  std::string text;
  for (int i = 0; i < 600; ++i) text += "x ";
  const data::Dataset dataset =
      data::parse_dataset(R"({"verb": "summary", "text": ")" + text + R"(", "output": "x"})", ".jsonl", "rows.jsonl");
  try {
    evaluate_rows(tiny_.engine, tiny_.model(), tiny_.dialogue, &set_, dataset, {});
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("rows.jsonl: row 1"), std::string::npos) << error.what();
  }
}

TEST_F(Evaluate, AProgramsCallsAnswerAsByThemselvesAndNestedOnesReadTheirParents) {
  const std::string document = "The library reads files.\n\nA tool to read mail.\n\nGames for the console.";
  const instructions::Plan calls = plan("[summary('1st paragraph'), summary('2nd paragraph'), ...]", document);
  const ProgramResult result = run(calls);
  ASSERT_EQ(result.outputs.size(), 3U);
  const char* paragraphs[] = {"The library reads files.", "A tool to read mail.", "Games for the console."};
  for (std::size_t i = 0; i < 3; ++i) {
    const std::vector<Question> alone{question("summary", paragraphs[i])};
    EXPECT_EQ(result.replies[i].text, responder().reply(alone).front().text);
  }
  const instructions::Plan nested = plan("section(summary('last paragraph'))", document);
  const ProgramResult inner = run(nested);
  ASSERT_EQ(inner.outputs.size(), 2U);
  const std::vector<Question> alone{question("section", inner.outputs[0].as_string())};
  EXPECT_EQ(inner.outputs[1].as_string(), responder().reply(alone).front().text);
}

TEST_F(Evaluate, AProgramsResultCombinesAndHasLabelProbabilities) {
  const instructions::Plan calls = plan("[summary(\"Files.\"), section(text)]", "A tool to read mail.");
  const ProgramResult result = run(calls, {.max_new_tokens = 2});
  const std::string json = result_text(calls, set_, instructions::Combine::kJson, result);
  for (const char* part : {"\"call\"", "\"verb\"", "\"output\"", "\"probabilities\"", "\"mail tool\""})
    EXPECT_NE(json.find(part), std::string::npos) << part << " in " << json;
  const std::string last = result_text(calls, set_, instructions::Combine::kLast, result);
  EXPECT_EQ(last, result.outputs[1].as_string());
  EXPECT_EQ(result_text(calls, set_, instructions::Combine::kConcat, result),
            result.outputs[0].as_string() + "\n" + last);
}

TEST_F(Evaluate, MoreShotsThanAVerbHasAreAsManyAsItHas) {
  const instructions::Plan calls = plan("[year(text), section(text)]", "Made in 1999.");
  const ProgramResult result = run(calls, {.shots = 9});
  EXPECT_EQ(result.outputs.size(), 2U);
  EXPECT_TRUE(result.outputs[0].is_integer());
}

}  // namespace
}  // namespace instruct::evaluate
