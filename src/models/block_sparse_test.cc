// What blocks see: against transformers' choice of blocks (tests/goldens/encoders/big_bird_blocks.py), and both kernels
// against each other over plans whose blocks count several times.
#include "models/block_sparse.h"

#include <gmock/gmock.h>

#include <numeric>

#include "models/test_support.h"
#include "ops/attention.h"

namespace instruct::models {
namespace {

using tensor::AttentionPlan;
using tensor::KeyRange;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(BlockSparse, BlocksAreDrawnAsTransformersDrawsThem) {
  const Value golden = parse_json(read_file(INSTRUCT_GOLDENS "/encoders/big_bird_blocks.json"), "big_bird_blocks.json");
  std::size_t of_paper = 0;
  for (const Value& sample : golden.at("cases").as_array()) {
    const auto number = [&](const char* key) { return sample.at(key).as_integer(); };
    const BlockSparse sparse{.block = number("block"), .drawn = number("random"), .longest = number("longest")};
    const std::int64_t blocks = number("blocks");
    of_paper += blocks * sparse.block >= 1024 ? 1U : 0U;
    std::vector<std::int32_t> expected;
    for (const Value& block : sample.at("drawn").as_array())
      expected.push_back(static_cast<std::int32_t>(block.as_integer()));
    EXPECT_EQ(drawn_blocks(sparse, blocks, number("heads"), static_cast<std::uint32_t>(number("seed"))), expected)
        << blocks << " blocks of " << sparse.block;
  }
  EXPECT_GE(golden.at("cases").size(), 12U);
  EXPECT_GE(of_paper, 4U);
}

TEST(BlockSparse, TooFewBlocksToDrawFromAreNamed) {
  // 1,024 tokens are four blocks, of which the first that is drawn for may see none but those it sees anyhow.
  EXPECT_THAT(message_of([] { drawn_blocks({.block = 256, .drawn = 0, .longest = 1024}, 4, 1, 0); }), "no error");
  EXPECT_THAT(message_of([] { drawn_blocks({.block = 128, .drawn = 6, .longest = 1024}, 8, 1, 0); }),
              HasSubstr("unsupported: block 1 of a text of 8 blocks of 128 tokens has no 6 blocks to draw"));
}

// Blocks of 2 tokens, one of them drawn: texts of up to 14 tokens are seen whole.
TEST(BlockSparse, PlansAreOfBlocksAndOfShortTextsWhole) {
  const BlockSparse sparse{.block = 2, .drawn = 1, .longest = 64};
  const AttentionPlan short_text = tensor::plan_of_whole_rows({{0, 14, -1}});
  EXPECT_FALSE(is_sparse(sparse, short_text));
  const AttentionPlan texts = tensor::plan_of_whole_rows({{0, 3, -1}, {3, 20, -1}});  // 9 blocks, the last of one token
  ASSERT_TRUE(is_sparse(sparse, texts));
  EXPECT_FALSE(is_sparse({}, texts));
  const AttentionPlan plan = sparse_plan(sparse, texts);
  ASSERT_EQ(plan.queries.size(), 10U);
  EXPECT_EQ(plan.queries[0].own, tensor::OwnKeys::kWhole);
  const auto seen = [&](std::size_t segment) { return plan.queries[segment].visible; };
  EXPECT_THAT(seen(1), ElementsAre(KeyRange{3, 20}));
  EXPECT_THAT(seen(2), ElementsAre(KeyRange{3, 9}, KeyRange{19, 20}, KeyRange{3, 5}));
  EXPECT_THAT(seen(3), ElementsAre(KeyRange{3, 5}, KeyRange{5, 11}, KeyRange{19, 20}, KeyRange{3, 5}));
  EXPECT_THAT(seen(8), ElementsAre(KeyRange{3, 5}, KeyRange{15, 20}, KeyRange{3, 5}));
  EXPECT_THAT(seen(9), ElementsAre(KeyRange{3, 20}));
  EXPECT_EQ(plan.queries[9].begin, 19);
  EXPECT_EQ(plan.queries[9].end, 20);
  const AttentionPlan by_head = drawn_plan(sparse, texts, 3, 1);
  ASSERT_EQ(by_head.queries.size(), 30U);
  EXPECT_EQ(by_head.queries[10].self_begin, 20);
  EXPECT_EQ(by_head.queries[29].end, 60);
  for (std::size_t head = 0; head < 3; ++head) {
    for (std::size_t block = 2; block < 9; ++block) {
      const KeyRange drawn = by_head.queries[10 * head + block].visible.back();
      EXPECT_EQ(drawn.end - drawn.begin, 2);
      EXPECT_NE(drawn, (KeyRange{static_cast<std::int64_t>(20 * head + 3), static_cast<std::int64_t>(20 * head + 5)}));
    }
  }
}

Tensor random_rows(ops::Engine& engine, std::int64_t rows, DType dtype, std::uint64_t stream) {
  RandomStream random(5, RandomPurpose::kTest, stream);
  std::vector<float> values(static_cast<std::size_t>(rows * 32));
  for (float& value : values) value = static_cast<float>(random.next_normal());
  const Tensor f32 = Tensor::from_floats(values, {rows, 32}, engine.allocator());
  return dtype == DType::kF32 ? f32 : ops::converted_copy(f32, dtype, engine.allocator());
}

TEST(BlockSparse, KernelsAgreeOverBlocksThatCountSeveralTimes) {
  for (const std::int64_t block : {1, 4, 5, 64}) {
    const BlockSparse sparse{.block = block, .drawn = 2, .longest = 4096};
    const std::int64_t tokens = sparse.seen_whole() + block + 1;
    const AttentionPlan plan = sparse_plan(sparse, tensor::plan_of_whole_rows({{0, tokens, -1}}));
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      std::vector<std::vector<float>> results[2];
      for (const ops::Backend backend : {ops::Backend::kReference, ops::Backend::kCpu}) {
        ops::Engine engine(2, backend);
        autograd::Tape tape;
        const ops::Context context = engine.context(&tape);
        std::array<Variable, 3> inputs;
        for (std::size_t i = 0; i < inputs.size(); ++i)
          inputs[i] = Variable(random_rows(engine, tokens, dtype, i), true);
        const Variable y =
            ops::attention(context, inputs[0], inputs[1], inputs[2], plan, {.head_width = 16, .scale = 0.25F});
        auto& result = results[backend == ops::Backend::kCpu ? 1 : 0];
        result.push_back(y.value().to_floats());
        y.mutable_gradient() = random_rows(engine, tokens, dtype, 3);
        tape.backward();
        for (const Variable& input : inputs) result.push_back(input.gradient().to_floats());
      }
      // Of bf16: probabilities and their gradients are rounded to 2^-9 of themselves before they are summed.
      for (std::size_t i = 0; i < results[0].size(); ++i)
        EXPECT_LE(largest_gap(results[0][i], results[1][i]), dtype == DType::kF32 ? 2e-5F : 0.06F)
            << i << ", blocks of " << block;
    }
  }
}

}  // namespace
}  // namespace instruct::models
