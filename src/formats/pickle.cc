#include "formats/pickle.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <utility>

#include "base/error.h"
#include "tensor/tensor.h"

namespace instruct::formats {
namespace {

using tensor::DType;
using Object = PickleObject;

constexpr StorageType kStorageTypes[] = {
    {"FloatStorage", 4, DType::kF32},  {"HalfStorage", 2, DType::kF16}, {"BFloat16Storage", 2, DType::kBF16},
    {"LongStorage", 8, DType::kI64},   {"IntStorage", 4, DType::kI32},  {"CharStorage", 1, DType::kI8},
    {"ByteStorage", 1, DType::kU8},    {"BoolStorage", 1, DType::kU8},  {"DoubleStorage", 8, std::nullopt},
    {"ShortStorage", 2, std::nullopt},
};

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

constexpr const char* kOrderedDict = "collections.OrderedDict";
constexpr const char* kTensor = "torch._utils._rebuild_tensor_v2";
constexpr const char* kParameter = "torch._utils._rebuild_parameter";

class Unpickler {
 public:
  Unpickler(std::span<const std::byte> bytes, const std::string& origin) : bytes_(bytes), origin_(origin) {}

  Pickle run() {
    while (true) {
      const std::size_t at = at_;
      const auto opcode = number<std::uint8_t>();
      if (opcode == kStop) {
        const std::uint32_t root = pop();
        return {std::move(objects_), root};
      }
      execute(opcode, at);
    }
  }

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

}  // namespace

const StorageType* find_storage(std::string_view name) {
  const auto* found = std::find_if(std::begin(kStorageTypes), std::end(kStorageTypes),
                                   [&](const StorageType& type) { return type.name == name; });
  return found == std::end(kStorageTypes) ? nullptr : found;
}

Pickle read_pickle(std::span<const std::byte> bytes, const std::string& origin) {
  return Unpickler(bytes, origin).run();
}

}  // namespace instruct::formats
