#include "formats/pytorch.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "base/error.h"
#include "formats/zip.h"

namespace instruct::formats {
namespace {

using tensor::DType;

struct StorageType {
  std::string_view name;
  std::int64_t bytes;
  std::optional<DType> dtype;  // none when this program cannot compute with it
};
constexpr StorageType kStorageTypes[] = {
    {"FloatStorage", 4, DType::kF32},  {"HalfStorage", 2, DType::kF16}, {"BFloat16Storage", 2, DType::kBF16},
    {"LongStorage", 8, DType::kI64},   {"IntStorage", 4, DType::kI32},  {"CharStorage", 1, DType::kI8},
    {"ByteStorage", 1, DType::kU8},    {"BoolStorage", 1, DType::kU8},  {"DoubleStorage", 8, std::nullopt},
    {"ShortStorage", 2, std::nullopt},
};
const StorageType* find_storage(std::string_view name) {
  const auto* found = std::find_if(std::begin(kStorageTypes), std::end(kStorageTypes),
                                   [&](const StorageType& type) { return type.name == name; });
  return found == std::end(kStorageTypes) ? nullptr : found;
}

// Opcodes of pickle (Python's Lib/pickletools.py) that a state dict is written with, up to protocol 4.
enum Opcode : std::uint8_t {
  kMark = '(',
  kStop = '.',
  kBinInt = 'J',
  kBinInt1 = 'K',
  kBinInt2 = 'M',
  kNone = 'N',
  kBinPersistentId = 'Q',
  kReduce = 'R',
  kBinUnicode = 'X',
  kAppend = 'a',
  kBuild = 'b',
  kGlobal = 'c',
  kAppends = 'e',
  kBinGet = 'h',
  kLongBinGet = 'j',
  kBinPut = 'q',
  kLongBinPut = 'r',
  kSetItem = 's',
  kTuple = 't',
  kSetItems = 'u',
  kEmptyDict = '}',
  kEmptyList = ']',
  kEmptyTuple = ')',
  kBinFloat = 'G',
  kProtocol = 0x80,
  kTuple1 = 0x85,
  kTuple2 = 0x86,
  kTuple3 = 0x87,
  kTrue = 0x88,
  kFalse = 0x89,
  kLong1 = 0x8a,
  kShortBinUnicode = 0x8c,
  kStackGlobal = 0x93,
  kMemoize = 0x94,
  kFrame = 0x95,
};

// What a pickle makes, all of it in one list: objects name others by their place, so that no nesting and no cycle of a
// hostile file costs more than its bytes.
struct Object {
  enum class Kind : std::uint8_t { kOther, kInteger, kText, kTuple, kDict, kCallable, kStorage, kTensor };
  Kind kind = Kind::kOther;
  std::int64_t integer = 0;          // or the elements of a storage
  std::string text;                  // or the callable's name, or that of a storage's type
  std::string key;                   // of a storage
  std::vector<std::uint32_t> items;  // of a tuple; of a dict keys and values in turns; of a tensor its storage
  std::int64_t offset = 0;
  std::vector<std::int64_t> sizes, strides;
};

constexpr const char* kOrderedDict = "collections.OrderedDict";
constexpr const char* kTensor = "torch._utils._rebuild_tensor_v2";
constexpr const char* kParameter = "torch._utils._rebuild_parameter";

class Unpickler {
 public:
  Unpickler(std::span<const std::byte> bytes, const std::string& origin) : bytes_(bytes), origin_(origin) {}

  // Runs to the end; what is left is the result.
  const Object& run() {
    while (true) {
      const std::size_t at = at_;
      const auto opcode = number<std::uint8_t>();
      if (opcode == kStop) return object(pop());
      execute(opcode, at);
    }
  }

  const Object& object(std::uint32_t place) const { return objects_[place]; }

 private:
  using Kind = Object::Kind;

  [[noreturn]] void fail(const std::string& what) const {
    raise(ErrorCategory::kBadData, "{}: byte {} of data.pkl: {}", origin_, at_, what);
  }

  std::span<const std::byte> take(std::uint64_t count) {
    if (bytes_.size() - at_ < count) fail("the pickle ends here");
    const auto taken = bytes_.subspan(at_, count);
    at_ += count;
    return taken;
  }
  template <typename T>
  T number() {
    T value{};
    std::memcpy(&value, take(sizeof(T)).data(), sizeof(T));
    return value;
  }
  std::string text(std::uint64_t length) {
    const auto bytes = take(length);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }
  std::string line() {
    std::string result;
    for (char c = number<char>(); c != '\n'; c = number<char>()) result += c;
    return result;
  }

