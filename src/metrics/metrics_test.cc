// Metrics against sacreBLEU, rouge-score and scikit-learn on messy pairs (tests/goldens/metrics/make.py).
#include "metrics/metrics.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "metrics/stemmer.h"

namespace instruct::metrics {
namespace {

std::vector<std::string> texts(const Value& list) {
  std::vector<std::string> result;
  for (const Value& item : list.as_array()) result.push_back(item.as_string());
  return result;
}

class Golden : public ::testing::Test {
 protected:
  // INSTRUCT_METRIC_PAIRS names another file of the same make.
  static std::string path() {
    const char* other = std::getenv("INSTRUCT_METRIC_PAIRS");
    return other != nullptr ? other : INSTRUCT_GOLDENS "/metrics/pairs.json";
  }
  Golden() : golden_(parse_json(read_file(path()), path())), hypotheses_(texts(golden_.at("hypotheses"))) {
    const std::vector<std::string> all = texts(golden_.at("references"));
    for (std::size_t i = 0; i < all.size(); ++i) {
      references_.push_back({all[i]});
      two_references_.push_back({all[i], all[(i + 1) % all.size()]});
    }
  }
  double value(const std::string& name, const std::vector<std::vector<std::string>>& references,
               const MetricOptions& options = {}) const {
    const std::vector<std::string> names{name};
    return evaluate_metrics(names, hypotheses_, references, options).front().value;
  }
  Value golden_;
  std::vector<std::string> hypotheses_;
  std::vector<std::vector<std::string>> references_, two_references_;
};

TEST_F(Golden, BleuOfEveryTokeniserEqualsSacreBleu) {
  for (const char* tokeniser : {"13a", "intl", "zh", "char", "none"}) {
    for (const bool lowercase : {false, true}) {
      const std::string key = std::string("bleu ") + tokeniser + (lowercase ? " lc" : "");
      EXPECT_NEAR(
          value("bleu", references_, {.tokenizer = bleu_tokenizer_from_name(tokeniser), .lowercase = lowercase}),
          golden_.at("corpus").at(key).as_double(), 1e-6)
          << key;
    }
  }
  EXPECT_NEAR(value("bleu", two_references_), golden_.at("corpus").at("bleu two references").as_double(), 1e-6);
}

TEST_F(Golden, ChrfEqualsSacreBleu) {
  EXPECT_NEAR(value("chrf", references_), golden_.at("corpus").at("chrf").as_double(), 1e-6);
  EXPECT_NEAR(value("chrf++", references_), golden_.at("corpus").at("chrf++").as_double(), 1e-6);
}

TEST_F(Golden, TheBestOfSeveralReferencesCounts) {
  for (const char* name : {"chrf", "chrf++", "rouge2", "rougeLsum"}) {
    EXPECT_NEAR(value(name, two_references_),
                golden_.at("corpus").at(std::string(name) + " two references").as_double(), 1e-6)
        << name;
  }
}

TEST_F(Golden, RougeExactMatchAndF1OfEveryRowEqualTheReference) {
  for (const bool stemmer : {false, true}) {
    const RougeOptions options{.stemmer = stemmer};
    for (const char* name : {"rouge1", "rouge2", "rougeL", "rougeLsum"}) {
      const Value::Array& expected = golden_.at("rows").at(std::string(name) + (stemmer ? " stemmer" : "")).as_array();
      for (std::size_t i = 0; i < hypotheses_.size(); ++i) {
        const std::string& h = hypotheses_[i];
        const std::string& r = references_[i].front();
        const std::string kind = name;
        const Overlap overlap = kind == "rouge1"   ? rouge_n(h, r, 1, options)
                                : kind == "rouge2" ? rouge_n(h, r, 2, options)
                                : kind == "rougeL" ? rouge_l(h, r, options)
                                                   : rouge_l_sum(h, r, options);
        ASSERT_NEAR(overlap.f1, expected[i].as_double(), 1e-9) << name << " row " << i << "\n" << h << "\n" << r;
      }
    }
  }
  for (std::size_t i = 0; i < hypotheses_.size(); ++i) {
    ASSERT_EQ(exact_match(hypotheses_[i], references_[i].front()) ? 1.0 : 0.0,
              golden_.at("rows").at("em").as_array()[i].as_double())
        << "row " << i << "\n"
        << hypotheses_[i] << "\n"
        << references_[i].front();
    ASSERT_NEAR(token_f1(hypotheses_[i], references_[i].front()).f1,
                golden_.at("rows").at("f1").as_array()[i].as_double(), 1e-9)
        << "row " << i << "\n"
        << hypotheses_[i] << "\n"
        << references_[i].front();
  }
}

TEST_F(Golden, ClassesEqualScikitLearn) {
  const std::vector<std::string> guess = texts(golden_.at("guess"));
  std::vector<std::vector<std::string>> truth;
  for (const std::string& label : texts(golden_.at("truth"))) truth.push_back({label});
  for (const auto& [name, expected] : golden_.at("classes").as_object()) {
    const std::vector<std::string> names{name};
    EXPECT_NEAR(evaluate_metrics(names, guess, truth).front().value, expected.as_double(), 1e-6) << name;
  }
}

TEST_F(Golden, StemsEqualTheReference) {
  for (const auto& [word, stem] : golden_.at("stems").as_object())
    EXPECT_EQ(porter_stem(word), stem.as_string()) << word;
}

TEST_F(Golden, IntervalsHoldTheValueAndRepeat) {
  const std::vector<std::string> names{"bleu", "rougeL"};
  const MetricOptions options{.bootstrap = 50, .seed = 3};
  const auto first = evaluate_metrics(names, hypotheses_, references_, options);
  const auto second = evaluate_metrics(names, hypotheses_, references_, options);
  for (std::size_t i = 0; i < first.size(); ++i) {
    EXPECT_LT(first[i].interval->first, first[i].value);
    EXPECT_GT(first[i].interval->second, first[i].value);
    EXPECT_EQ(first[i].interval, second[i].interval);
  }
}

TEST(Metrics, TokenF1IsSquadsAndUnknownNamesAreRefused) {
  EXPECT_NEAR(token_f1("The cat sat.", "a cat sat down").f1, 2 * (2.0 / 2) * (2.0 / 3) / (2.0 / 2 + 2.0 / 3), 1e-12);
  EXPECT_EQ(token_f1("the", "a").f1, 1.0);  // nothing on both sides
  EXPECT_EQ(token_f1("x", "the").f1, 0.0);
  const std::vector<std::string> wrong{"rogue1"};
  try {
    expand_metric_names(wrong);
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("rouge1"), std::string::npos);
  }
  EXPECT_THROW(bleu_tokenizer_from_name("flores200"), Error);
}

// Scripts without spaces (tests/goldens/metrics/characters.py).
TEST(Metrics, OfCharactersEqualTheReferences) {
  const std::string path = INSTRUCT_GOLDENS "/metrics/characters.json";
  const Value golden = parse_json(read_file(path), path);
  const std::vector<std::string> hypotheses = texts(golden.at("hypotheses")), all = texts(golden.at("references"));
  std::vector<std::vector<std::string>> references;
  for (const std::string& reference : all) references.push_back({reference});
  const auto corpus = [&](const std::string& name, const MetricOptions& options) {
    const std::vector<std::string> names{name};
    return evaluate_metrics(names, hypotheses, references, options).front().value;
  };
  for (const char* tokeniser : {"zh", "char"})
    EXPECT_NEAR(corpus("bleu", {.tokenizer = bleu_tokenizer_from_name(tokeniser)}),
                golden.at("corpus").at(std::string("bleu ") + tokeniser).as_double(), 1e-6);
  for (const char* name : {"chrf", "chrf++"})
    EXPECT_NEAR(corpus(name, {}), golden.at("corpus").at(name).as_double(), 1e-6);
  const auto f1 = [&](const std::string& name, std::size_t i) {
    const RougeOptions options{.cjk = true};
    const Overlap overlap = name == "rouge1"   ? rouge_n(hypotheses[i], all[i], 1, options)
                            : name == "rouge2" ? rouge_n(hypotheses[i], all[i], 2, options)
                            : name == "rougeL" ? rouge_l(hypotheses[i], all[i], options)
                                               : rouge_l_sum(hypotheses[i], all[i], options);
    return overlap.f1;
  };
  for (const auto& [name, rows] : golden.at("rows").as_object()) {
    for (std::size_t i = 0; i < all.size(); ++i)
      ASSERT_NEAR(f1(name, i), rows.as_array()[i].as_double(), 1e-9) << name << " row " << i << "\n" << hypotheses[i];
  }
  for (const auto& [name, rows] : golden.at("rouge-chinese").as_object()) {
    for (const Value& row : rows.as_array()) {  // it adds 1e-8 to the denominator
      const auto i = static_cast<std::size_t>(row.as_array()[0].as_integer());
      EXPECT_NEAR(f1(name, i), row.as_array()[1].as_double(), 1e-7) << name << " row " << i;
    }
  }
}

TEST(Metrics, CjkCharactersCountWhenAskedFor) {
  EXPECT_EQ(rouge_n("软件包", "软件", 1, {}).f1, 0.0);
  EXPECT_NEAR(rouge_n("软件包", "软件", 1, {.cjk = true}).f1, 0.8, 1e-12);
}

}  // namespace
}  // namespace instruct::metrics
