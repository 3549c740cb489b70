// Products on 8-bit integers against their plain twin, and the same bits whatever is computed together.
#include "kernels/test_support.h"
#include "tensor/block_codec.h"

namespace instruct::kernels {
namespace {

using tensor::Allocator;
using tensor::DType;
using tensor::Half;
using tensor::Shape;
using testing::Bound;
using testing::fill_uniform;
using testing::Machine;
using testing::mismatch;
using testing::same_bytes;
using testing::three_machines;

// Every instruction set that this processor has integer products with.
std::vector<CpuFeatures> integer_features() {
  std::vector<CpuFeatures> choices;
  CpuFeatures features = detect_cpu_features();
  if (cpu::has_integer_products(features)) choices.push_back(features);
  features.avx512_vnni = false;
  if (cpu::has_integer_products(features)) choices.push_back(features);
  return choices;
}

// Any bytes are a block; only the scales must be numbers of a sensible size.
Tensor random_weight(DType dtype, std::int64_t rows, std::int64_t columns, RandomStream& random, Allocator& allocator) {
  Tensor weight = Tensor::empty({rows, columns}, dtype, allocator);
  for (std::int64_t i = 0; i < weight.bytes(); ++i)
    weight.raw()[i] = static_cast<std::byte>(random.next_uniform() * 256);
  const auto put_half = [&](std::int64_t at) {
    const Half half = tensor::to_half(static_cast<float>(random.next_uniform() - 0.5));
    std::memcpy(weight.raw() + at, &half, sizeof(half));
  };
  if (dtype == DType::kI8) return weight;
  const std::int64_t block_bytes = tensor::info(dtype).block_bytes;
  const std::int64_t scale_at = dtype == DType::kQ6_K   ? 208
                                : dtype == DType::kQ3_K ? 108
                                : dtype == DType::kQ2_K ? 80
                                                        : 0;
  for (std::int64_t at = 0; at < weight.bytes(); at += block_bytes) {
    if (dtype == DType::kMXFP4) {
      weight.raw()[at] = static_cast<std::byte>(120 + random.next_below(8));
      continue;
    }
    put_half(at + scale_at);
    if (tensor::integer_format(dtype)->has_minimum) put_half(at + scale_at + 2);
  }
  return weight;
}

constexpr std::array kFormats = {DType::kQ8_0,  DType::kQ4_0,  DType::kQ4_1, DType::kQ5_0, DType::kQ5_1,
                                 DType::kQ4_K,  DType::kQ5_K,  DType::kQ6_K, DType::kQ2_K, DType::kQ3_K,
                                 DType::kIQ4NL, DType::kIQ4XS, DType::kMXFP4};

// Block-quantised weights, and those with a scale for 64 inputs of an output.
Tensor scales_of(const Tensor& weight, Allocator& allocator) {
  std::vector<float> scales;
  const std::int64_t groups = (weight.dim(1) + 63) / 64;
  for (std::int64_t i = 0; i < weight.dim(0) * groups; ++i) scales.push_back(0.01F * static_cast<float>(i % 7 + 1));
  return Tensor::from_floats(scales, {weight.dim(0), groups}, allocator);
}
IntegerWeight cpu_pack(Stream& stream, const Tensor& weight) {
  return weight.dtype() == DType::kI8 ? cpu::pack_scaled_integers(stream, weight, scales_of(weight, stream.allocator))
                                      : cpu::pack_integer_weight(stream, weight);
}
IntegerWeight reference_pack(Stream& stream, const Tensor& weight) {
  return weight.dtype() == DType::kI8
             ? reference::pack_scaled_integers(stream, weight, scales_of(weight, stream.allocator))
             : reference::pack_integer_weight(stream, weight);
}

constexpr std::array kAllFormats = {DType::kI8,   DType::kQ8_0,  DType::kQ4_0,  DType::kQ4_1, DType::kQ5_0,
                                    DType::kQ5_1, DType::kQ4_K,  DType::kQ5_K,  DType::kQ6_K, DType::kQ2_K,
                                    DType::kQ3_K, DType::kIQ4NL, DType::kIQ4XS, DType::kMXFP4};

class IntegerFormats : public ::testing::TestWithParam<std::tuple<DType, ActivationBits>> {
 protected:
  static DType format() { return std::get<0>(GetParam()); }
  static ActivationBits bits() { return std::get<1>(GetParam()); }
};
INSTANTIATE_TEST_SUITE_P(Kernels, IntegerFormats,
                         ::testing::Combine(::testing::ValuesIn(kAllFormats),
                                            ::testing::Values(ActivationBits::k8, ActivationBits::k16)),
                         [](const auto& tested) {
                           return std::string(tensor::info(std::get<0>(tested.param)).name) +
                                  (std::get<1>(tested.param) == ActivationBits::k8 ? "_8" : "_16");
                         });

// x [rows, depth] times two weights on one backend.
struct Results {
  Tensor first, second;
};
template <auto Pack, auto Multiply>
Results multiply(Stream& stream, const Tensor& x, const Tensor& first, const Tensor& second, DType dtype,
                 ActivationBits bits) {
  const IntegerWeight a = Pack(stream, first);
  const IntegerWeight b = Pack(stream, second);
  Tensor results[] = {Tensor::empty({x.dim(0), first.dim(0)}, dtype, stream.allocator),
                      Tensor::empty({x.dim(0), second.dim(0)}, dtype, stream.allocator)};
  const IntegerMatmul products[] = {{.weight = &a, .result = results[0]}, {.weight = &b, .result = results[1]}};
  Multiply(stream, x, bits, std::span<const IntegerMatmul>(products));
  return {results[0], results[1]};
}

TEST_P(IntegerFormats, AgreesWithItsPlainTwin) {
  if (integer_features().empty()) GTEST_SKIP() << "no integer products on this processor";
  RandomStream random(7, RandomPurpose::kTest);
  for (const CpuFeatures& features : integer_features()) {
    for (auto& machine : three_machines(features)) {
      Allocator& allocator = *machine->allocator;
      for (const std::int64_t rows : {1, 2, 3, 7, 12, 29, 131}) {
        std::int64_t depth = rows == 7 ? 1536 : 256;
        if (format() == DType::kI8 && rows > 12) depth = 96;  // the last block has a scale of its own
        const Tensor first = random_weight(format(), 150, depth, random, allocator);
        const Tensor second = random_weight(format(), 16, depth, random, allocator);
        for (const DType dtype : {DType::kF32, DType::kBF16}) {
          Tensor x = Tensor::empty({rows, depth}, dtype, allocator);
          fill_uniform(x, random, 0.3F, 2.0F);
          const Results plain =
              multiply<&reference_pack, &reference::integer_matmul>(machine->stream, x, first, second, dtype, bits());
          const Results fast =
              multiply<&cpu_pack, &cpu::integer_matmul>(machine->stream, x, first, second, dtype, bits());
          // A block's sum is rounded a few times; terms are up to 2.3 x (255 x 32 x 0.5), and there are depth of them.
          const Bound bound{.relative = testing::sum_units(depth / 32),
                            .absolute = testing::kUnit * testing::sum_units(depth / 32) * 2.3 * 4096 * 32 *
                                        std::sqrt(static_cast<double>(depth / 32))};
          EXPECT_EQ(mismatch(fast.first, plain.first, bound), "") << rows << " rows";
          EXPECT_EQ(mismatch(fast.second, plain.second, bound), "") << rows << " rows";
        }
      }
    }
  }
}

TEST_P(IntegerFormats, AddTheLowRankProductAndWhatWasThere) {
  if (integer_features().empty()) GTEST_SKIP() << "no integer products on this processor";
  RandomStream random(10, RandomPurpose::kTest);
  for (const CpuFeatures& features : integer_features()) {
    Machine machine(2, features);
    Allocator& allocator = *machine.allocator;
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      for (const Transpose transpose : {Transpose::kYes, Transpose::kNo}) {
        const auto filled = [&](const Shape& shape) {
          testing::Operand made = testing::make_operand(shape, dtype, testing::Layout::kGaps, allocator);
          fill_uniform(made.view, random, 0.1F, 2.0F);
          return made;
        };
        const Tensor stored = random_weight(format(), 37, 256, random, allocator);
        const testing::Operand x = filled({29, 256});
        const testing::Operand low_a = filled({29, 5});
        const testing::Operand low_b = transpose == Transpose::kYes ? filled({37, 5}) : filled({5, 37});
        const testing::Operand before = filled({29, 37});
        for (const Accumulate accumulate : {Accumulate::kNo, Accumulate::kYes}) {
          const auto run = [&](const IntegerWeight& weight, auto multiply_one) {
            testing::Operand result = testing::copy_of(before, allocator);
            const IntegerMatmul product{.weight = &weight,
                                        .result = result.view,
                                        .low_a = low_a.view,
                                        .low_b = low_b.view,
                                        .transpose_low_b = transpose,
                                        .accumulate = accumulate};
            multiply_one(machine.stream, x.view, bits(), std::span(&product, 1));
            return result;
          };
          const auto plain = run(reference_pack(machine.stream, stored), reference::integer_matmul);
          const auto fast = run(cpu_pack(machine.stream, stored), cpu::integer_matmul);
          const Bound bound{.relative = testing::sum_units(16),
                            .absolute = testing::kUnit * testing::sum_units(16) * 2.3 * 4096 * 32 * std::sqrt(8.0)};
          EXPECT_EQ(mismatch(fast.view, plain.view, bound), "");
          EXPECT_TRUE(testing::gaps_untouched(fast));
        }
      }
    }
  }
}

TEST_P(IntegerFormats, ARowDoesNotDependOnItsNeighboursThreadsOrInstructionSet) {
  if (integer_features().empty()) GTEST_SKIP() << "no integer products on this processor";
  RandomStream random(8, RandomPurpose::kTest);
  const auto allocator = tensor::make_host_allocator();
  const Tensor weight = random_weight(format(), 37, 512, random, *allocator);
  Tensor x = Tensor::empty({131, 512}, DType::kF32, *allocator);
  fill_uniform(x, random, 0.0F, 3.0F);
  Tensor expected;
  for (const CpuFeatures& features : integer_features()) {
    for (auto& machine : three_machines(features)) {
      const auto run = [&](const Tensor& rows) {
        return multiply<&cpu_pack, &cpu::integer_matmul>(machine->stream, rows, weight, weight, DType::kF32, bits());
      };
      const Results all = run(x);
      if (!expected.defined()) expected = all.first;
      EXPECT_TRUE(same_bytes(all.first, expected));
      EXPECT_TRUE(same_bytes(all.second, expected));
      for (const std::int64_t first : {0, 50, 130}) {
        for (const std::int64_t count : {1, 5, 11}) {
          const std::int64_t last = std::min<std::int64_t>(first + count, 131);
          EXPECT_TRUE(same_bytes(run(x.rows(first, last)).first, expected.rows(first, last))) << first << " " << last;
        }
      }
    }
  }
}

TEST_P(IntegerFormats, ValuesThatAreNotFiniteSpoilTheirRowOnly) {
  if (integer_features().empty()) GTEST_SKIP() << "no integer products on this processor";
  RandomStream random(9, RandomPurpose::kTest);
  for (const CpuFeatures& features : integer_features()) {
    Machine machine(2, features);
    const Tensor weight = random_weight(format(), 16, 256, random, *machine.allocator);
    Tensor x = Tensor::zeros({3, 256}, DType::kF32, *machine.allocator);
    x.data<float>()[5] = std::numeric_limits<float>::infinity();
    x.data<float>()[2 * 256 + 40] = std::numeric_limits<float>::quiet_NaN();
    x.data<float>()[256 + 7] = 1e-42F;  // its inverse is no number
    const std::vector<float> y =
        multiply<&cpu_pack, &cpu::integer_matmul>(machine.stream, x, weight, weight, DType::kF32, bits())
            .first.to_floats();
    for (std::size_t i = 0; i < 16; ++i) {
      EXPECT_TRUE(std::isnan(y[i]));
      EXPECT_EQ(y[16 + i], 0.0F);
      EXPECT_TRUE(std::isnan(y[32 + i]));
    }
  }
}

// Against the product of values that were not rounded.
class SixteenBits : public ::testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(Kernels, SixteenBits, ::testing::ValuesIn(kFormats),
                         [](const auto& tested) { return std::string(tensor::info(tested.param).name); });

TEST_P(SixteenBits, AreFarNearerToTheValues) {
  if (integer_features().empty()) GTEST_SKIP() << "no integer products on this processor";
  RandomStream random(11, RandomPurpose::kTest);
  Machine machine(2);
  const Tensor stored = random_weight(GetParam(), 64, 512, random, *machine.allocator);
  Tensor x = Tensor::empty({9, 512}, DType::kF32, *machine.allocator);
  fill_uniform(x, random, 0.0F, 3.0F);
  Tensor values = Tensor::empty({64, 512}, DType::kF32, *machine.allocator);
  reference::dequantise_rows(machine.stream, stored, 0, values);
  Tensor exact = Tensor::empty({9, 64}, DType::kF32, *machine.allocator);
  reference::matmul(machine.stream, {.a = x, .b = values, .c = exact, .transpose_b = Transpose::kYes});
  const std::vector<float> expected = exact.to_floats();
  const auto error = [&](ActivationBits with) {
    const std::vector<float> y =
        multiply<&cpu_pack, &cpu::integer_matmul>(machine.stream, x, stored, stored, DType::kF32, with)
            .first.to_floats();
    float most = 0;
    for (std::size_t i = 0; i < y.size(); ++i) most = std::max(most, std::abs(y[i] - expected[i]));
    return most;
  };
  EXPECT_LT(error(ActivationBits::k16), error(ActivationBits::k8) / 100);
}

}  // namespace
}  // namespace instruct::kernels
