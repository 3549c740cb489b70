// How CPU kernels cut work among threads: by size alone, so that results never depend on the number of threads.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <initializer_list>

#include "kernels/stream.h"
#include "tensor/tensor.h"

namespace instruct::kernels::cpu {

using tensor::BFloat16;
using tensor::DType;
using tensor::Tensor;

// Elements in one task: large against the cost of starting a task, small against a cache and the work of a layer.
inline constexpr std::int64_t kTaskElements = 16384;

// Calls body(T{}) with the element type of an activation: float or BFloat16.
template <typename Body>
void visit_dtype(DType dtype, Body&& body) {
  if (dtype == DType::kBF16) {
    body(BFloat16{});
  } else {
    body(float{});
  }
}

// A dense stretch of equally shaped tensors: its first element's number, its length, and where it lies in each tensor.
struct Run {
  std::int64_t first = 0;
  std::int64_t size = 0;
  std::array<std::int64_t, 5> at{};  // offsets in elements, in the order the tensors were named
};

// Cuts equally shaped tensors into dense runs of about kTaskElements and calls body(run) on all threads.
template <typename Body>
void for_runs(Stream& stream, std::initializer_list<const Tensor*> tensors, Body&& body) {
  const Tensor& shaped = **tensors.begin();
  const std::int64_t elements = shaped.elements();
  if (elements == 0) return;
  if (std::all_of(tensors.begin(), tensors.end(), [](const Tensor* x) { return x->contiguous(); })) {
    stream.threads.run_ranges(elements, kTaskElements, [&](std::int64_t begin, std::int64_t end) {
      Run run{.first = begin, .size = end - begin};
      run.at.fill(begin);
      body(run);
    });
    return;
  }
  const std::int64_t rows = shaped.dim(0);
  const std::int64_t width = elements / rows;
  const std::int64_t grain = std::max<std::int64_t>(1, kTaskElements / width);
  stream.threads.run_ranges(rows, grain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      Run run{.first = row * width, .size = width};
      std::size_t k = 0;
      for (const Tensor* x : tensors) run.at[k++] = row * x->row_stride();
      body(run);
    }
  });
}

// Calls body(begin, end) for ranges of rows that hold about kTaskElements.
template <typename Body>
void for_row_ranges(Stream& stream, std::int64_t rows, std::int64_t width, Body&& body) {
  if (rows == 0) return;
  const std::int64_t grain = std::max<std::int64_t>(1, kTaskElements / std::max<std::int64_t>(1, width));
  stream.threads.run_ranges(rows, grain, body);
}

// sums[j] += total over rows, where body(begin, end, partial) adds rows [begin, end) into partial [width], which starts
// at zero. Rows are cut into at most 64 blocks by their number alone and the blocks are summed in order.
template <typename Body>
void sum_over_rows(Stream& stream, std::int64_t rows, std::int64_t width, float* sums, Body&& body) {
  if (rows == 0 || width == 0) return;
  const std::int64_t block = std::max<std::int64_t>(16, (rows + 63) / 64);
  const std::int64_t blocks = (rows + block - 1) / block;
  const auto scratch = stream.allocator.allocate(blocks * width * static_cast<std::int64_t>(sizeof(float)));
  float* partial = reinterpret_cast<float*>(scratch->data);
  stream.threads.run(blocks, [&](std::int64_t b) {
    std::fill_n(partial + b * width, width, 0.0F);
    body(b * block, std::min(rows, (b + 1) * block), partial + b * width);
  });
  stream.threads.run_ranges(width, 1024, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t b = 0; b < blocks; ++b) {
      for (std::int64_t j = begin; j < end; ++j) {
        const float value = partial[b * width + j];
        float& first = partial[j];
        first = b == 0 ? value : first + value;
      }
    }
    for (std::int64_t j = begin; j < end; ++j) sums[j] += partial[j];
  });
}

}  // namespace instruct::kernels::cpu
