// Matrix products of a few dozen rows and columns, for which a call of oneDNN takes longer than the product itself: of
// attention over short rows. Internal to kernels/cpu.
#pragma once

#include <cstdint>

namespace instruct::kernels::cpu {

// c [m, n] = alpha * a [m, k] * b [k, n], in f32; added to what is there where `accumulate` says so. Distances between
// rows are in elements; those between columns of a too, so that it may be a transposed matrix.
struct ShortProduct {
  const float* a = nullptr;
  std::int64_t a_row = 0;
  std::int64_t a_column = 1;
  const float* b = nullptr;
  std::int64_t b_row = 0;
  float* c = nullptr;
  std::int64_t c_row = 0;
  std::int64_t m = 0, n = 0, k = 0;
  float alpha = 1;
  bool accumulate = false;
};

void short_product(const ShortProduct& product);

}  // namespace instruct::kernels::cpu
