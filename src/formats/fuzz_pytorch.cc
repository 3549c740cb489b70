// Any bytes as a file of torch.save: refused with an error of the reader's own, or every byte of every tensor can be
// touched.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

#include "base/error.h"
#include "formats/pytorch.h"

namespace {

namespace formats = instruct::formats;
using instruct::Error;
using instruct::ErrorCategory;

void touch(const formats::PytorchFile& file) {
  for (const std::string& name : file.names()) {
    try {
      const instruct::tensor::Tensor tensor = file.tensor(name);
      std::uint8_t sum = 0;
      for (std::int64_t i = 0; i < tensor.bytes(); ++i)
        sum = static_cast<std::uint8_t>(sum + static_cast<std::uint8_t>(tensor.raw()[i]));
      static_cast<void>(sum);
    } catch (const Error& error) {
      INSTRUCT_CHECK(error.category() == ErrorCategory::kUnsupported);
    }
  }
}

template <typename T>
void put(std::string& archive, T value) {
  archive.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

// An archive with this pickle and one storage of 16 bytes.
std::string archive_of(std::string_view pickle) {
  std::string archive;
  std::string directory;
  for (const auto& [name, content] : {std::pair<std::string_view, std::string_view>{"m/data.pkl", pickle},
                                      std::pair<std::string_view, std::string_view>{"m/data/0", "0123456789abcdef"}}) {
    const auto size = static_cast<std::uint32_t>(content.size());
    const auto length = static_cast<std::uint16_t>(name.size());
    const auto at = static_cast<std::uint32_t>(archive.size());
    put<std::uint32_t>(archive, 0x04034b50);
    archive.append(14, '\0');
    put(archive, size);
    put(archive, size);
    put(archive, length);
    archive.append(2, '\0');
    archive.append(name).append(content);
    put<std::uint32_t>(directory, 0x02014b50);
    directory.append(16, '\0');
    put(directory, size);
    put(directory, size);
    put(directory, length);
    directory.append(12, '\0');
    put(directory, at);
    directory.append(name);
  }
  const auto begin = static_cast<std::uint32_t>(archive.size());
  archive += directory;
  put<std::uint32_t>(archive, 0x06054b50);
  archive.append(6, '\0');
  put<std::uint16_t>(archive, 2);
  put(archive, static_cast<std::uint32_t>(directory.size()));
  put(archive, begin);
  put<std::uint16_t>(archive, 0);
  return archive;
}

}  // namespace

// The input is the pickle, or with a first byte of '#' what follows is the whole archive.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const bool whole = input.starts_with('#');
  const auto owner = std::make_shared<const std::string>(whole ? std::string(input.substr(1)) : archive_of(input));
  try {
    touch(*formats::PytorchFile::parse(std::as_bytes(std::span(*owner)), "fuzz", owner));
  } catch (const Error& error) {
    INSTRUCT_CHECK(error.category() == ErrorCategory::kBadData || error.category() == ErrorCategory::kUnsupported);
  }
  return 0;
}

// Seeds the search with the pickle of a dict of one tensor, as it is or in its archive.
extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t max_size);
extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t max_size,
                                               unsigned int seed) {
  static constexpr std::string_view kPickle(
      "\x80\x02}q\0X\1\0\0\0wq\1ctorch._utils\n_rebuild_tensor_v2\nq\2((X\7\0\0\0storageq\3ctorch\nFloatStorage\nq\4"
      "X\1\0\0\0"
      "0q\5X\3\0\0\0cpuq\6K\4tq\7QK\0K\2K\2\x86q\x08K\2K\1\x86q\t\x89"
      "ccollections\nOrderedDict\nq\n)Rq\x0btq"
      "\x0cRq\rs.",
      166);
  if (size < 8) {
    const std::string start = seed % 2 == 0 ? std::string(kPickle) : "#" + archive_of(kPickle);
    if (start.size() <= max_size) {
      std::memcpy(data, start.data(), start.size());
      size = start.size();
    }
  }
  return LLVMFuzzerMutate(data, size, max_size);
}
