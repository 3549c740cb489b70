// Spans, extraction, clozes and masked language models of encoders, as their users meet them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <utility>

#include "base/json.h"
#include "program.h"

namespace instruct::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;

const std::string kEncoders = std::string(INSTRUCT_GOLDENS) + "/encoders";
const std::string kBert = kEncoders + "/bert";

constexpr const char* kSet = R"(name: notes
variables:
  text: {type: text}
  question: {type: text, optional: true}
instructions:
  answer:
    inputs: [question, text]
    templates: ["{{ question }}[SEP]{{ text }}"]
    output: {type: span, from: text}
  find:
    inputs: [text]
    templates: ["{{ text }}"]
    output:
      type: json
      schema:
        type: object
        properties: {place: {type: array, items: {type: string}}, tool: {type: array, items: {type: string}}}
)";

constexpr const char* kParts =
    R"({"verb": "answer", "question": "What reads?", "text": "The library reads and writes files.", "output": "The library"}
{"verb": "answer", "question": "Where is it?", "text": "Games for the console.", "output": {"text": "console", "start": 14}}
{"verb": "answer", "question": "提供?", "text": "这个软件包提供数据库。", "output": "数据库"}
{"verb": "find", "text": "A tool to sort mail, games for the console.", "output": {"tool": ["tool to sort"], "place": ["console"]}}
{"verb": "find", "text": "The library, the manual.", "output": {"tool": ["library"], "place": ["manual"]}}
)";

constexpr const char* kCloze = R"(name: kinds
variables:
  text: {type: text}
instructions:
  kind:
    inputs: [text]
    templates: ["{{ text }} It is for [MASK]."]
    output:
      type: label
      labels: [files, mail, games]
      verbalisers: {files: [library, files], games: [games, puzzles], mail: "reads mail"}
  has:
    inputs: [text]
    templates: ["{{ text }}有[MASK]。"]
    output: {type: label, labels: ["yes", "no"], verbalisers: {"yes": 这, "no": 个}}
)";

constexpr const char* kKinds = R"({"verb": "kind", "text": "The library reads and writes.", "output": "files"}
{"verb": "kind", "text": "A tool to read and sort.", "output": "mail"}
{"verb": "kind", "text": "For the console: 12 of them.", "output": "games"}
{"verb": "has", "text": "这个软件包提供数据库", "output": "yes"}
{"verb": "has", "text": "数据库", "output": "no"}
)";

constexpr const char* kTexts = R"({"text": "The library reads and writes files."}
{"text": "A tool to read mail, to write mail and to sort it."}
{"text": "Games for the console: 12 puzzles."}
{"text": "这个软件包提供数据库。"}
{"text": "It provides 3 programs. See the manual."}
)";

class EncoderTasks : public testing::Test {
 protected:
  std::vector<std::string> train(const std::string& rows, const std::string& output,
                                 const std::vector<std::string>& more = {}) {
    std::vector<std::string> arguments{"train",
                                       "--model_name_or_path",
                                       kBert,
                                       "--dataset",
                                       folder_.write("rows.jsonl", rows),
                                       "--dtype",
                                       "f32",
                                       "--lr_scheduler_type",
                                       "constant",
                                       "--per_device_train_batch_size",
                                       "2",
                                       "--output_dir",
                                       folder_ / output};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }
  std::vector<std::string> eval(const std::string& model, const std::string& rows,
                                const std::vector<std::string>& more = {}) {
    std::vector<std::string> arguments{"eval", "--model", model, "--data", rows, "--dtype", "f32", "--json"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }
  // The set with one of its verbs.
  std::string set_only(const std::string& verb) {
    const std::string all = kSet;
    const std::size_t verbs = all.find("  answer:");
    const std::size_t second = all.find("  find:");
    return folder_.write(
        verb + ".iset.yaml",
        all.substr(0, verbs) + (verb == "find" ? all.substr(second) : all.substr(verbs, second - verbs)));
  }
  static Value answers(const char* model) {
    return parse_json(content_of(kEncoders + "/" + model + "/answers.json"), "answers.json");
  }
  std::vector<Value> predictions(const std::string& output) {
    std::vector<Value> lines;
    std::string line;
    for (const char c : content_of(folder_ / (output + "/generated_predictions.jsonl"))) {
      if (c != '\n') line += c;
      if (c == '\n') lines.push_back(parse_json(std::exchange(line, ""), output));
    }
    return lines;
  }
  Folder folder_;
  std::string set_ = folder_.write("notes.iset.yaml", kSet);
  std::string cloze_ = folder_.write("kinds.iset.yaml", kCloze);
};

TEST_F(EncoderTasks, AModelOfTransformersForTokenClassificationIsEvaluatedAsItIs) {
  std::string rows;
  const Value official = answers("tagger");
  for (const Value& answer : official.as_array()) {
    Value output = Value::object({{"place", Value::array()}, {"tool", Value::array()}});
    for (const Value& span : answer.at("spans").as_array()) output.find(span.at("field").as_string())->push(span);
    rows += dump_json(Value::object({{"verb", "find"}, {"text", answer.at("text")}, {"output", output}})) + "\n";
  }
  const Outcome outcome = run(eval(kEncoders + "/tagger", folder_.write("r.jsonl", rows),
                                   {"--instructions", set_only("find"), "--output", folder_ / "out"}));
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.json().at("find").at("f1").as_double(), 100);
  const std::vector<Value> lines = predictions("out");
  ASSERT_EQ(lines.size(), official.size());
  for (std::size_t i = 0; i < lines.size(); ++i) {
    const Value::Array& found = lines[i].at("spans").as_array();
    const Value::Array& wanted = official.as_array()[i].at("spans").as_array();
    ASSERT_EQ(found.size(), wanted.size()) << i;
    for (std::size_t k = 0; k < found.size(); ++k) {
      for (const char* key : {"field", "text", "start", "end"})
        EXPECT_EQ(found[k].at(key), wanted[k].at(key)) << i << " " << k;
    }
  }
}

