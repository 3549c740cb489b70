// Any bytes as a GGUF file: refused with an error of the reader's own, or every key and every byte of every tensor can
// be touched.
#include <cstddef>
#include <cstdint>

#include "base/error.h"
#include "formats/gguf.h"
#include "tensor/block_codec.h"

namespace {

namespace formats = instruct::formats;
namespace tensor = instruct::tensor;
using instruct::Error;
using instruct::ErrorCategory;

void touch(const formats::GgufFile& file) {
  for (const auto& [key, value] : file.metadata()) INSTRUCT_CHECK(file.find(key) == &value);
  for (const formats::GgufTensorInfo& info : file.tensors()) {
    tensor::DType dtype{};
    if (!formats::dtype_of_ggml(info.type, dtype)) continue;
    const tensor::Tensor tensor = file.tensor(info.name);
    INSTRUCT_CHECK(tensor.bytes() == info.bytes && tensor.contiguous());
    std::uint8_t sum = 0;
    for (std::int64_t i = 0; i < tensor.bytes(); ++i)
      sum = static_cast<std::uint8_t>(sum + static_cast<std::uint8_t>(tensor.raw()[i]));
    static_cast<void>(sum);
    const bool floats = dtype != tensor::DType::kI8 && dtype != tensor::DType::kI32 && dtype != tensor::DType::kI64;
    if (!floats) continue;
    std::vector<float> values(static_cast<std::size_t>(tensor.elements()));
    tensor::decode_elements(dtype, tensor.raw(), values);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    // A copy of the exact size, aligned as a map is, so that every step past an end is seen.
    const auto owner = std::make_shared<const std::vector<std::uint8_t>>(data, data + size);
    touch(*formats::GgufFile::parse(std::as_bytes(std::span(*owner)), "fuzz", owner));
  } catch (const Error& error) {
    INSTRUCT_CHECK(error.category() == ErrorCategory::kBadData || error.category() == ErrorCategory::kUnsupported);
  }
  return 0;
}

// Seeds the search: random bytes never get past the magic. One file in two starts with a valid head and key.
extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t max_size);
extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t max_size,
                                               unsigned int /*seed*/) {
  static constexpr std::uint8_t kSeed[] = {
      'G',
      'G',
      'U',
      'F',
      3,
      0,
      0,
      0,
      1,
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      1,
      0,
      0,
      0,
      0,
      0,
      0,
      0,  // 1 tensor, 1 key
      1,
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      'k',
      9,
      0,
      0,
      0,
      8,
      0,
      0,
      0,
      1,
      0,
      0,
      0,
      0,
      0,
      0,
      0,  // an array of texts
      1,
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      'v',  // "v"
      1,
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      't',
      1,
      0,
      0,
      0,
      32,
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      8,
      0,
      0,
      0,  // t: 32 x Q8_0
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      0,  // offset,
          // padding
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      0,
  };
  if (size < 24 && max_size >= sizeof(kSeed)) {
    std::copy(std::begin(kSeed), std::end(kSeed), data);
    size = sizeof(kSeed);
  }
  return LLVMFuzzerMutate(data, size, max_size);
}
