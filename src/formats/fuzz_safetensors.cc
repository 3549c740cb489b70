// Any bytes as a safetensors file: refused with an error of the reader's own, or every byte of every tensor can be
// touched and the tensors fill the file.
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "base/error.h"
#include "formats/safetensors.h"

namespace {

namespace formats = instruct::formats;
namespace tensor = instruct::tensor;
using instruct::Error;
using instruct::ErrorCategory;

void touch(const formats::SafetensorsFile& file) {
  static_cast<void>(file.metadata().size());
  for (const std::string& name : file.names()) {
    try {
      const tensor::Tensor tensor = file.tensor(name);
      std::uint8_t sum = 0;
      for (std::int64_t i = 0; i < tensor.bytes(); ++i)
        sum = static_cast<std::uint8_t>(sum + static_cast<std::uint8_t>(tensor.raw()[i]));
      static_cast<void>(sum);
      if (tensor.dtype() == tensor::DType::kF32 && tensor.elements() > 0) static_cast<void>(tensor.to_floats());
    } catch (const Error& error) {
      INSTRUCT_CHECK(error.category() == ErrorCategory::kUnsupported);
    }
  }
}

}  // namespace

// The input is the header text, a zero byte, and the data: the length in front is ours, or the input would rarely have
// a right one. With a first byte of '#' the rest is the whole file.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::vector<std::uint8_t> bytes;
  if (size > 0 && data[0] == '#') {
    bytes.assign(data + 1, data + size);
  } else {
    const void* end = size > 0 ? std::memchr(data, 0, size) : nullptr;
    const std::size_t length =
        end == nullptr ? size : static_cast<std::size_t>(static_cast<const std::uint8_t*>(end) - data);
    const std::uint64_t stored = length;
    bytes.resize(8);
    std::memcpy(bytes.data(), &stored, 8);
    bytes.insert(bytes.end(), data, data + length);
    if (end != nullptr) bytes.insert(bytes.end(), data + length + 1, data + size);
  }
  try {
    const auto owner = std::make_shared<const std::vector<std::uint8_t>>(std::move(bytes));
    touch(*formats::SafetensorsFile::parse(std::as_bytes(std::span(*owner)), "fuzz", owner));
  } catch (const Error& error) {
    INSTRUCT_CHECK(error.category() == ErrorCategory::kBadData || error.category() == ErrorCategory::kUnsupported);
  }
  return 0;
}

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t max_size);
extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t max_size,
                                               unsigned int /*seed*/) {
  static constexpr char kSeed[] = R"({"t":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},"__metadata__":{"a":"b"}})"
                                  "\0datadata";
  if (size < 8 && max_size >= sizeof(kSeed) - 1) {
    std::memcpy(data, kSeed, sizeof(kSeed) - 1);
    size = sizeof(kSeed) - 1;
  }
  return LLVMFuzzerMutate(data, size, max_size);
}