TEST_F(EncoderTasks, AModelOfTransformersForQuestionAnsweringIsEvaluatedAsItIs) {
  std::string rows;
  const Value official = answers("reader");
  for (const Value& answer : official.as_array()) {
    Value output = Value::object({{"text", answer.at("answer")}, {"start", answer.at("start")}});
    rows += dump_json(Value::object({{"verb", "answer"},
                                     {"question", answer.at("question")},
                                     {"text", answer.at("text")},
                                     {"output", output}})) +
            "\n";
  }
  const std::string file = folder_.write("r.jsonl", rows);
  const Outcome outcome =
      run(eval(kEncoders + "/reader", file, {"--instructions", set_only("answer"), "--output", folder_ / "out"}));
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.json().at("answer").at("em").as_double(), 100);
  const std::vector<Value> lines = predictions("out");
  const Outcome scored = run({"score", "--model", kEncoders + "/reader", "--instructions", set_only("answer"), "--data",
                              file, "--dtype", "f32"});
  ASSERT_EQ(scored.code, 0) << scored.err;
  for (std::size_t i = 0; i < official.size(); ++i) {
    const Value& answer = official.as_array()[i];
    const Value& span = lines[i].at("spans").as_array()[0];
    EXPECT_EQ(span.at("start"), answer.at("start"));
    EXPECT_EQ(span.at("end"), answer.at("end"));
    EXPECT_NEAR(std::log(span.at("probability").as_double()), answer.at("logprob").as_double(), 1e-4);
    EXPECT_NEAR(scored.json_lines()[i].at("logprob").as_double(), answer.at("logprob").as_double(), 1e-4);
  }
}

TEST_F(EncoderTasks, LearnSpansAndExtractionTogether) {
  const std::string rows = folder_.write("test.jsonl", kParts);
  for (const char* type : {"full", "lora"}) {
    const bool full = std::string(type) == "full";
    const Outcome trained = run(train(kParts, type,
                                      {"--instructions", set_, "--finetuning_type", type, "--num_train_epochs", "60",
                                       "--learning_rate", "3e-3", "--test_dataset", rows, "--json"}));
    ASSERT_EQ(trained.code, 0) << trained.err;
    const Value test = trained.json().at("test");
    EXPECT_EQ(test.at("answer").at("em").as_double(), 100) << type;
    EXPECT_EQ(test.at("find").at("f1").as_double(), 100) << type;
    std::vector<std::string> again = eval(full ? folder_ / type : kBert, rows, {"--instructions", set_});
    if (!full) again.insert(again.end(), {"--adapter", folder_ / type});
    const Outcome evaluated = run(again);
    ASSERT_EQ(evaluated.code, 0) << evaluated.err;
    for (const char* verb : {"answer", "find"})
      EXPECT_NEAR(evaluated.json().at(verb).at("loss").as_double(), test.at(verb).at("loss").as_double(), 1e-6);
    if (full) continue;
    const Outcome merged = run(
        {"export", "--model", kBert, "--adapter", folder_ / type, "--format", "hf", "--output", folder_ / "merged"});
    ASSERT_EQ(merged.code, 0) << merged.err;
    const Outcome whole = run(eval(folder_ / "merged", rows, {"--instructions", set_}));
    ASSERT_EQ(whole.code, 0) << whole.err;
    for (const char* verb : {"answer", "find"})
      EXPECT_NEAR(whole.json().at(verb).at("loss").as_double(), test.at(verb).at("loss").as_double(), 1e-4);
  }
}