  void push(Object made) {
    constexpr std::size_t kMost = 1U << 20;  // some 30 a tensor are usual
    if (objects_.size() == kMost) fail("more objects than any model has");
    stack_.push_back(static_cast<std::uint32_t>(objects_.size()));
    objects_.push_back(std::move(made));
  }
  void push(Kind kind) {
    Object made;
    made.kind = kind;
    push(std::move(made));
  }
  void push_integer(std::int64_t value) {
    Object made;
    made.kind = Kind::kInteger;
    made.integer = value;
    push(std::move(made));
  }
  void push_text(Kind kind, std::string value) {
    Object made;
    made.kind = kind;
    made.text = std::move(value);
    push(std::move(made));
  }
  // The stack above the last mark is all that may be popped.
  std::size_t floor() const { return marks_.empty() ? 0 : marks_.back(); }
  std::uint32_t pop() {
    if (stack_.size() <= floor()) fail("the stack is empty");
    const std::uint32_t place = stack_.back();
    stack_.pop_back();
    return place;
  }
  std::vector<std::uint32_t> pop_to_mark() {
    if (marks_.empty()) fail("there is no mark");
    std::vector<std::uint32_t> items(stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back()), stack_.end());
    stack_.resize(marks_.back());
    marks_.pop_back();
    return items;
  }
  void push_tuple(std::vector<std::uint32_t> items) {
    Object made;
    made.kind = Kind::kTuple;
    made.items = std::move(items);
    push(std::move(made));
  }
  void pop_tuple(std::size_t count) {
    std::vector<std::uint32_t> items(count);
    for (std::size_t i = count; i-- > 0;) items[i] = pop();
    push_tuple(std::move(items));
  }
  void put(std::uint32_t index) {
    if (stack_.size() <= floor()) fail("the stack is empty");
    memo_[index] = stack_.back();
  }
  void get(std::uint32_t index) {
    const auto found = memo_.find(index);
    if (found == memo_.end()) fail(fmt::format("memo {} was never set", index));
    stack_.push_back(found->second);
  }
  void set_items(const std::vector<std::uint32_t>& items) {
    if (stack_.size() <= floor() || objects_[stack_.back()].kind != Kind::kDict || items.size() % 2 != 0)
      fail("items are set where there is no dict");
    std::vector<std::uint32_t>& target = objects_[stack_.back()].items;
    target.insert(target.end(), items.begin(), items.end());
  }

  const Object& expect(std::uint32_t place, Kind kind, const char* what) const {
    if (objects_[place].kind != kind) fail(fmt::format("{} is expected", what));
    return objects_[place];
  }
  std::vector<std::int64_t> integers(std::uint32_t place, const char* what) const {
    std::vector<std::int64_t> values;
    const std::vector<std::uint32_t>& items = expect(place, Kind::kTuple, what).items;
    if (items.size() > tensor::kMaxRank)
      fail(fmt::format("a tensor of {} dimensions, at most {} are supported", items.size(), tensor::kMaxRank));
    for (const std::uint32_t item : items) values.push_back(expect(item, Kind::kInteger, what).integer);
    return values;
  }

  void push_global(const std::string& name) {
    const std::string_view torch = "torch.";
    const bool storage =
        name.starts_with(torch) && find_storage(std::string_view(name).substr(torch.size())) != nullptr;
    if (!storage && name != kOrderedDict && name != kTensor && name != kParameter) {
      raise(ErrorCategory::kUnsupported,
            "{}: byte {} of data.pkl names '{}', which no dict of tensors needs: nothing of it was run; save the model "
            "as safetensors where you trust it",
            origin_, at_, name);
    }
    push_text(Kind::kCallable, name);
  }

  // ('storage', type, key, device, elements)
  void push_storage() {
    const Object& id = expect(pop(), Kind::kTuple, "a storage's description");
    if (id.items.size() < 5 || expect(id.items[0], Kind::kText, "the word 'storage'").text != "storage")
      fail("a storage's description is expected");
    Object made;
    made.kind = Kind::kStorage;
    made.text = expect(id.items[1], Kind::kCallable, "a storage's type").text.substr(std::strlen("torch."));
    if (find_storage(made.text) == nullptr) fail("a storage's type is expected");
    made.key = expect(id.items[2], Kind::kText, "a storage's key").text;
    made.integer = expect(id.items[4], Kind::kInteger, "a storage's size").integer;
    push(std::move(made));
  }

  void reduce() {
    const Object& arguments = expect(pop(), Kind::kTuple, "a tuple of arguments");
    const std::string name = expect(pop(), Kind::kCallable, "a callable").text;
    if (name == kOrderedDict && arguments.items.empty()) return push(Kind::kDict);
    if (name == kParameter && !arguments.items.empty()) {
      expect(arguments.items[0], Kind::kTensor, "a tensor");
      stack_.push_back(arguments.items[0]);
      return;
    }
    if (name != kTensor || arguments.items.size() < 4) fail(fmt::format("a call of '{}' with other arguments", name));
    expect(arguments.items[0], Kind::kStorage, "a storage");
    Object made;
    made.kind = Kind::kTensor;
    made.items = {arguments.items[0]};
    made.offset = expect(arguments.items[1], Kind::kInteger, "an offset").integer;
    made.sizes = integers(arguments.items[2], "a size");
    made.strides = integers(arguments.items[3], "a stride");
    push(std::move(made));
  }

