// A dynamic document value (null, bool, integer, float, string, array, object), what JSON and YAML parse into.
//
// Objects keep insertion order. Every value remembers the line and column it was read at (0 when unknown), so that
// checks made later can still point at the source.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace instruct {

struct Mark {
  int line = 0;    // 1-based; 0 means unknown
  int column = 0;  // 1-based
};

class Value {
 public:
  using Array = std::vector<Value>;
  using Member = std::pair<std::string, Value>;
  using Object = std::vector<Member>;
  enum class Kind { kNull, kBool, kInteger, kFloat, kString, kArray, kObject };

  Value() = default;
  Value(std::nullptr_t) {}                                      // NOLINT(google-explicit-constructor)
  Value(bool value) : data_(value) {}                           // NOLINT(google-explicit-constructor)
  Value(int value) : data_(std::int64_t{value}) {}              // NOLINT(google-explicit-constructor)
  Value(std::int64_t value) : data_(value) {}                   // NOLINT(google-explicit-constructor)
  Value(double value) : data_(value) {}                         // NOLINT(google-explicit-constructor)
  Value(const char* value) : data_(std::string(value)) {}       // NOLINT(google-explicit-constructor)
  Value(std::string value) : data_(std::move(value)) {}         // NOLINT(google-explicit-constructor)
  Value(std::string_view value) : data_(std::string(value)) {}  // NOLINT(google-explicit-constructor)
  Value(Array value) : data_(std::move(value)) {}               // NOLINT(google-explicit-constructor)
  Value(Object value) : data_(std::move(value)) {}              // NOLINT(google-explicit-constructor)
  static Value array() { return Value(Array{}); }
  static Value object() { return Value(Object{}); }
  static Value object(std::initializer_list<Member> members) { return Value(Object(members)); }

  Kind kind() const { return static_cast<Kind>(data_.index()); }
  bool is_null() const { return kind() == Kind::kNull; }
  bool is_bool() const { return kind() == Kind::kBool; }
  bool is_integer() const { return kind() == Kind::kInteger; }
  bool is_number() const { return kind() == Kind::kInteger || kind() == Kind::kFloat; }
  bool is_string() const { return kind() == Kind::kString; }
  bool is_array() const { return kind() == Kind::kArray; }
  bool is_object() const { return kind() == Kind::kObject; }

  // Typed access. Each raises BadData naming the kind found when it is another one (as_double accepts integers,
  // as_integer accepts floats without a fraction).
  bool as_bool() const;
  std::int64_t as_integer() const;
  double as_double() const;
  const std::string& as_string() const;
  const Array& as_array() const;
  Array& as_array();
  const Object& as_object() const;
  Object& as_object();

  // Member `key` of an object, or nullptr when absent or when this is no object.
  const Value* find(std::string_view key) const;
  Value* find(std::string_view key);
  // Member `key`; raises NotFound naming the key when absent.
  const Value& at(std::string_view key) const;
  // Sets member `key` (appended when new). A null value becomes an object first.
  Value& set(std::string_view key, Value value);
  // Appends to an array. A null value becomes an array first.
  Value& push(Value value);
  // Number of elements or members; 0 for scalars.
  std::size_t size() const;

  Mark mark() const { return mark_; }
  void set_mark(Mark mark) { mark_ = mark; }

  // Deep equality; integer 1 equals float 1.0; member order of objects does not matter.
  friend bool operator==(const Value& a, const Value& b);

 private:
  std::variant<std::monostate, bool, std::int64_t, double, std::string, Array, Object> data_;
  Mark mark_;
};

// "null", "bool", "integer", "float", "string", "array" or "object".
std::string_view kind_name(Value::Kind kind);

}  // namespace instruct
