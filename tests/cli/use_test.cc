// Commands that use a model: what they print, and that machines can read it.
#include <fmt/core.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>

#include "base/json.h"
#include "program.h"

namespace instruct::test {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

std::vector<std::string> with(std::vector<std::string> words, const std::vector<std::string>& more) {
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

TEST(Score, OneObjectARowEqualToTheReference) {
  const Outcome outcome = run({"score", "--model", golden_model(), "--data", golden_rows(), "--dtype", "f32"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const std::vector<Value> lines = outcome.json_lines();
  ASSERT_EQ(lines.size(), 7u);
  for (std::size_t i = 0; i < lines.size(); ++i) {
    EXPECT_EQ(lines[i].at("row").as_integer(), static_cast<std::int64_t>(i) + 1);
    EXPECT_LT(lines[i].at("logprob").as_double(), 0);
    EXPECT_GT(lines[i].at("tokens").as_integer(), 0);
  }
  EXPECT_THAT(outcome.err, HasSubstr("7/7 rows"));
}

TEST(Score, SharedPrefixesAndThreadsChangeNothing) {
  const std::vector<std::string> base{"score", "--model", golden_model(), "--data", golden_rows(), "--dtype", "f32"};
  const Outcome one = run(with(base, {"--threads", "1"}));
  const Outcome two = run(with(base, {"--threads", "2"}));
  EXPECT_EQ(one.out, two.out);
  const std::vector<Value> shared = one.json_lines(), separate = run(with(base, {"--separate"})).json_lines();
  ASSERT_EQ(shared.size(), separate.size());
  for (std::size_t i = 0; i < shared.size(); ++i)
    EXPECT_NEAR(shared[i].at("logprob").as_double(), separate[i].at("logprob").as_double(), 1e-3);
}

TEST(Score, LabelsAreRankedAsTheyScoreAlone) {
  const Folder folder;
  const std::string set = write_set(folder);
  const std::string rows = folder / "labels.jsonl";
  std::ofstream(rows) << R"({"verb": "kind", "text": "A game of cards.", "output": "game"})" << '\n';
  const std::vector<std::string> base{"score", "--model", golden_model(), "--instructions", set, "--dtype", "f32"};
  const Outcome outcome = run(with(base, {"--data", rows, "--labels"}));
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const Value line = outcome.json();
  const std::vector<Value>& ranking = line.at("labels").as_array();
  ASSERT_GT(ranking.size(), 1U);
  EXPECT_EQ(line.at("predict").as_string(), ranking[0].at("label").as_string());
  double total = 0, before = 1;
  for (const Value& entry : ranking) {
    EXPECT_LE(entry.at("probability").as_double(), before);
    total += before = entry.at("probability").as_double();
    const std::string alone = folder / (entry.at("label").as_string() + ".jsonl");
    std::ofstream(alone) << R"({"verb": "kind", "text": "A game of cards.", "output": ")"
                         << entry.at("label").as_string() << "\"}\n";
    const Value score = run(with(base, {"--data", alone, "--separate"})).json();
    EXPECT_NEAR(entry.at("logprob").as_double(), score.at("logprob").as_double(),
                1e-5 * static_cast<double>(score.at("tokens").as_integer()));
  }
  EXPECT_NEAR(total, 1, 1e-9);
  const Outcome refused = run(with(base, {"--data", write_rows(folder, "rows.jsonl", 2), "--labels"}));
  EXPECT_EQ(refused.code, 2);
  EXPECT_THAT(refused.err, HasSubstr("'summary' has another"));
}

TEST(Eval, TableJsonAndEveryAnswer) {
  const Folder folder;
  const std::vector<std::string> base{"eval",   "--model",     golden_model(),     "--adapter", golden_adapter(),
                                      "--data", golden_rows(), "--max-new-tokens", "3",         "--bootstrap",
                                      "20"};
  const Outcome table = run(with(base, {"--output", folder / "out"}));
  ASSERT_EQ(table.code, 0) << table.err;
  EXPECT_THAT(table.out, HasSubstr("rougeL"));
  EXPECT_THAT(folder.names("out"), ElementsAre("generated_predictions.jsonl", "results.json"));
  EXPECT_EQ(
      parse_json(content_of(folder / "out/results.json"), "r").at("results").at("dialogue").at("rows").as_integer(), 7);
  const Outcome json = run(with(base, {"--json", "--likelihood", "--metrics", "em,chrf"}));
  const Value dialogue = json.json().at("dialogue");
  EXPECT_TRUE(dialogue.find("em_low") != nullptr && dialogue.find("chrf") != nullptr &&
              dialogue.find("perplexity") != nullptr);
}

// Each adapter in one batch with the other answers as it does alone.
TEST(Eval, SeveralAdaptersInOneBatch) {
  const Folder folder;
  const std::string second = folder / "second";
  std::filesystem::copy(golden_adapter(), second);
  const std::string config = content_of(second + "/adapter_config.json");
  const std::size_t alpha = config.find("\"lora_alpha\": ");
  ASSERT_NE(alpha, std::string::npos);
  std::ofstream(second + "/adapter_config.json") << config.substr(0, alpha + 14) << "2" << config.substr(alpha + 14);
  const std::vector<std::string> base{"eval",
                                      "--model",
                                      golden_model(),
                                      "--instructions",
                                      write_set(folder),
                                      "--data",
                                      write_rows(folder, "rows.jsonl", 6),
                                      "--bootstrap",
                                      "0",
                                      "--json",
                                      "--likelihood",
                                      "--dtype",
                                      "f32"};
  const auto answers = [&](const std::string& out) {
    std::map<std::string, std::vector<std::string>> by_adapter;
    const std::string path = folder / (out + "/generated_predictions.jsonl");
    std::ifstream lines(path);
    for (std::string line; std::getline(lines, line);) {
      const Value row = parse_json(line, path);
      const Value* adapter = row.find("adapter");
      by_adapter[adapter == nullptr ? "" : adapter->as_string()].push_back(
          fmt::format("{} {:.4f}", row.at("predict").as_string(), row.at("logprob").as_double()));
    }
    return by_adapter;
  };
  const Outcome both =
      run(with(base, {"--adapter", golden_adapter(), "--adapter", second, "--output", folder / "both"}));
  ASSERT_EQ(both.code, 0) << both.err;
  const Value together = both.json();
  for (const std::string& adapter : {golden_adapter(), second}) {
    const std::string out = adapter == second ? "second" : "first";
    const Outcome alone = run(with(base, {"--adapter", adapter, "--output", folder / ("alone-" + out)}));
    ASSERT_EQ(alone.code, 0) << alone.err;
    EXPECT_EQ(answers("both")[adapter], answers("alone-" + out)[""]);
    const Value separate = alone.json();
    for (const auto& [verb, metrics] : separate.as_object()) {
      for (const auto& [name, value] : metrics.as_object())
        EXPECT_NEAR(together.at(adapter).at(verb).at(name).as_double(), value.as_double(),
                    1e-5 * (1 + value.as_double()))
            << name;
    }
  }
  EXPECT_NE(answers("both")[golden_adapter()], answers("both")[second]);
  const Outcome twice = run(with(base, {"--adapter", second, "--adapter", second}));
  EXPECT_EQ(twice.code, 2);
  EXPECT_THAT(twice.err, HasSubstr("is given twice"));
}

TEST(Eval, VerbsOfAnInstructionSet) {
  const Folder folder;
  const Outcome outcome = run({"eval", "--model", golden_model(), "--instructions", write_set(folder), "--data",
                               write_rows(folder, "rows.jsonl", 6), "--bootstrap", "0", "--json"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.json().at("summary").at("rows").as_integer(), 4);
  EXPECT_NE(outcome.json().at("kind").find("accuracy"), nullptr);
}

TEST(Run, ProgramOverADocumentFromFileAndStandardInput) {
  const Folder folder;
  const std::string text = "A tool to read mail.\n\nThe library reads files.\n";
  const std::vector<std::string> base{"run", "--model", golden_model(), "--instructions", write_set(folder)};
  const Outcome file = run(with(base, {"--input", folder.write("page.txt", text), "--json"}));
  ASSERT_EQ(file.code, 0) << file.err;
  const Outcome piped = run(with(base, {"--json"}), {.input = text});
  EXPECT_EQ(file.out, piped.out);
  EXPECT_EQ(piped.json().as_array().size(), 2u);
  const Outcome label = run(with(base, {"kind(text)", "--json"}), {.input = text});
  ASSERT_EQ(label.code, 0) << label.err;
  double sum = 0;
  const Value calls = label.json();
  for (const auto& [name, value] : calls.as_array().front().at("probabilities").as_object()) sum += value.as_double();
  EXPECT_NEAR(sum, 1, 1e-6);
}

TEST(Run, QuantisedFilesOnIntegersWhereTheProcessorHasThem) {
  const Folder folder;
  const std::string quantised = folder / "q.gguf";
  ASSERT_EQ(
      run({"export", "--model", golden_model(), "--format", "gguf", "--quantize", "q8_0", "--output", quantised}).code,
      0);
  const auto call = [&](const std::string& model, const std::string& compute) {
    return run({"run", "--model", model, "--instructions", write_set(folder), "kind(text)", "--json", "--base-compute",
                compute},
               {.input = "A tool to read mail."});
  };
  const Outcome integers = call(quantised, "int8");
  if (integers.code == 6) {
    EXPECT_THAT(integers.err, HasSubstr("AVX2"));
    GTEST_SKIP() << "no integer products on this processor";
  }
  ASSERT_EQ(integers.code, 0) << integers.err;
  EXPECT_NE(integers.out, call(quantised, "dtype").out);  // probabilities move a little
  const Outcome finer = call(quantised, "int16");
  EXPECT_NE(finer.out, integers.out);
  EXPECT_EQ(finer.out, call(quantised, "auto").out);
  const Outcome plain = call(golden_model(), "int8");
  EXPECT_EQ(plain.code, 2);
  EXPECT_THAT(plain.err, AllOf(HasSubstr("needs quantised weights"), HasSubstr("export --quantize q8_0")));
}

TEST(Chat, AnswersEachLineOfAPipe) {
  const Outcome outcome = run({"chat", "--model", golden_model(), "--max-new-tokens", "2", "--temperature", "0"},
                              {.input = "Hello\n\nAnd again\n"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.err, Not(HasSubstr("> ")));
}

TEST(Tokenize, IdsAndTokensLineByLine) {
  const std::string text = "The library reads.\n\n<|im_end|> naïve 数据库\n";
  const Outcome ids = run({"tokenize", "--model", golden_model(), "--ids"}, {.input = text});
  ASSERT_EQ(ids.code, 0) << ids.err;
  EXPECT_EQ(std::count(ids.out.begin(), ids.out.end(), '\n'), 3);
  EXPECT_EQ(ids.out.find_first_not_of("0123456789 \n"), std::string::npos);
  EXPECT_THAT(ids.out, Not(HasSubstr("\n1 ")));  // what a user writes is no special token
  EXPECT_THAT(run({"tokenize", "--model", golden_model(), "--ids", "--special"}, {.input = text}).out,
              HasSubstr("\n1 "));
  EXPECT_EQ(run({"tokenize", "--model", golden_model()}, {.input = "The library"}).out, "The Ġlibrary\n");
}

TEST(Metrics, OneFlatObject) {
  const Folder folder;
  const std::string same = folder.write("a", "the cat sat on the mat\na b\n");
  const Outcome outcome = run({"metrics", "--hypotheses", same, "--references", same, "--json"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  for (const char* name : {"bleu", "rouge1", "rouge2", "rougeL", "rougeLsum", "chrf", "em", "f1"})
    EXPECT_NEAR(outcome.json().at(name).as_double(), 100, 1e-9) << name;
  const Outcome uneven =
      run({"metrics", "--hypotheses", same, "--references", folder.write("b", "one line\n"), "--json"});
  EXPECT_EQ(uneven.code, 3);
  EXPECT_THAT(uneven.err, HasSubstr("has 2 lines"));
}

TEST(Bench, TinySizes) {
  const std::string model = golden_model();
  const Value train =
      run({"bench", "train", "--model", model, "--batch", "1", "--length", "8", "--repeats", "1", "--json"}).json();
  EXPECT_GT(train.at("tokens_per_second").as_double(), 0);
  const Value generate = run({"bench", "generate", "--model", model, "--prompt-tokens", "4", "--new-tokens", "2",
                              "--batch", "1", "--repeats", "1", "--json"})
                             .json();
  EXPECT_TRUE(generate.is_object());
  EXPECT_EQ(run({"bench", "score", "--model", model, "--batch", "1", "--length", "8", "--repeats", "1"}).code, 0);
  EXPECT_EQ(run({"bench", "kernels", "--model", model, "--tokens", "8", "--json"}).json().at("dtype").is_string(),
            true);
  const Value loss = run({"bench", "cross-entropy", "--tokens", "8", "--width", "8", "--vocabulary", "1500",
                          "--repeats", "1", "--json"})
                         .json();
  EXPECT_GT(loss.at("limit_share").as_double(), 0);
  const std::string encoder = std::string(INSTRUCT_GOLDENS) + "/encoders/big-bird";
  const Value encode =
      run({"bench", "encode", "--model", encoder, "--length", "128", "--repeats", "1", "--backward", "--json"}).json();
  EXPECT_GT(encode.at("microseconds_per_token").as_double(), 0);
  const Outcome longer = run({"bench", "encode", "--model", encoder, "--length", "129"});
  EXPECT_THAT(longer.err, HasSubstr("rows of 129 tokens: the model's context is 128"));
  EXPECT_NE(run({"bench", "encode", "--model", model}).code, 0);
}

TEST(Bench, ColdStartsArePartsOfOneTime) {
  const Value load =
      run({"bench", "load", "--model", golden_model(), "--repeats", "1", "--drop-file-cache", "--json"}).json();
  std::vector<std::string> names;
  double sum = 0;
  for (const Value& part : load.at("parts").as_array()) {
    names.push_back(part.at("part").as_string());
    EXPECT_GE(part.at("seconds").as_double(), 0) << names.back();
    sum += part.at("seconds").as_double();
  }
  EXPECT_THAT(names, ElementsAre("start", "files", "tokenizer", "chat_template", "weights", "first_token"));
  EXPECT_NEAR(sum, load.at("first_token_seconds").as_double(), 1e-3);
  EXPECT_GT(load.at("process_seconds").as_double(), load.at("first_token_seconds").as_double());
  EXPECT_GT(load.at("weight_bytes").as_integer(), 0);
  EXPECT_GT(load.at("disk_bytes_per_second").as_double(), 0);
}

TEST(Bench, WhatAProcessThatIsMeasuredRefuses) {
  const Outcome nowhere = run({"bench", "load", "--model", "/nowhere/m.gguf"});
  EXPECT_EQ(nowhere.code, 4);
  EXPECT_THAT(nowhere.err, HasSubstr("/nowhere/m.gguf"));
  EXPECT_EQ(run({"bench", "load", "--model", golden_model(), "--base-compute", "int8"}).code, 2);
}

TEST(Inspect, ModelAdapterSetAndRows) {
  const Folder folder;
  const Value model = run({"inspect", golden_model(), "--json"}).json();
  const Value gemma = run({"inspect", golden_model("gemma3"), "--json"}).json();
  EXPECT_EQ(gemma.at("sliding window").as_integer(), 8);
  EXPECT_EQ(gemma.at("layers with it").as_integer(), 5);
  EXPECT_THAT(gemma.at("rotary").as_string(), HasSubstr("1000000"));
  EXPECT_THAT(gemma.at("rotary of these").as_string(), HasSubstr("10000"));
  EXPECT_EQ(model.find("sliding window"), nullptr);
  EXPECT_EQ(run({"inspect", golden_model("smollm3-nope"), "--json"}).json().at("layers without rotary positions"),
            Value(std::int64_t{1}));
  EXPECT_EQ(model.at("layers").as_integer(), 2);
  const Value adapter = run({"inspect", golden_adapter(), "--model", golden_model(), "--json"}).json();
  EXPECT_EQ(adapter.at("kind").as_string(), "adapter");
  EXPECT_NE(adapter.find("modules"), nullptr);
  EXPECT_EQ(run({"inspect", golden_rows(), "--json"}).json().at("rows").as_integer(), 7);
  const Outcome set = run({"inspect", write_set(folder), "--model", golden_model()});
  EXPECT_EQ(set.code, 0);
  EXPECT_THAT(set.out, HasSubstr("summary"));
  EXPECT_THAT(set.out, HasSubstr("«"));
}

TEST(Export, EveryFormatIsReadBackWithTheSameScores) {
  const Folder folder;
  const std::vector<std::string> score{"score", "--data", golden_rows(), "--dtype", "f32"};
  const std::vector<Value> expected =
      run(with(score, {"--model", golden_model(), "--adapter", golden_adapter()})).json_lines();
  const auto check = [&](const std::vector<std::string>& model, double tolerance) {
    const std::vector<Value> lines = run(with(score, model)).json_lines();
    ASSERT_EQ(lines.size(), expected.size());
    for (std::size_t i = 0; i < lines.size(); ++i)
      EXPECT_NEAR(lines[i].at("logprob").as_double(), expected[i].at("logprob").as_double(), tolerance);
  };
  const std::vector<std::string> base{"export", "--model", golden_model(), "--adapter", golden_adapter()};
  const Outcome gguf = run(with(base, {"--format", "gguf", "--quantize", "f32", "--output", folder / "m.gguf"}));
  ASSERT_EQ(gguf.code, 0) << gguf.err;
  EXPECT_THAT(gguf.out, IsEmpty());
  check({"--model", folder / "m.gguf"}, 1e-3);
  // 8 and 16 bits a weight move the scores of a random model by at most a few hundredths of a nat a token.
  for (const char* type : {"f16", "bf16", "q8_0"}) {
    const std::string file = folder / (std::string(type) + ".gguf");
    ASSERT_EQ(run(with(base, {"--format", "gguf", "--quantize", type, "--output", file})).code, 0) << type;
    check({"--model", file}, 1.0);
  }
  for (const char* type : {"q5_1", "q5_0", "q4_1", "q4_0"}) {
    const std::string file = folder / (std::string(type) + ".gguf");
    ASSERT_EQ(run(with(base, {"--format", "gguf", "--quantize", type, "--output", file})).code, 0) << type;
    EXPECT_NE(run({"inspect", file, "--json"}).json().at("parameters by type").find(type), nullptr) << type;
  }
  const Outcome mixed = run(with(base, {"--format", "gguf", "--quantize", "Q4_K_M", "--output", folder / "q4.gguf"}));
  EXPECT_EQ(mixed.code, 0);
  EXPECT_THAT(mixed.err, HasSubstr("q5_0 instead of q4_k in 12 of 15 matrices, whose rows are no multiple of 256"));
  const Outcome unknown = run(with(base, {"--format", "gguf", "--quantize", "q7_k", "--output", folder / "q7.gguf"}));
  EXPECT_EQ(unknown.code, 2);
  EXPECT_THAT(unknown.err, HasSubstr("--quantize q7_k: --format gguf takes f32, f16, bf16, q8_0, q6_k, q5_k_m,"));
  ASSERT_EQ(run(with(base, {"--format", "hf", "--quantize", "f32", "--output", folder / "hf"})).code, 0);
  check({"--model", folder / "hf"}, 1e-3);
  ASSERT_EQ(run(with(base, {"--format", "peft", "--output", folder / "peft"})).code, 0);
  check({"--model", golden_model(), "--adapter", folder / "peft"}, 1e-6);
  const Outcome lora = run(with(base, {"--format", "gguf-lora", "--output", folder / "lora.gguf", "--json"}));
  ASSERT_EQ(lora.code, 0) << lora.err;
  EXPECT_EQ(lora.json().at("output").as_string(), folder / "lora.gguf");
  EXPECT_EQ(content_of(folder / "lora.gguf").substr(0, 4), "GGUF");
}

TEST(Export, SaysWhatLlamaCppLeavesOut) {
  const Folder folder;
  const auto messages = [&](const std::string& model) {
    const Outcome outcome =
        run({"export", "--model", golden_model(model), "--format", "gguf", "--output", folder / (model + ".gguf")});
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    return outcome.err;
  };
  EXPECT_THAT(messages("phi3"), HasSubstr("leaves out the sliding window of 'phi3': after 8 tokens"));
  EXPECT_THAT(messages("gemma3"), Not(HasSubstr("window")));  // it takes a Gemma's
}

TEST(Export, NeverReplacesUnasked) {
  const Folder folder;
  const std::string file = folder.write("m.gguf", "mine");
  const std::vector<std::string> base{"export", "--model", golden_model(), "--format", "gguf", "--output", file};
  const Outcome refused = run(base);
  EXPECT_EQ(refused.code, 2);
  EXPECT_THAT(refused.err, HasSubstr("exists already"));
  EXPECT_EQ(content_of(file), "mine");
  EXPECT_EQ(run(with(base, {"--overwrite"})).code, 0);
  EXPECT_EQ(content_of(file).substr(0, 4), "GGUF");
  EXPECT_EQ(run({"export", "--model", golden_model(), "--format", "peft", "--output", folder / "p"}).code, 2);
}

}  // namespace
}  // namespace instruct::test
