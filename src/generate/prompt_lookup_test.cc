#include "generate/prompt_lookup.h"

#include <gtest/gtest.h>

#include "generate/test_support.h"

namespace instruct::generate {
namespace {

using Tokens = std::vector<std::int32_t>;

TEST(LookUp, ProposesWhatFollowedTheLongestMatchAndTheLatestOfEqualOnes) {
  EXPECT_EQ(look_up(Tokens{1, 2, 3, 4, 9, 1, 2}, 3), (Tokens{3, 4, 9}));
  EXPECT_EQ(look_up(Tokens{1, 2, 3, 7, 1, 2, 4, 7, 1, 2}, 2), (Tokens{4, 7}));     // the latest
  EXPECT_EQ(look_up(Tokens{5, 1, 2, 3, 7, 1, 2, 4, 5, 1, 2}, 2), (Tokens{3, 7}));  // the longest
  EXPECT_EQ(look_up(Tokens{1, 2, 3, 8, 6, 2, 9, 6, 2}, 1), (Tokens{9}));
}

TEST(LookUp, RepeatsWhatRepeats) {
  EXPECT_EQ(look_up(Tokens{7, 1, 2, 1, 2}, 5), (Tokens{1, 2, 1, 2, 1}));
  EXPECT_EQ(look_up(Tokens{4, 4, 4}, 3), (Tokens{4, 4, 4}));
}

TEST(LookUp, ProposesNothingWithoutAMatchOrRoom) {
  for (const Tokens& text : {Tokens{}, Tokens{1}, Tokens{1, 2}, Tokens{1, 2, 3, 2}, Tokens{2, 1, 3, 1}})
    EXPECT_TRUE(look_up(text, 4).empty());
  EXPECT_TRUE(look_up(Tokens{1, 2, 1, 2}, 0).empty());
  EXPECT_TRUE(look_up(Tokens{1, 2, 1, 2}, -1).empty());
}

class WriteVerified : public ::testing::Test {
 protected:
  // Logits that leave no doubt about one token a row.
  tensor::Tensor only(const Tokens& tokens) {
    const std::int64_t vocabulary = tiny_.tokenizer().vocabulary_size();
    tensor::Tensor logits = tensor::Tensor::zeros({static_cast<std::int64_t>(tokens.size()), vocabulary + 3},
                                                  tensor::DType::kF32, tiny_.engine.allocator());
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      float* row = logits.data<float>() + static_cast<std::int64_t>(i) * (vocabulary + 3);
      row[tokens[i]] = 50;
      row[vocabulary] = 90;  // padding of the weights
    }
    return logits;
  }
  bool write(Writer& writer, const Tokens& proposal, const Tokens& chosen) {
    return write_verified(writer, proposal, only(chosen), tiny_.tokenizer().vocabulary_size(), counts_);
  }

  TinyModel tiny_;
  LookupCounts counts_;
};

TEST_F(WriteVerified, StopsBehindTheFirstTokenThatIsNotTheProposedOne) {
  const Request request{.prompt = {2}};
  Writer writer(request, tiny_.tokenizer(), 100);
  EXPECT_TRUE(write(writer, {5, 6, 7}, {5, 6, 9, 8}));
  EXPECT_EQ(writer.answer().tokens, (Tokens{5, 6, 9}));
  EXPECT_EQ(counts_.proposed, 3);
  EXPECT_EQ(counts_.accepted, 2);
  EXPECT_TRUE(write(writer, {5, 6}, {5, 6, 8}));  // one token more than was proposed
  EXPECT_EQ(writer.answer().tokens, (Tokens{5, 6, 9, 5, 6, 8}));
  EXPECT_TRUE(write(writer, {}, {4}));
  EXPECT_EQ(writer.answer().tokens.size(), 7U);
}

TEST_F(WriteVerified, AnEndTokenAndTheLengthEndTheAnswerWithinAProposal) {
  const Request request{.prompt = {2}, .max_new_tokens = 2};
  Writer ended(request, tiny_.tokenizer(), 100);
  const std::int32_t end = *tiny_.tokenizer().eos();
  EXPECT_FALSE(write(ended, {5, end, 6}, {5, end, 6, 7}));
  EXPECT_EQ(ended.answer().tokens, (Tokens{5}));
  EXPECT_EQ(ended.answer().finish, Finish::kStop);
  Writer cut(request, tiny_.tokenizer(), 100);
  EXPECT_FALSE(write(cut, {5, 6, 7}, {5, 6, 7, 8}));
  EXPECT_EQ(cut.answer().tokens, (Tokens{5, 6}));
  EXPECT_EQ(cut.answer().finish, Finish::kLength);
}

}  // namespace
}  // namespace instruct::generate