TEST_F(EncoderTasks, LongTextsAreAnsweredInWindows) {
  std::string text;
  for (int i = 0; i < 30; ++i) text += i == 17 ? "这个数据库 " : "the mail, ";
  const std::string row =
      R"({"verb": "answer", "question": "Where?", "text": ")" + text + R"(", "output": "数据库"})" + "\n";
  const std::vector<std::string> more{"--instructions",
                                      set_only("answer"),
                                      "--finetuning_type",
                                      "full",
                                      "--learning_rate",
                                      "3e-3",
                                      "--num_train_epochs",
                                      "60",
                                      "--test_dataset",
                                      folder_.write("t.jsonl", row),
                                      "--json"};
  EXPECT_THAT(run(train(row, "short", more)).err, HasSubstr("right, left, drop or split"));
  std::vector<std::string> windows = more;
  windows.insert(windows.end(), {"--overflow", "split"});
  const Outcome trained = run(train(row, "run", windows));
  ASSERT_EQ(trained.code, 0) << trained.err;
  EXPECT_EQ(trained.json().at("test").at("answer").at("em").as_double(), 100);
  EXPECT_EQ(trained.json().at("test").at("answer").at("rows").as_integer(), 1);
  EXPECT_THAT(content_of(folder_ / "run/config.json"),
              HasSubstr("\"architectures\": [\n    \"BertForQuestionAnswering\"\n  ]"));
}

TEST_F(EncoderTasks, AClozeAnswersUntrainedAndTrained) {
  const std::string rows = folder_.write("test.jsonl", kKinds);
  const Outcome before = run(eval(kBert, rows, {"--instructions", cloze_}));
  ASSERT_EQ(before.code, 0) << before.err;
  const Outcome trained = run(train(kKinds, "run",
                                    {"--instructions", cloze_, "--finetuning_type", "full", "--num_train_epochs", "40",
                                     "--learning_rate", "3e-3", "--test_dataset", rows, "--json"}));
  ASSERT_EQ(trained.code, 0) << trained.err;
  const Outcome after = run(eval(folder_ / "run", rows, {"--instructions", cloze_}));
  ASSERT_EQ(after.code, 0) << after.err;
  for (const char* verb : {"kind", "has"}) {
    EXPECT_EQ(after.json().at(verb).at("accuracy").as_double(), 100) << verb;
    EXPECT_LT(after.json().at(verb).at("loss").as_double(), before.json().at(verb).at("loss").as_double());
    EXPECT_NEAR(after.json().at(verb).at("loss").as_double(), trained.json().at("test").at(verb).at("loss").as_double(),
                1e-6);
  }
  const Outcome scored = run(
      {"score", "--model", folder_ / "run", "--instructions", cloze_, "--data", rows, "--dtype", "f32", "--labels"});
  ASSERT_EQ(scored.code, 0) << scored.err;
  EXPECT_EQ(scored.json_lines()[1].at("predict").as_string(), "mail");
  EXPECT_THAT(content_of(folder_ / "run/config.json"), HasSubstr("BertForMaskedLM"));
  // An adapter leaves the head as it is: it is saved without one.
  const Outcome adapted = run(train(kKinds, "lora",
                                    {"--instructions", cloze_, "--num_train_epochs", "40", "--learning_rate", "1e-2",
                                     "--test_dataset", rows, "--json"}));
  ASSERT_EQ(adapted.code, 0) << adapted.err;
  const Outcome with = run(eval(kBert, rows, {"--instructions", cloze_, "--adapter", folder_ / "lora"}));
  ASSERT_EQ(with.code, 0) << with.err;
  EXPECT_NEAR(with.json().at("kind").at("loss").as_double(),
              adapted.json().at("test").at("kind").at("loss").as_double(), 1e-6);
  ASSERT_EQ(
      run({"export", "--model", kBert, "--adapter", folder_ / "lora", "--format", "hf", "--output", folder_ / "merged"})
          .code,
      0);
  const Outcome merged = run(eval(folder_ / "merged", rows, {"--instructions", cloze_}));
  ASSERT_EQ(merged.code, 0) << merged.err;
  EXPECT_NEAR(merged.json().at("kind").at("loss").as_double(), with.json().at("kind").at("loss").as_double(), 1e-4);
  EXPECT_THAT(content_of(folder_ / "merged/config.json"), HasSubstr("BertForMaskedLM"));
  EXPECT_THAT(content_of(folder_ / "lora/adapter_config.json"),
              AllOf(HasSubstr("\"task_type\": null"), HasSubstr("\"modules_to_save\": null")));
}

