#include "tensor/tensor.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"

namespace instruct::tensor {

Shape::Shape(std::initializer_list<std::int64_t> dims) : Shape(std::span(dims.begin(), dims.size())) {}

Shape::Shape(std::span<const std::int64_t> dims) : rank_(static_cast<int>(dims.size())) {
  INSTRUCT_CHECK(dims.size() <= kMaxRank);
  std::int64_t product = 1;
  for (std::size_t i = 0; i < dims.size(); ++i) {
    INSTRUCT_CHECK(dims[i] >= 0 && !__builtin_mul_overflow(product, std::max<std::int64_t>(1, dims[i]), &product));
    dims_[i] = dims[i];
  }
}

std::int64_t Shape::elements() const {
  std::int64_t product = 1;
  for (int i = 0; i < rank_; ++i) product *= dims_[static_cast<std::size_t>(i)];
  return product;
}

std::string Shape::text() const {
  std::string result = "[";
  for (int i = 0; i < rank_; ++i) result += fmt::format("{}{}", i > 0 ? ", " : "", dims_[static_cast<std::size_t>(i)]);
  return result + "]";
}

bool operator==(const Shape& a, const Shape& b) {
  return a.rank_ == b.rank_ && std::equal(a.dims_.begin(), a.dims_.begin() + a.rank_, b.dims_.begin());
}

namespace {

std::int64_t elements_per_row(const Shape& shape) {
  return shape.rank() == 0 || shape[0] == 0 ? (shape.rank() == 2 ? shape[1] : 1) : shape.elements() / shape[0];
}

}  // namespace

Tensor Tensor::empty(const Shape& shape, DType dtype, Allocator& allocator) {
  Tensor tensor;
  tensor.storage_ = allocator.allocate(bytes_of(dtype, shape.elements()));
  tensor.shape_ = shape;
  tensor.dtype_ = dtype;
  tensor.row_stride_ = elements_per_row(shape);
  return tensor;
}

Tensor Tensor::zeros(const Shape& shape, DType dtype, Allocator& allocator) {
  Tensor tensor = empty(shape, dtype, allocator);
  std::memset(tensor.raw(), 0, static_cast<std::size_t>(tensor.bytes()));
  return tensor;
}

Tensor Tensor::borrow(const void* data, const Shape& shape, DType dtype, std::shared_ptr<const void> owner) {
  Tensor tensor;
  // Borrowed bytes are only ever read: whoever writes makes a copy first.
  tensor.storage_ =
      std::make_shared<Storage>(Storage{static_cast<std::byte*>(const_cast<void*>(data)),
                                        bytes_of(dtype, shape.elements()), Device::kCpu, std::move(owner)});
  tensor.shape_ = shape;
  tensor.dtype_ = dtype;
  tensor.row_stride_ = elements_per_row(shape);
  return tensor;
}

Tensor Tensor::from_floats(std::span<const float> values, const Shape& shape, Allocator& allocator) {
  INSTRUCT_CHECK(static_cast<std::int64_t>(values.size()) == shape.elements());
  Tensor tensor = empty(shape, DType::kF32, allocator);
  if (!values.empty()) std::memcpy(tensor.raw(), values.data(), values.size_bytes());
  return tensor;
}

bool Tensor::contiguous() const {
  return row_stride_ == elements_per_row(shape_) || dim(0) <= 1;
}

Tensor Tensor::rows(std::int64_t begin, std::int64_t end) const {
  INSTRUCT_CHECK(rank() >= 1 && begin >= 0 && begin <= end && end <= dim(0));
  Tensor view = *this;
  std::array<std::int64_t, kMaxRank> dims{};
  for (int i = 0; i < rank(); ++i) dims[static_cast<std::size_t>(i)] = shape_[i];
  dims[0] = end - begin;
  view.shape_ = Shape(std::span<const std::int64_t>(dims.data(), static_cast<std::size_t>(rank())));
  view.offset_bytes_ += bytes_of(dtype_, begin * row_stride_);
  return view;
}

Tensor Tensor::columns(std::int64_t begin, std::int64_t end) const {
  INSTRUCT_CHECK(rank() == 2 && begin >= 0 && begin <= end && end <= dim(1));
  Tensor view = *this;
  view.shape_ = Shape{dim(0), end - begin};
  view.offset_bytes_ += bytes_of(dtype_, begin);
  return view;
}

Tensor Tensor::reshape(const Shape& shape) const {
  INSTRUCT_CHECK(contiguous() && shape.elements() == elements());
  Tensor view = *this;
  view.shape_ = shape;
  view.row_stride_ = elements_per_row(shape);
  return view;
}

std::vector<float> Tensor::to_floats() const {
  std::vector<float> values;
  values.reserve(static_cast<std::size_t>(elements()));
  const std::int64_t rows = rank() == 0 ? 1 : dim(0);
  const std::int64_t columns = rows == 0 ? 0 : elements() / rows;
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t c = 0; c < columns; ++c) {
      const std::int64_t i = r * row_stride_ + c;
      switch (dtype_) {
        case DType::kF32:
          values.push_back(data<float>()[i]);
          break;
        case DType::kF16:
          values.push_back(to_float(data<Half>()[i]));
          break;
        case DType::kBF16:
          values.push_back(to_float(data<BFloat16>()[i]));
          break;
        case DType::kI32:
          values.push_back(static_cast<float>(data<std::int32_t>()[i]));
          break;
        case DType::kI64:
          values.push_back(static_cast<float>(data<std::int64_t>()[i]));
          break;
        case DType::kU8:
          values.push_back(static_cast<float>(data<std::uint8_t>()[i]));
          break;
        case DType::kI8:
          values.push_back(static_cast<float>(data<std::int8_t>()[i]));
          break;
        default:
          raise(ErrorCategory::kInternal, "to_floats of a block-quantised tensor ({})", info(dtype_).name);
      }
    }
  }
  return values;
}

void Tensor::fill_zero() {
  const std::int64_t rows = rank() == 0 ? 1 : dim(0);
  if (rows == 0 || elements() == 0) return;
  const std::int64_t row_bytes = bytes_of(dtype_, elements() / rows);
  for (std::int64_t r = 0; r < rows; ++r) {
    std::memset(raw() + bytes_of(dtype_, r * row_stride_), 0, static_cast<std::size_t>(row_bytes));
  }
}

void Tensor::check_type(std::size_t size) const {
  INSTRUCT_CHECK(storage_ != nullptr && !is_quantised(dtype_) &&
                 static_cast<std::int64_t>(size) == info(dtype_).block_bytes);
}

}  // namespace instruct::tensor
