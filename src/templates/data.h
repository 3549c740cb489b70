// Values of the template language. Strings remember, run by run, which input each character came from.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/value.h"

namespace instruct::templates {

// Bytes of text and their origin: source 0 is the template itself, others are numbers the caller gave to inputs.
class Text {
 public:
  struct Run {
    std::size_t length = 0;
    int source = 0;
  };
  Text() = default;
  explicit Text(std::string chars, int source = 0);

  const std::string& chars() const { return chars_; }
  const std::vector<Run>& runs() const { return runs_; }
  std::size_t size() const { return chars_.size(); }
  void append(const Text& other);
  void append(std::string_view chars, int source);
  // Bytes [begin, end) with their origins.
  Text slice(std::size_t begin, std::size_t end) const;
  // The one source all characters share; 0 when they differ.
  int single_source() const;
  // Same bytes count, characters replaced (upper, lower): origins stay. Otherwise everything gets single_source().
  Text with_chars(std::string chars) const;
  // What |safe and |escape make: '+' escapes what is added to it. Parts of it are safe too.
  bool is_safe() const { return safe_; }
  Text marked_safe() const;

 private:
  std::string chars_;
  std::vector<Run> runs_;
  bool safe_ = false;
};

class Data;
using List = std::vector<Data>;
using Dict = std::vector<std::pair<Data, Data>>;

// Arguments of a call.
struct Arguments {
  std::vector<Data> positional;
  std::vector<std::pair<std::string, Data>> named;
};

struct Undefined {
  std::string name;
};
struct None {};
struct Callable {
  std::string name;
  std::function<Data(const Arguments&)> call;
  int depth = 0;  // of the values that `call` holds
};
// A namespace() object: the one value templates may change. And the variable of a loop, which nothing changes.
struct Namespace {
  std::vector<std::pair<std::string, Data>> members;
  bool is_loop = false;
  int depth = 0;  // of a loop's members; 0 for those that change: the renderer takes them apart at its end
};

class Data {
 public:
  using Variant = std::variant<Undefined, None, bool, std::int64_t, double, Text, std::shared_ptr<List>,
                               std::shared_ptr<Dict>, std::shared_ptr<Callable>, std::shared_ptr<Namespace>>;
  Data() : value_(None{}) {}
  Data(Undefined value) : value_(std::move(value)) {}            // NOLINT(google-explicit-constructor)
  Data(bool value) : value_(value) {}                            // NOLINT(google-explicit-constructor)
  Data(std::int64_t value) : value_(value) {}                    // NOLINT(google-explicit-constructor)
  Data(double value) : value_(value) {}                          // NOLINT(google-explicit-constructor)
  Data(Text value) : value_(std::move(value)) {}                 // NOLINT(google-explicit-constructor)
  Data(std::string value) : value_(Text(std::move(value))) {}    // NOLINT(google-explicit-constructor)
  Data(const char* value) : value_(Text(std::string(value))) {}  // NOLINT(google-explicit-constructor)
  // What holds other values raises BadData when they nest too deep: all that follows them recurses.
  Data(List value);                        // NOLINT(google-explicit-constructor)
  Data(Dict value);                        // NOLINT(google-explicit-constructor)
  Data(std::shared_ptr<Callable> value);   // NOLINT(google-explicit-constructor)
  Data(std::shared_ptr<Namespace> value);  // NOLINT(google-explicit-constructor)
  // Lists that Python tells from lists: a tuple, and what map, select and so on make, which has neither length nor
  // items and is true even when empty.
  static Data tuple(List items);
  static Data generator(List items);

  // Every string of `value` gets `source`.
  static Data from_value(const Value& value, int source = 0);
  static Data object() { return Data(Dict{}); }
  static Data array() { return Data(List{}); }
  // Sets a member of an object / appends to an array (building inputs; templates cannot).
  Data& set(std::string key, Data value);
  Data& push(Data value);

  template <typename T>
  const T* get() const {
    return std::get_if<T>(&value_);
  }
  const List* list() const;  // of any kind
  const Dict* dict() const;
  bool is_tuple() const { return list_kind_ == ListKind::kTuple; }
  bool is_generator() const { return list_kind_ == ListKind::kGenerator; }
  // 0 for a plain value, else one more than the deepest value within.
  int depth() const { return depth_; }
  bool is_undefined() const { return get<Undefined>() != nullptr; }
  bool is_none() const { return get<None>() != nullptr; }
  bool is_number() const {
    return get<std::int64_t>() != nullptr || get<double>() != nullptr || get<bool>() != nullptr;
  }
  const Variant& variant() const { return value_; }
  // Member of an object by text key, or nullptr.
  const Data* find(std::string_view key) const;

 private:
  enum class ListKind : std::uint8_t { kList, kTuple, kGenerator };
  void contain(int depth);

  Variant value_;
  int depth_ = 0;
  ListKind list_kind_ = ListKind::kList;
};

// Puts the member where its key is, or at the end.
void set_member(Dict& dict, Data key, Data value);
void set_member(Namespace& space, const std::string& name, Data value);

// Python's rules: truth of a value, equality, str(), repr(), and the name of its type.
bool truth(const Data& value);
bool equal(const Data& a, const Data& b);
Text to_text(const Data& value);
Text to_repr(const Data& value);
std::string type_of(const Data& value);
double as_double(const Data& number);
// JSON as Python's json.dumps writes it.
struct JsonForm {
  int indent = -1;  // below 0: one line
  std::string between_items = ", ";
  std::string after_key = ": ";
  bool sort_keys = false;
  bool ascii_only = false;
};
Text to_json(const Data& value, const JsonForm& form);

// The value as an integer where it is one or a boolean, as Python counts.
std::optional<std::int64_t> as_integer(const Data& value);

// Raises BadData without a place; the renderer adds it.
[[noreturn]] void fail(const std::string& message);

}  // namespace instruct::templates
