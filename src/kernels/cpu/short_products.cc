#include "kernels/cpu/short_products.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/short_products.cc"
#include <hwy/foreach_target.h>  // compiles this file once per instruction set

#include "kernels/cpu/vectors-inl.h"

HWY_BEFORE_NAMESPACE();
namespace instruct::kernels::cpu::HWY_NAMESPACE {

// `Rows` rows of c from `row`, `Vectors` vectors of columns from `column`: their sums stay in registers.
template <std::size_t Rows, std::size_t Vectors, class D>
HWY_INLINE void multiply_part(D d, const ShortProduct& p, std::int64_t row, std::int64_t column) {
  const std::size_t lanes = hn::Lanes(d);
  const auto a_row = static_cast<std::size_t>(p.a_row);
  hn::Vec<D> sums[Rows][Vectors];
  for (auto& of_row : sums) {
    for (auto& sum : of_row) sum = hn::Zero(d);
  }
  const float* a = p.a + row * p.a_row;
  const float* b = p.b + column;
  for (std::int64_t k = 0; k < p.k; ++k, a += p.a_column, b += p.b_row) {
    hn::Vec<D> right[Vectors];
    for (std::size_t v = 0; v < Vectors; ++v) right[v] = hn::LoadU(d, b + v * lanes);
    for (std::size_t r = 0; r < Rows; ++r) {
      const auto left = hn::Set(d, a[r * a_row]);
      for (std::size_t v = 0; v < Vectors; ++v) sums[r][v] = hn::MulAdd(left, right[v], sums[r][v]);
    }
  }
  const auto alpha = hn::Set(d, p.alpha);
  float* c = p.c + row * p.c_row + column;
  for (std::size_t r = 0; r < Rows; ++r, c += p.c_row) {
    for (std::size_t v = 0; v < Vectors; ++v) {
      const auto before = p.accumulate ? hn::LoadU(d, c + v * lanes) : hn::Zero(d);
      hn::StoreU(hn::MulAdd(alpha, sums[r][v], before), d, c + v * lanes);
    }
  }
}

template <std::size_t Rows>
HWY_NOINLINE void multiply_rows(const ShortProduct& p, std::int64_t row) {
  const hn::ScalableTag<float> d;
  const hn::CappedTag<float, 1> one;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  std::int64_t column = 0;
  for (; column + 2 * lanes <= p.n; column += 2 * lanes) multiply_part<Rows, 2>(d, p, row, column);
  for (; column + lanes <= p.n; column += lanes) multiply_part<Rows, 1>(d, p, row, column);
  for (; column < p.n; ++column) multiply_part<Rows, 1>(one, p, row, column);
}

void multiply_short(const ShortProduct& p) {
  std::int64_t row = 0;
  for (; row + 4 <= p.m; row += 4) multiply_rows<4>(p, row);
  for (; row < p.m; ++row) multiply_rows<1>(p, row);
}

}  // namespace instruct::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace instruct::kernels::cpu {

HWY_EXPORT(multiply_short);

void short_product(const ShortProduct& product) {
  HWY_DYNAMIC_DISPATCH(multiply_short)(product);
}

}  // namespace instruct::kernels::cpu
#endif  // HWY_ONCE
