#include "autograd/tape.h"

#include <gtest/gtest.h>

namespace instruct::autograd {
namespace {

TEST(Tape, RunsNewestFirstAndDropsWhatItKept) {
  Tape tape;
  std::vector<int> order;
  const auto kept = std::make_shared<int>(0);
  std::weak_ptr<int> first_kept;
  {
    const auto only_here = std::make_shared<int>(1);
    first_kept = only_here;
    tape.record([&order, kept] { order.push_back(1); });
    tape.record([&order, only_here] { order.push_back(2); });
    tape.record([&order, &first_kept] {
      order.push_back(3);
      EXPECT_FALSE(first_kept.expired());
    });
  }
  tape.backward();
  EXPECT_EQ(order, (std::vector<int>{3, 2, 1}));
  EXPECT_TRUE(first_kept.expired());
  EXPECT_EQ(tape.size(), 0U);
  EXPECT_EQ(kept.use_count(), 1);
}

TEST(Variable, CopiesShareValueAndGradient) {
  const auto allocator = tensor::make_host_allocator();
  Variable a(Tensor::zeros({2}, tensor::DType::kF32, *allocator), true);
  const Variable b = a;  // NOLINT(performance-unnecessary-copy-initialization): the copy is what is tested
  a.mutable_gradient() = Tensor::zeros({2}, tensor::DType::kF32, *allocator);
  EXPECT_TRUE(b.gradient().defined());
  EXPECT_TRUE(b.gradient().same_data(a.gradient()));
  EXPECT_FALSE(b.is_parameter());
  EXPECT_TRUE(Variable::parameter(a.value()).is_parameter());
}

TEST(Variable, ForgottenValuesAreComputedAgainOnceAndOnlyWhenAsked) {
  const auto allocator = tensor::make_host_allocator();
  const Variable a(Tensor::zeros({2}, tensor::DType::kF32, *allocator), true);
  const std::int64_t before = allocator->bytes_in_use();
  int calls = 0;
  a.forget([&] {
    ++calls;
    return Tensor::zeros({2}, tensor::DType::kF32, *allocator);
  });
  EXPECT_LT(allocator->bytes_in_use(), before);
  EXPECT_EQ(calls, 0);
  EXPECT_TRUE(a.value().defined());
  EXPECT_TRUE(a.value().defined());
  EXPECT_EQ(calls, 1);
  a.forget();
  EXPECT_FALSE(a.value().defined());
}

}  // namespace
}  // namespace instruct::autograd
