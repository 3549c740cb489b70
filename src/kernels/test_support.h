// What the kernel tests share: streams, tensors with gaps between their rows, comparison with a derived tolerance.
#pragma once

#include <fmt/core.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "base/random.h"
#include "kernels/amx_emulation.h"
#include "kernels/kernels.h"

namespace instruct::kernels::testing {

using tensor::BFloat16;
using tensor::DType;
using tensor::Shape;
using tensor::Tensor;

// Threads, memory and prepared products of one test.
struct Machine {
  explicit Machine(int threads, const CpuFeatures& features = detect_cpu_features())
      : pool(threads),
        allocator(tensor::make_host_allocator()),
        products(cpu::make_product_cache(features)),
        stream{pool, *allocator, products.get()} {}
  ThreadPool pool;
  std::shared_ptr<tensor::Allocator> allocator;
  std::unique_ptr<ProductCache> products;
  Stream stream;
};

// One machine each of 1, 2 and 3 threads: results must be equal to the bit.
inline std::vector<std::unique_ptr<Machine>> three_machines(const CpuFeatures& features = detect_cpu_features()) {
  std::vector<std::unique_ptr<Machine>> machines;
  for (const int threads : {1, 2, 3}) machines.push_back(std::make_unique<Machine>(threads, features));
  return machines;
}

// What matrix products can run on here: AMX (in software where the processor lacks it, but has AVX-512 bf16),
// everything without AMX, and without bf16.
inline std::vector<CpuFeatures> product_features() {
  std::vector<CpuFeatures> choices;
  CpuFeatures features = detect_cpu_features();
  features.amx_bf16 = features.avx512_bf16 && emulate_amx();
  if (features.amx_bf16) choices.push_back(features);
  features.amx_bf16 = false;
  if (features.avx512_bf16) choices.push_back(features);
  features.avx512_bf16 = false;
  choices.push_back(features);
  return choices;
}
inline std::string product_name(const CpuFeatures& features) {
  if (features.amx_bf16) return "Amx";
  return features.avx512_bf16 ? "Registers" : "OneDnn";
}

// Calls body(name) once for every instruction set of this binary that this processor has, down to the scalar fallback,
// with the kernels limited to it. Defined in kernels_test.cc.
void for_each_target(const std::function<void(const char* name)>& body);

// How a tensor lies in memory: dense, or as a window of wider rows (stride above width, first element not at the
// start).
enum class Layout { kDense, kGaps };

// A tensor and the storage around it. The bytes outside the view hold a pattern that no kernel may change.
struct Operand {
  Tensor whole;
  Tensor view;
};

inline constexpr std::int64_t kGapBefore = 3;
inline constexpr std::int64_t kGapAfter = 5;

inline void set_element(Tensor& x, std::int64_t index, float value) {
  if (x.dtype() == DType::kBF16) {
    x.data<BFloat16>()[index] = tensor::to_bfloat16(value);
  } else {
    x.data<float>()[index] = value;
  }
}

inline Operand make_operand(const Shape& shape, DType dtype, Layout layout, tensor::Allocator& allocator) {
  Operand made;
  if (layout == Layout::kDense || shape.rank() != 2) {
    made.whole = Tensor::empty(shape, dtype, allocator);
    made.view = made.whole;
  } else {
    made.whole = Tensor::empty({shape[0], shape[1] + kGapBefore + kGapAfter}, dtype, allocator);
    made.view = made.whole.columns(kGapBefore, kGapBefore + shape[1]);
  }
  for (std::int64_t i = 0; i < made.whole.elements(); ++i) set_element(made.whole, i, -77.0F);
  return made;
}

// Fills with values uniform in centre +- spread, rounded to the dtype.
inline void fill_uniform(Tensor& x, RandomStream& random, float centre, float spread) {
  const std::int64_t width = x.elements() == 0 ? 0 : x.elements() / x.dim(0);
  for (std::int64_t i = 0; i < x.elements(); ++i) {
    const auto unit = static_cast<float>(2 * random.next_uniform() - 1);
    set_element(x, i / width * x.row_stride() + i % width, centre + spread * unit);
  }
}

inline Operand copy_of(const Operand& source, tensor::Allocator& allocator) {
  Operand made;
  made.whole = Tensor::empty(source.whole.shape(), source.whole.dtype(), allocator);
  if (source.whole.bytes() > 0) {
    std::memcpy(made.whole.raw(), source.whole.raw(), static_cast<std::size_t>(source.whole.bytes()));
  }
  const bool gaps = source.whole.shape().rank() == 2 && source.whole.dim(1) != source.view.dim(1);
  made.view = gaps ? made.whole.columns(kGapBefore, kGapBefore + source.view.dim(1)) : made.whole;
  return made;
}

inline bool same_bytes(const Tensor& a, const Tensor& b) {
  return a.bytes() == b.bytes() &&
         (a.bytes() == 0 || std::memcmp(a.raw(), b.raw(), static_cast<std::size_t>(a.bytes())) == 0);
}

// True when everything outside the view still holds the pattern of make_operand.
inline bool gaps_untouched(const Operand& operand) {
  if (operand.whole.shape() == operand.view.shape()) return true;
  const std::vector<float> values = operand.whole.to_floats();
  const std::int64_t width = operand.whole.dim(1);
  for (std::int64_t i = 0; i < operand.whole.elements(); ++i) {
    const std::int64_t column = i % width;
    const bool inside = column >= kGapBefore && column < width - kGapAfter;
    if (!inside && values[static_cast<std::size_t>(i)] != -77.0F) return false;
  }
  return true;
}

// Error allowed between two computations of the same values, each rounded to the output's dtype at the end.
//
// absolute: bound on the arithmetic error, the same for all elements: (roundings) x 2^-24 x (magnitude of the terms).
// relative: bound on the arithmetic error relative to the value, in units of 2^-24.
// On top comes the rounding of the output: values that differ by a little can round to neighbours, which lie up to
// 2^-23 (f32) or 2^-7 (bf16) of their size apart; below the smallest normal number the spacing is constant.
struct Bound {
  double relative = 0;
  double absolute = 0;
};

inline constexpr double kUnit = 0x1p-24;  // half the spacing of f32 numbers near 1

// Rounding errors of a sum of n terms are independent enough to grow with the square root of n; four standard
// deviations of a uniform error (1/sqrt(3) units) per addition, and a handful of operations around it.
inline double sum_units(std::int64_t n) {
  return 8 + 2.5 * std::sqrt(static_cast<double>(n));
}

inline double allowed_error(double expected, DType dtype, const Bound& bound) {
  const double spacing = dtype == DType::kBF16 ? 0x1p-7 : 0x1p-23;
  return bound.absolute + std::abs(expected) * (bound.relative * kUnit + spacing) + 0x1p-126 * spacing;
}

// The first element that is off by more than the bound, as text; empty when all are within it. NaN equals NaN only,
// infinities equal only themselves.
inline std::string mismatch(const Tensor& actual, const Tensor& expected, const Bound& bound) {
  if (!(actual.shape() == expected.shape())) return "shapes " + actual.shape().text() + ", " + expected.shape().text();
  const std::vector<float> a = actual.to_floats();
  const std::vector<float> e = expected.to_floats();
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (std::isnan(a[i]) && std::isnan(e[i])) continue;
    if (a[i] == e[i]) continue;
    const double error = std::abs(static_cast<double>(a[i]) - static_cast<double>(e[i]));
    const double allowed = allowed_error(static_cast<double>(e[i]), actual.dtype(), bound);
    if (std::isfinite(e[i]) && error <= allowed) continue;  // false for NaN
    return fmt::format("element {} is {}, expected {}, error {:.3g}, allowed {:.3g}", i, a[i], e[i], error, allowed);
  }
  return "";
}

}  // namespace instruct::kernels::testing
