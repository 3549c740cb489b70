#include "tensor/tensor.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>

#include "base/error.h"
#include "base/random.h"
#include "tensor/block_codec.h"
#include "tensor/segments.h"

namespace instruct::tensor {
namespace {

TEST(Half, EveryPatternRoundTrips) {
  for (std::uint32_t bits = 0; bits < 65536; ++bits) {
    const Half half{static_cast<std::uint16_t>(bits)};
    const float value = to_float(half);
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(to_float(to_half(value))));
    } else {
      EXPECT_EQ(to_half(value).bits, half.bits) << bits;
    }
  }
  EXPECT_EQ(to_half(65520.0F).bits, 0x7C00);  // halfway past the largest rounds to infinity
  EXPECT_EQ(to_half(65519.0F).bits, 0x7BFF);
  EXPECT_EQ(to_half(1.0F + 0x1p-11F).bits, 0x3C00);  // ties to even
}

TEST(BFloat16, RoundsToNearestEven) {
  EXPECT_EQ(to_bfloat16(1.0F).bits, 0x3F80);
  EXPECT_EQ(to_bfloat16(1.0F + 0x1p-8F).bits, 0x3F80);
  EXPECT_EQ(to_bfloat16(1.0F + 0x3p-8F).bits, 0x3F82);
  EXPECT_TRUE(std::isnan(to_float(to_bfloat16(NAN))));
}

TEST(Tensor, ViewsShareTheirBytes) {
  const auto allocator = make_host_allocator();
  Tensor t = Tensor::zeros({3, 4}, DType::kF32, *allocator);
  for (int i = 0; i < 12; ++i) t.data<float>()[i] = static_cast<float>(i);
  EXPECT_EQ(t.rows(1, 3).to_floats(), (std::vector<float>{4, 5, 6, 7, 8, 9, 10, 11}));
  EXPECT_EQ(t.columns(1, 3).to_floats(), (std::vector<float>{1, 2, 5, 6, 9, 10}));
  EXPECT_FALSE(t.columns(1, 3).contiguous());
  EXPECT_EQ(t.reshape({2, 6}).dim(1), 6);
  Tensor column = t.columns(3, 4);
  column.fill_zero();
  EXPECT_EQ(t.rows(0, 1).to_floats(), (std::vector<float>{0, 1, 2, 0}));
  EXPECT_EQ(t.shape().text(), "[3, 4]");
}

TEST(Allocator, KeepsFreedBlocks) {
  const auto allocator = make_host_allocator();
  for (const std::int64_t size : {1000, 100000}) {
    const std::byte* first = nullptr;
    {
      const auto block = allocator->allocate(size);
      first = block->data;
      EXPECT_EQ(reinterpret_cast<std::uintptr_t>(first) % 64, 0U);
      EXPECT_GE(allocator->bytes_in_use(), size);
    }
    EXPECT_EQ(allocator->bytes_in_use(), 0);
    EXPECT_EQ(allocator->allocate(size - size / 100)->data, first);
    EXPECT_GE(allocator->bytes_kept(), size);
  }
}

// Gradients of a backward pass take the places of activations, whatever their sizes.
TEST(Allocator, FreedNeighboursServeOtherSizes) {
  const auto allocator = make_host_allocator();
  const auto below = allocator->allocate(1 << 20);
  std::vector<std::shared_ptr<Storage>> activations;
  for (int i = 0; i < 8; ++i) activations.push_back(allocator->allocate(1 << 20));
  const std::int64_t kept = allocator->bytes_kept();
  EXPECT_EQ(kept, 9 << 20);
  activations.erase(activations.begin() + 3, activations.begin() + 6);
  const auto gradient = allocator->allocate(3 << 20);
  EXPECT_GT(gradient->data, activations[2]->data);
  EXPECT_LT(gradient->data, activations[3]->data);
  activations.clear();
  const auto again = allocator->allocate(3 << 20), rest = allocator->allocate(2 << 20);
  EXPECT_EQ(allocator->bytes_kept(), kept);
}

