// The subset of JSON Schema that outputs can have: enforced while decoding (json_automaton.h) and checked on rows.
//
// Known: type (one or several), properties, required, additionalProperties, items, minItems, maxItems, uniqueItems,
// minLength, maxLength, minimum, maximum, enum, const, anyOf (oneOf means the same). Annotations ($schema, title,
// description, default, examples) are ignored; anything else is refused, so that no rule is silently dropped.
//
// One difference from the standard: an object that lists properties and says nothing of additionalProperties allows no
// others. A model that is free to invent keys does.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/value.h"

namespace instruct::instructions {

enum class SchemaKind { kAny, kObject, kArray, kString, kNumber, kBoolean, kNull, kEnum, kAnyOf };

// One schema; children are indices into JsonSchema::nodes().
struct SchemaNode {
  struct Property {
    std::string name;
    std::size_t node = 0;
    bool required = false;
  };
  SchemaKind kind = SchemaKind::kAny;
  std::vector<Property> properties;       // object
  std::optional<std::size_t> additional;  // object: schema of other members; nullopt when there may be none
  std::size_t items = 0;                  // array
  std::int64_t min_items = 0;
  std::int64_t max_items = kUnbounded;
  bool unique = false;
  std::int64_t min_length = 0;  // string, in code points
  std::int64_t max_length = kUnbounded;
  bool integer = false;  // number
  std::optional<double> minimum, maximum;
  std::vector<Value> values;              // enum: scalars
  std::vector<std::size_t> alternatives;  // anyOf

  static constexpr std::int64_t kUnbounded = std::int64_t{1} << 40;
};

struct SchemaProblem {
  Mark mark;
  std::string message;
};

class JsonSchema {
 public:
  // At most this many properties in one object, and this deep.
  static constexpr std::size_t kMaxProperties = 64;
  static constexpr int kMaxDepth = 24;
  static constexpr std::size_t kMaxNodes = 4096;
  static constexpr std::int64_t kMaxNameCharacters = 200;

  // Anything goes.
  JsonSchema();
  // Compiles a schema; everything wrong with it is appended to `problems`, and what is left is still usable.
  JsonSchema(const Value& schema, std::vector<SchemaProblem>& problems);
  // A schema made of ready nodes; node 0 is the root.
  explicit JsonSchema(std::vector<SchemaNode> nodes) : nodes_(std::move(nodes)) {}

  const std::vector<SchemaNode>& nodes() const { return nodes_; }
  const SchemaNode& root() const { return nodes_.front(); }

  // What is wrong with a value ("/name: expected a string, got integer"), or nullopt when it fits.
  std::optional<std::string> mismatch(const Value& value) const;

 private:
  std::vector<SchemaNode> nodes_;
};

}  // namespace instruct::instructions
