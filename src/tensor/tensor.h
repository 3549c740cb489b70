// Tensor: a typed, strided view of shared storage. No arithmetic lives here.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "tensor/allocator.h"
#include "tensor/dtype.h"

namespace instruct::tensor {

inline constexpr int kMaxRank = 4;

// Dimensions, outermost first. Products are 64-bit and checked by make_shape().
class Shape {
 public:
  Shape() = default;
  Shape(std::initializer_list<std::int64_t> dims);
  explicit Shape(std::span<const std::int64_t> dims);
  int rank() const { return rank_; }
  std::int64_t operator[](int axis) const { return dims_[static_cast<std::size_t>(axis)]; }
  std::int64_t elements() const;
  std::string text() const;  // "[2, 3]"
  friend bool operator==(const Shape& a, const Shape& b);

 private:
  std::array<std::int64_t, kMaxRank> dims_{};
  int rank_ = 0;
};

class Tensor {
 public:
  Tensor() = default;
  // Contiguous, content undefined.
  static Tensor empty(const Shape& shape, DType dtype, Allocator& allocator);
  static Tensor zeros(const Shape& shape, DType dtype, Allocator& allocator);
  // A contiguous tensor over bytes somebody else owns (a memory map). `owner` is kept alive.
  static Tensor borrow(const void* data, const Shape& shape, DType dtype, std::shared_ptr<const void> owner);
  static Tensor from_floats(std::span<const float> values, const Shape& shape, Allocator& allocator);

  bool defined() const { return storage_ != nullptr; }
  const Shape& shape() const { return shape_; }
  int rank() const { return shape_.rank(); }
  // Negative axes count from the end.
  std::int64_t dim(int axis) const { return shape_[axis < 0 ? axis + shape_.rank() : axis]; }
  std::int64_t elements() const { return shape_.elements(); }
  DType dtype() const { return dtype_; }
  Device device() const { return storage_->device; }
  // Elements between neighbours along the first axis (the "leading dimension" of a matrix). The last axis is dense.
  std::int64_t row_stride() const { return row_stride_; }
  bool contiguous() const;
  std::int64_t bytes() const { return bytes_of(dtype_, elements()); }

  // Pointer to the first element; the caller promises T matches the dtype (checked).
  template <typename T>
  T* data() {
    check_type(sizeof(T));
    return reinterpret_cast<T*>(raw());
  }
  template <typename T>
  const T* data() const {
    check_type(sizeof(T));
    return reinterpret_cast<const T*>(raw());
  }
  std::byte* raw() { return storage_->data + offset_bytes_; }
  const std::byte* raw() const { return storage_->data + offset_bytes_; }

  // Views sharing storage. rows(): elements [begin, end) of the first axis. columns(): of the last axis of a matrix.
  // reshape(): contiguous tensors only, same number of elements.
  Tensor rows(std::int64_t begin, std::int64_t end) const;
  Tensor columns(std::int64_t begin, std::int64_t end) const;
  Tensor reshape(const Shape& shape) const;

  // Element values as f32, row by row (tests, small tensors, plain dtypes only).
  std::vector<float> to_floats() const;
  void fill_zero();
  // True when both view the same first byte.
  bool same_data(const Tensor& other) const { return defined() && other.defined() && raw() == other.raw(); }

 private:
  void check_type(std::size_t size) const;
  std::shared_ptr<Storage> storage_;
  std::int64_t offset_bytes_ = 0;
  Shape shape_;
  std::int64_t row_stride_ = 0;
  DType dtype_ = DType::kF32;
};

}  // namespace instruct::tensor
