// Keys and values stored in other types than the queries', and attention over them.
#include "kernels/attention_cases.h"

namespace instruct::kernels::testing {
namespace {

// x as rows of a cache, backwards: row t goes to slot T - 1 - t.
Tensor stored_backwards(decltype(&cpu::store_heads) kernel, const Tensor& x, std::int64_t head_width, DType dtype,
                        Machine& machine) {
  std::vector<std::int32_t> slots;
  for (std::int64_t t = x.dim(0); t-- > 0;) slots.push_back(static_cast<std::int32_t>(t));
  const std::int64_t columns = x.dim(1) / head_width * head_columns(dtype, head_width);
  Tensor rows = Tensor::zeros({x.dim(0), columns}, dtype, *machine.allocator);
  kernel(machine.stream, x, slots, head_width, rows);
  return rows;
}

constexpr std::array kCacheTypes = {DType::kF32, DType::kBF16, DType::kI8};

TEST(StoreHeads, EqualsTheReferenceToTheBit) {
  Machine machine(2);
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const Heads& heads : kHeads) {
      Operand x = make_operand({300, heads.key * heads.width}, dtype, Layout::kGaps, *machine.allocator);
      RandomStream random(31, RandomPurpose::kTest);
      fill_uniform(x.view, random, 0.2F, 3);
      for (std::int64_t i = 0; i < heads.width; ++i) set_element(x.view, i, 0);
      set_element(x.view, x.view.row_stride(), NAN);
      set_element(x.view, 2 * x.view.row_stride() + heads.width - 1, -INFINITY);
      for (const DType type : kCacheTypes) {
        EXPECT_TRUE(same_bytes(stored_backwards(cpu::store_heads, x.view, heads.width, type, machine),
                               stored_backwards(reference::store_heads, x.view, heads.width, type, machine)))
            << info(dtype).name << " as " << info(type).name << ", K=" << heads.width;
      }
    }
  }
}

// An integer is off by half a step of max|x| / 127.
TEST(StoreHeads, IntegersAreNearWhatWasStored) {
  Machine machine(1);
  Tensor x = Tensor::empty({4, 6}, DType::kF32, *machine.allocator);
  RandomStream random(5, RandomPurpose::kTest);
  fill_uniform(x, random, 0, 4);
  const Tensor rows = stored_backwards(cpu::store_heads, x, 3, DType::kI8, machine);
  for (std::int64_t t = 0; t < 4; ++t) {
    for (std::int64_t head = 0; head < 2; ++head) {
      const std::int8_t* integers = rows.data<std::int8_t>() + (3 - t) * rows.row_stride() + head * 7;
      const float* values = x.data<float>() + t * 6 + head * 3;
      float scale = 0;
      std::memcpy(&scale, integers + 3, sizeof(scale));
      const float most = std::max({std::abs(values[0]), std::abs(values[1]), std::abs(values[2])});
      EXPECT_FLOAT_EQ(scale, most / 127);
      for (std::int64_t i = 0; i < 3; ++i)
        EXPECT_NEAR(static_cast<float>(integers[i]) * scale, values[i], 0.5001F * scale);
    }
  }
}

class Caches : public ::testing::TestWithParam<CpuFeatures> {};
INSTANTIATE_TEST_SUITE_P(Attention, Caches, ::testing::ValuesIn(product_features()),
                         [](const auto& tested) { return testing::product_name(tested.param); });

// Keys and values of another type than the queries: the same as the reference over the same rows.
TEST_P(Caches, OfEveryTypeEqualTheReference) {
  auto machines = three_machines(GetParam());
  for (const Heads& heads : {Heads{9, 3, 64}, Heads{4, 4, 16}, Heads{2, 1, 80}, Heads{6, 2, 20}}) {
    for (AttentionCase c : {decode_case(300, 1, 310), decode_case(70, 4, 80), decode_case(33, 40, 80),
                            decode_case(0, 130, 130), branched_decode_case()}) {
      for (const DType dtype : {DType::kF32, DType::kBF16}) {
        c.heads = heads;
        c.dtype = dtype;
        Inputs inputs = make_inputs(c, *machines[0]->allocator);
        for (const DType type : kCacheTypes) {
          SCOPED_TRACE(text(c) + " over " + std::string(info(type).name));
          Inputs cached = inputs;
          cached.key.view = stored_backwards(cpu::store_heads, inputs.key.view, heads.width, type, *machines[0]);
          cached.value.view = stored_backwards(cpu::store_heads, inputs.value.view, heads.width, type, *machines[0]);
          const Forward expected = forward(reference::attention, c, cached, *machines[0]);
          const Forward actual = forward(cpu::attention, c, cached, *machines[0]);
          // Blocks of queries round keys and values to the queries' type: scores of up to 4 sqrt(K) of magnitude.
          const double rounding = dtype == DType::kBF16 && type != DType::kBF16
                                      ? 0x1p-9 * (1 + 4 * std::sqrt(static_cast<double>(heads.width)))
                                      : 0;
          Bound bound = output_bound(c);
          bound.absolute += 2 * rounding;
          ASSERT_EQ(mismatch(actual.output.view, expected.output.view, bound), "");
          for (std::size_t i = 1; i < machines.size(); ++i) {
            ASSERT_TRUE(same_bytes(forward(cpu::attention, c, cached, *machines[i]).output.whole, actual.output.whole))
                << "depends on the threads";
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace instruct::kernels::testing
