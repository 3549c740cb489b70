// Values of the template language. Strings remember, run by run, which input each character came from.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
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

 private:
  std::string chars_;
  std::vector<Run> runs_;
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
};
// A namespace() object: the one value templates may change.
struct Namespace {
  std::vector<std::pair<std::string, Data>> members;
};

class Data {
 public:
  using Variant = std::variant<Undefined, None, bool, std::int64_t, double, Text, std::shared_ptr<List>,
                               std::shared_ptr<Dict>, std::shared_ptr<Callable>, std::shared_ptr<Namespace>>;
  Data() : value_(None{}) {}
  Data(Undefined value) : value_(std::move(value)) {}                     // NOLINT(google-explicit-constructor)
  Data(bool value) : value_(value) {}                                     // NOLINT(google-explicit-constructor)
  Data(std::int64_t value) : value_(value) {}                             // NOLINT(google-explicit-constructor)
  Data(double value) : value_(value) {}                                   // NOLINT(google-explicit-constructor)
  Data(Text value) : value_(std::move(value)) {}                          // NOLINT(google-explicit-constructor)
  Data(std::string value) : value_(Text(std::move(value))) {}             // NOLINT(google-explicit-constructor)
  Data(const char* value) : value_(Text(std::string(value))) {}           // NOLINT(google-explicit-constructor)
  Data(List value) : value_(std::make_shared<List>(std::move(value))) {}  // NOLINT(google-explicit-constructor)
  Data(Dict value) : value_(std::make_shared<Dict>(std::move(value))) {}  // NOLINT(google-explicit-constructor)
  Data(std::shared_ptr<Callable> value) : value_(std::move(value)) {}     // NOLINT(google-explicit-constructor)
  Data(std::shared_ptr<Namespace> value) : value_(std::move(value)) {}    // NOLINT(google-explicit-constructor)

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
  const List* list() const;
  const Dict* dict() const;
  bool is_undefined() const { return get<Undefined>() != nullptr; }
  bool is_none() const { return get<None>() != nullptr; }
  bool is_number() const {
    return get<std::int64_t>() != nullptr || get<double>() != nullptr || get<bool>() != nullptr;
  }
  const Variant& variant() const { return value_; }
  // Member of an object by text key, or nullptr.
  const Data* find(std::string_view key) const;

 private:
  Variant value_;
};

// Python's rules: truth of a value, equality, str(), repr(), and the name of its type.
bool truth(const Data& value);
bool equal(const Data& a, const Data& b);
Text to_text(const Data& value);
Text to_repr(const Data& value);
std::string type_of(const Data& value);
double as_double(const Data& number);
// JSON as Python's json.dumps(ensure_ascii=False); indent below 0 means one line.
Text to_json(const Data& value, int indent, std::string_view item_separator, std::string_view key_separator,
             bool sort_keys);

}  // namespace instruct::templates