  void long_integer() {
    const auto length = number<std::uint8_t>();
    const auto bytes = take(length);
    if (length > 8) fail("an integer of more than 8 bytes");
    std::uint64_t value = 0;
    for (std::size_t i = 0; i < length; ++i) value |= std::to_integer<std::uint64_t>(bytes[i]) << (8 * i);
    if (length > 0 && length < 8 && (std::to_integer<unsigned>(bytes[length - 1U]) & 0x80U) != 0)
      value |= ~std::uint64_t{0} << (8 * length);
    push_integer(static_cast<std::int64_t>(value));
  }

  void execute(std::uint8_t opcode, std::size_t at) {
    switch (opcode) {
      case kProtocol:
        if (const auto protocol = number<std::uint8_t>(); protocol > 4)
          fail(fmt::format("protocol {} is newer than 4", protocol));
        return;
      case kFrame:
        take(8);
        return;
      case kMark:
        return marks_.push_back(stack_.size());
      case kNone:
      case kTrue:
      case kFalse:
      case kEmptyList:
        return push(Kind::kOther);
      case kBinFloat:
        take(8);
        return push(Kind::kOther);
      case kBinInt:
        return push_integer(number<std::int32_t>());
      case kBinInt1:
        return push_integer(number<std::uint8_t>());
      case kBinInt2:
        return push_integer(number<std::uint16_t>());
      case kLong1:
        return long_integer();
      case kBinUnicode:
        return push_text(Kind::kText, text(number<std::uint32_t>()));
      case kShortBinUnicode:
        return push_text(Kind::kText, text(number<std::uint8_t>()));
      case kEmptyDict:
        return push(Kind::kDict);
      case kEmptyTuple:
        return push_tuple({});
      case kTuple:
        return push_tuple(pop_to_mark());
      case kTuple1:
        return pop_tuple(1);
      case kTuple2:
        return pop_tuple(2);
      case kTuple3:
        return pop_tuple(3);
      case kBinPut:
        return put(number<std::uint8_t>());
      case kLongBinPut:
        return put(number<std::uint32_t>());
      case kMemoize:
        return put(static_cast<std::uint32_t>(memo_.size()));
      case kBinGet:
        return get(number<std::uint8_t>());
      case kLongBinGet:
        return get(number<std::uint32_t>());
      case kGlobal: {
        const std::string module = line();
        return push_global(module + "." + line());
      }
      case kStackGlobal: {
        const std::string name = expect(pop(), Kind::kText, "a name").text;
        return push_global(expect(pop(), Kind::kText, "a module").text + "." + name);
      }
      case kBinPersistentId:
        return push_storage();
      case kReduce:
        return reduce();
      case kSetItem: {
        const std::uint32_t value = pop();
        return set_items({pop(), value});
      }
      case kSetItems:
        return set_items(pop_to_mark());
      case kAppend:  // lists hold nothing that is asked for
        pop();
        return;
      case kAppends:
        pop_to_mark();
        return;
      case kBuild:  // attributes of a dict: nor do these
        pop();
        return;
      default:
        at_ = at;
        fail(fmt::format("opcode {:#04x} is not one that a dict of tensors needs", opcode));
    }
  }

  std::span<const std::byte> bytes_;
  const std::string& origin_;
  std::size_t at_ = 0;
  std::vector<Object> objects_;
  std::vector<std::uint32_t> stack_;
  std::vector<std::size_t> marks_;
  std::map<std::uint32_t, std::uint32_t> memo_;
};

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

PytorchFile::Entry entry_of(const Unpickler& pickle, const Object& tensor, const std::string& folder,
                            const std::map<std::string, std::span<const std::byte>>& archive) {
  const auto fail = [](const std::string& what) { raise(ErrorCategory::kBadData, "{}", what); };
  const Object& storage = pickle.object(tensor.items[0]);
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
  Unpickler unpickler(pickle->second, file->origin_);
  const Object& root = unpickler.run();
  if (root.kind != Object::Kind::kDict)
    raise(ErrorCategory::kUnsupported, "{}: holds no dict of tensors", file->origin_);
  for (std::size_t i = 0; i < root.items.size(); i += 2) {
    const Object& key = unpickler.object(root.items[i]);
    const Object& value = unpickler.object(root.items[i + 1]);
    if (key.kind != Object::Kind::kText || value.kind != Object::Kind::kTensor) {
      raise(ErrorCategory::kUnsupported, "{}: item {} ('{}') is no tensor: a plain state dict is expected",
            file->origin_, i / 2, key.text);
    }
    try {
      file->entries_.insert_or_assign(key.text, entry_of(unpickler, value, folder, archive));
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
  if (aligned && is_contiguous(entry)) return tensor::Tensor::borrow(data, shape, *type.dtype, owner_);
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