TEST_F(EncoderTasks, AMaskedLanguageModelLearnsFromTexts) {
  const std::string rows = folder_.write("test.jsonl", kTexts);
  const std::vector<std::string> more{"--finetuning_type", "full", "--learning_rate", "3e-3",
                                      "--test_dataset",    rows,   "--eval_dataset",  rows};
  std::vector<std::string> whole = more;
  whole.insert(whole.end(), {"--max_steps", "60", "--json"});
  const Outcome trained = run(train(kTexts, "whole", whole));
  ASSERT_EQ(trained.code, 0) << trained.err;
  const double loss = trained.json().at("test").at("masked").at("loss").as_double();
  EXPECT_NEAR(trained.json().at("test").at("masked").at("perplexity").as_double(), std::exp(loss),
              1e-6 * std::exp(loss));
  const Outcome before = run(eval(kBert, rows));
  ASSERT_EQ(before.code, 0) << before.err;
  EXPECT_LT(loss, 0.7 * before.json().at("masked").at("loss").as_double());
  const Outcome after = run(eval(folder_ / "whole", rows));
  EXPECT_NEAR(after.json().at("masked").at("loss").as_double(), loss, 1e-6);
  // What score says adds up to it.
  const Outcome scored = run({"score", "--model", folder_ / "whole", "--data", rows, "--dtype", "f32"});
  ASSERT_EQ(scored.code, 0) << scored.err;
  double sum = 0;
  std::int64_t tokens = 0;
  for (const Value& line : scored.json_lines()) {
    sum -= line.at("logprob").as_double();
    tokens += line.at("tokens").as_integer();
  }
  EXPECT_NEAR(sum / static_cast<double>(tokens), loss, 1e-6);
  // A run that was stopped within its epochs goes on to the same weights.
  std::vector<std::string> first = more;
  first.insert(first.end(), {"--max_steps", "31", "--save_strategy", "steps", "--save_steps", "31"});
  ASSERT_EQ(run(train(kTexts, "cut", first)).code, 0);
  std::vector<std::string> second = whole;
  second.insert(second.end(), {"--resume_from_checkpoint", "auto"});
  const Outcome resumed = run(train(kTexts, "cut", second));
  ASSERT_EQ(resumed.code, 0) << resumed.err;
  EXPECT_EQ(content_of(folder_ / "cut/model.safetensors"), content_of(folder_ / "whole/model.safetensors"));
}

TEST_F(EncoderTasks, RowsAreShownAsTheyAreSeen) {
  const Outcome shown = run({"data", "show", folder_.write("p.jsonl", kParts), "--model", kBert, "--instructions", set_,
                             "--row", "1", "--row", "4", "--cutoff-len", "64"});
  ASSERT_EQ(shown.code, 0) << shown.err;
  EXPECT_THAT(shown.out, HasSubstr("[SEP]« the library» reads"));
  EXPECT_THAT(shown.out, HasSubstr("« tool to sort» mail"));
}

TEST_F(EncoderTasks, SayWhatTheyCannotDo) {
  const std::string parts = folder_.write("p.jsonl", kParts);
  EXPECT_THAT(run(eval(kEncoders + "/tagger", parts, {"--instructions", set_only("answer")})).err,
              HasSubstr("was tuned for other outputs of verb 'answer' (tags, 5 labels; the instruction set has span"));
  EXPECT_THAT(
      run(eval(kBert, folder_.write(
                          "d.jsonl",
                          R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]})"
                          "\n")))
          .err,
      AllOf(HasSubstr("--instructions FILE"), HasSubstr("rows with a text")));
  const std::string unknown = folder_.write(
      "u.iset.yaml",
      "name: u\nvariables: {text: {type: text}}\ninstructions:\n  kind:\n    inputs: [text]\n    templates: [\"{{ text "
      "}} [MASK]\"]\n    output: {type: label, labels: [a, b], verbalisers: {a: ☃}}\n");
  EXPECT_THAT(run(eval(kBert, folder_.write("k.jsonl", kKinds), {"--instructions", unknown})).err,
              HasSubstr("has no tokens for the verbaliser '☃'"));
  const std::string broken = folder_ / "broken";
  std::filesystem::copy(kEncoders + "/tagger", broken);
  std::string config = content_of(broken + "/config.json");
  config.replace(config.find("\"4\": "), 5, "\"77777777777\": ");
  std::filesystem::remove(broken + "/config.json");
  folder_.write("broken/config.json", config);
  EXPECT_THAT(run(eval(broken, parts, {"--instructions", set_only("find")})).err,
              HasSubstr("id2label has a label '77777777777'"));
  EXPECT_THAT(run(train(kTexts, "never", {"--finetuning_type", "full", "--instructions", set_})).err,
              HasSubstr("an encoder reads instruction rows"));
  EXPECT_THAT(run(train(R"({"verb": "answer", "question": "?", "text": "the mail", "output": "mai"})"
                        "\n",
                        "never", {"--instructions", set_}))
                  .err,
              AllOf(HasSubstr("rows.jsonl: row 1"), HasSubstr("begins or ends inside a token")));
}

}  // namespace
}  // namespace instruct::test
