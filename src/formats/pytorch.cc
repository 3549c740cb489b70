#include "formats/pytorch.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "formats/pickle.h"
#include "formats/zip.h"

namespace instruct::formats {
namespace {

// The elements that sizes and strides reach, 0 for an empty tensor; -1 where a number is out of range or there are more
// elements than a storage of `most` holds.
std::int64_t reach_of(const PytorchFile::Entry& entry, std::int64_t most) {
  constexpr std::int64_t kMost = std::int64_t{1} << 48;
  std::int64_t reach = 1;
  std::int64_t elements = 1;
  for (std::size_t i = 0; i < entry.sizes.size(); ++i) {
    const std::int64_t size = entry.sizes[i];
    const std::int64_t stride = entry.strides[i];
    if (size < 0 || stride < 0 || size > kMost || stride > kMost) return -1;
    std::int64_t more = 0;
    if (__builtin_mul_overflow(std::max<std::int64_t>(size - 1, 0), stride, &more) ||
        __builtin_add_overflow(reach, more, &reach) ||
        __builtin_mul_overflow(elements, std::max<std::int64_t>(size, 1), &elements) || elements > kMost)
      return -1;
  }
  if (std::find(entry.sizes.begin(), entry.sizes.end(), 0) != entry.sizes.end()) return 0;
  return elements > most ? -1 : reach;
}

PytorchFile::Entry entry_of(const Pickle& pickle, const PickleObject& tensor, const std::string& folder,
                            const std::map<std::string, std::span<const std::byte>>& archive) {
  const auto fail = [](const std::string& what) { raise(ErrorCategory::kBadData, "{}", what); };
  const PickleObject& storage = pickle.objects[tensor.items[0]];
  const auto stored = archive.find(folder + "data/" + storage.key);
  if (stored == archive.end()) fail(fmt::format("its storage 'data/{}' is missing", storage.key));
  PytorchFile::Entry entry{.type = find_storage(storage.text)->name,
                           .bytes = stored->second,
                           .offset = tensor.offset,
                           .sizes = tensor.sizes,
                           .strides = tensor.strides};
  if (entry.sizes.size() != entry.strides.size())
    fail(fmt::format("{} sizes beside {} strides", entry.sizes.size(), entry.strides.size()));
  const std::int64_t elements = static_cast<std::int64_t>(entry.bytes.size()) / find_storage(storage.text)->bytes;
  const std::int64_t reach = reach_of(entry, elements);
  if (reach < 0 || entry.offset < 0 || entry.offset > elements || reach > elements - entry.offset)
    fail(fmt::format("reaches beyond the {} elements of its storage 'data/{}'", elements, storage.key));
  return entry;
}

// Elements in order, row by row, `bytes` each.
void copy_strided(const PytorchFile::Entry& entry, std::size_t bytes, std::size_t dimension, std::int64_t at,
                  std::byte*& target) {
  if (dimension == entry.sizes.size()) {
    std::memcpy(target, entry.bytes.data() + static_cast<std::size_t>(at) * bytes, bytes);
    target += bytes;
    return;
  }
  for (std::int64_t i = 0; i < entry.sizes[dimension]; ++i)
    copy_strided(entry, bytes, dimension + 1, at + i * entry.strides[dimension], target);
}

bool is_contiguous(const PytorchFile::Entry& entry) {
  std::int64_t expected = 1;
  for (std::size_t i = entry.sizes.size(); i-- > 0;) {
    if (entry.sizes[i] != 1 && entry.strides[i] != expected) return false;
    expected *= std::max<std::int64_t>(entry.sizes[i], 1);
  }
  return true;
}

}  // namespace

std::shared_ptr<const PytorchFile> PytorchFile::open(const std::filesystem::path& path) {
  const auto mapped = MappedFile::open(path);
  const auto file = std::const_pointer_cast<PytorchFile>(parse(mapped->bytes(), path.string(), mapped));
  file->map_ = mapped;
  return file;
}

std::shared_ptr<const PytorchFile> PytorchFile::parse(std::span<const std::byte> bytes, std::string origin,
                                                      std::shared_ptr<const void> owner) {
  std::shared_ptr<PytorchFile> file(new PytorchFile);
  file->origin_ = std::move(origin);
  file->owner_ = std::move(owner);
  if (!bytes.empty() &&
      (bytes[0] == std::byte{0x80} || (bytes.size() > 262 && std::memcmp(bytes.data() + 257, "ustar", 5) == 0)))
    raise(ErrorCategory::kUnsupported,
          "{}: written by PyTorch before 1.6; load and save it once with a newer one, or save it as safetensors",
          file->origin_);
  const auto archive = zip_entries(bytes, file->origin_);
  const std::string_view pickle_name = "data.pkl";
  const auto pickle = std::find_if(archive.begin(), archive.end(), [&](const auto& entry) {
    return entry.first == pickle_name || entry.first.ends_with("/data.pkl");
  });
  if (pickle == archive.end())
    raise(ErrorCategory::kBadData, "{}: the archive has no data.pkl: torch.save did not write it", file->origin_);
  const std::string folder = pickle->first.substr(0, pickle->first.size() - pickle_name.size());
  if (const auto order = archive.find(folder + "byteorder"); order != archive.end()) {
    const std::string_view text(reinterpret_cast<const char*>(order->second.data()), order->second.size());
    if (text != "little")
      raise(ErrorCategory::kUnsupported, "{}: its numbers are stored in another order of bytes", file->origin_);
  }
  const Pickle made = read_pickle(pickle->second, file->origin_);
  const PickleObject& root = made.objects[made.root];
  if (root.kind != PickleObject::Kind::kDict)
    raise(ErrorCategory::kUnsupported, "{}: holds no dict of tensors", file->origin_);
  for (std::size_t i = 0; i < root.items.size(); i += 2) {
    const PickleObject& key = made.objects[root.items[i]];
    const PickleObject& value = made.objects[root.items[i + 1]];
    if (key.kind != PickleObject::Kind::kText || value.kind != PickleObject::Kind::kTensor) {
      raise(ErrorCategory::kUnsupported, "{}: item {} ('{}') is no tensor: a plain state dict is expected",
            file->origin_, i / 2, key.text);
    }
    try {
      file->entries_.insert_or_assign(key.text, entry_of(made, value, folder, archive));
    } catch (const Error& error) {
      raise(ErrorCategory::kBadData, "{}: tensor '{}': {}", file->origin_, key.text, error.what());
    }
  }
  return file;
}

std::vector<std::string> PytorchFile::names() const {
  std::vector<std::string> names;
  for (const auto& [name, entry] : entries_) names.push_back(name);
  return names;
}

tensor::Tensor PytorchFile::tensor(const std::string& name) const {
  const auto found = entries_.find(name);
  if (found == entries_.end()) raise(ErrorCategory::kNotFound, "{}: tensor '{}' is missing", origin_, name);
  const Entry& entry = found->second;
  const StorageType& type = *find_storage(entry.type);
  if (!type.dtype)
    raise(ErrorCategory::kUnsupported, "{}: tensor '{}' is of {}, which this program cannot compute with", origin_,
          name, type.name);
  std::vector<std::int64_t> sizes = entry.sizes;
  if (sizes.empty()) sizes.push_back(1);
  const tensor::Shape shape{std::span<const std::int64_t>(sizes)};
  const std::byte* data = entry.bytes.data() + entry.offset * type.bytes;
  const bool aligned = reinterpret_cast<std::uintptr_t>(data) % static_cast<std::uintptr_t>(type.bytes) == 0;
  if (shape.elements() == 0 || (aligned && is_contiguous(entry)))
    return tensor::Tensor::borrow(data, shape, *type.dtype, owner_);
  const auto copy = std::make_shared<std::vector<std::byte>>(static_cast<std::size_t>(shape.elements() * type.bytes));
  std::byte* target = copy->data();
  copy_strided(entry, static_cast<std::size_t>(type.bytes), 0, entry.offset, target);
  return tensor::Tensor::borrow(copy->data(), shape, *type.dtype, copy);
}

void PytorchFile::read_ahead() const {
  if (map_ != nullptr) map_->read_ahead();
}

void PytorchFile::release() const {
  if (map_ != nullptr) map_->release();
}

}  // namespace instruct::formats