TEST(Allocator, ContentsOfBlocksStayApart) {
  const auto allocator = make_host_allocator();
  std::vector<std::pair<std::shared_ptr<Storage>, int>> blocks;
  std::mt19937 random(3);
  for (int i = 0; i < 2000; ++i) {
    if (blocks.size() > 40 || (random() % 3 == 0 && !blocks.empty())) {
      const std::size_t chosen = random() % blocks.size();
      const auto& [block, value] = blocks[chosen];
      for (std::int64_t at = 0; at < block->bytes; at += 997)
        ASSERT_EQ(block->data[at], static_cast<std::byte>(value)) << at;
      ASSERT_EQ(block->data[block->bytes - 1], static_cast<std::byte>(value));
      blocks.erase(blocks.begin() + static_cast<std::ptrdiff_t>(chosen));
      continue;
    }
    const auto block =
        allocator->allocate(1 + static_cast<std::int64_t>(random() % (random() % 2 == 0 ? 5000 : 300000)));
    const int value = static_cast<int>(random() % 256);
    std::memset(block->data, value, static_cast<std::size_t>(block->bytes));
    blocks.emplace_back(block, value);
  }
  blocks.clear();
  EXPECT_EQ(allocator->bytes_in_use(), 0);
}

TEST(Allocator, TellsWhatABodyWouldKeep) {
  const auto allocator = make_host_allocator();
  const auto below = allocator->allocate(1 << 20);
  { const auto freed = allocator->allocate(2 << 20); }
  const std::int64_t kept = allocator->bytes_kept();
  const auto body = [&](std::int64_t size) { return [&, size] { const auto block = allocator->allocate(size); }; };
  EXPECT_EQ(allocator->bytes_kept_after(body(1 << 20)), kept);
  EXPECT_EQ(allocator->bytes_kept_after(body(3 << 20)), kept + (1 << 20));
  EXPECT_EQ(allocator->bytes_kept(), kept);
}

TEST(Allocator, TooMuchIsAnError) {
  EXPECT_THROW(make_host_allocator()->allocate(std::int64_t{1} << 46), Error);
}

TEST(Segments, ChildrenSeeTheirAncestors) {
  const std::vector<Segment> segments{{0, 4, -1}, {4, 6, 0}, {6, 9, 1}, {9, 12, 0}};
  const AttentionPlan plan = plan_of(segments);
  ASSERT_EQ(plan.queries[2].visible.size(), 1U);  // neighbours merge
  EXPECT_EQ(plan.queries[2].visible[0].end, 6);
  EXPECT_EQ(plan.queries[3].visible[0].end, 4);
  EXPECT_EQ(positions_of(segments), (std::vector<std::int32_t>{0, 1, 2, 3, 4, 5, 6, 7, 8, 4, 5, 6}));
}

class Codec : public ::testing::TestWithParam<DType> {};

TEST_P(Codec, DecodingAnEncodingStaysWithinAStep) {
  RandomStream random(1, RandomPurpose::kTest);
  std::vector<float> values(256), back(256);
  for (float& value : values) value = static_cast<float>(random.next_normal());
  std::vector<std::byte> bytes(static_cast<std::size_t>(bytes_of(GetParam(), 256)));
  encode_elements(GetParam(), values, bytes.data());
  decode_elements(GetParam(), bytes.data(), back);
  // Largest step of a block of 32 normal values: their range over the number of levels.
  const double step = GetParam() == DType::kQ8_0                                 ? 0.04
                      : GetParam() == DType::kQ4_0 || GetParam() == DType::kQ4_1 ? 0.6
                      : GetParam() == DType::kQ5_0 || GetParam() == DType::kQ5_1 ? 0.3
                                                                                 : 0.02;
  for (std::size_t i = 0; i < values.size(); ++i) EXPECT_NEAR(back[i], values[i], step);
  std::vector<std::byte> zeros(bytes.size());
  encode_elements(GetParam(), std::vector<float>(256, 0.0F), zeros.data());
  decode_elements(GetParam(), zeros.data(), back);
  for (const float value : back) EXPECT_EQ(value, 0.0F);
}

INSTANTIATE_TEST_SUITE_P(Types, Codec,
                         ::testing::Values(DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0, DType::kQ4_0,
                                           DType::kQ4_1, DType::kQ5_0, DType::kQ5_1),
                         [](const auto& test) { return std::string(tensor::info(test.param).name); });

}  // namespace
}  // namespace instruct::tensor
