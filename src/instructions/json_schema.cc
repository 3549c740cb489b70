#include "instructions/json_schema.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/error.h"
#include "base/json.h"
#include "base/text.h"

namespace instruct::instructions {
namespace {

const std::vector<std::string>& known_keys() {
  static const std::vector<std::string> keys{"type",      "properties", "required",    "additionalProperties",
                                             "items",     "minItems",   "maxItems",    "uniqueItems",
                                             "minLength", "maxLength",  "minimum",     "maximum",
                                             "enum",      "const",      "anyOf",       "oneOf",
                                             "$schema",   "title",      "description", "default",
                                             "examples"};
  return keys;
}
const std::vector<std::string>& type_names() {
  static const std::vector<std::string> names{"object", "array", "string", "number", "integer", "boolean", "null"};
  return names;
}
// Rules of the standard that are not in the subset.
constexpr auto kUnsupported = std::to_array<std::string_view>({"pattern",
                                                               "format",
                                                               "$ref",
                                                               "$defs",
                                                               "definitions",
                                                               "allOf",
                                                               "not",
                                                               "if",
                                                               "then",
                                                               "else",
                                                               "patternProperties",
                                                               "propertyNames",
                                                               "dependentRequired",
                                                               "dependentSchemas",
                                                               "prefixItems",
                                                               "contains",
                                                               "multipleOf",
                                                               "exclusiveMinimum",
                                                               "exclusiveMaximum",
                                                               "minProperties",
                                                               "maxProperties",
                                                               "additionalItems",
                                                               "unevaluatedProperties"});

class Compiler {
 public:
  Compiler(std::vector<SchemaNode>& nodes, std::vector<SchemaProblem>& problems) : nodes_(nodes), problems_(problems) {}

  std::size_t compile(const Value& schema, int depth) {
    const std::size_t index = nodes_.size();
    nodes_.emplace_back();
    if (depth > JsonSchema::kMaxDepth || nodes_.size() > JsonSchema::kMaxNodes) {
      problem(schema, fmt::format("the schema is too deep or too large (at most {} levels, {} schemas)",
                                  JsonSchema::kMaxDepth, JsonSchema::kMaxNodes));
      return index;
    }
    if (schema.is_bool() && schema.as_bool()) return index;
    if (!schema.is_object()) {
      problem(schema, fmt::format("expected a schema such as {{type: string}}, got {}", kind_name(schema.kind())));
      return index;
    }
    check_keys(schema);
    SchemaNode node = of_keywords(schema, depth);
    nodes_[index] = std::move(node);
    return index;
  }

 private:
  void problem(const Value& at, std::string message) { problems_.push_back({at.mark(), std::move(message)}); }

  void check_keys(const Value& schema) {
    for (const auto& [key, value] : schema.as_object()) {
      if (std::find(known_keys().begin(), known_keys().end(), key) != known_keys().end()) continue;
      if (std::find(kUnsupported.begin(), kUnsupported.end(), key) != kUnsupported.end()) {
        problem(value, fmt::format("schema keyword '{}' is not supported", key));
      } else {
        problem(value, fmt::format("unknown schema keyword '{}'{}", key, did_you_mean(key, known_keys())));
      }
    }
  }

  SchemaNode of_keywords(const Value& schema, int depth) {
    if (const Value* value = schema.find("const")) return enumeration({*value}, *value);
    if (const Value* values = schema.find("enum")) {
      if (values->is_array() && values->size() > 0) return enumeration(values->as_array(), *values);
      problem(*values, "'enum' expects a list of values");
      return {};
    }
    for (const char* key : {"anyOf", "oneOf"}) {
      if (const Value* list = schema.find(key)) return any_of(*list, key, depth);
    }
    return of_type(schema, depth);
  }

  SchemaNode enumeration(std::vector<Value> values, const Value& at) {
    for (const Value& value : values) {
      if (value.is_array() || value.is_object())
        problem(at, "'enum' and 'const' hold texts, numbers, true, false or null only");
    }
    std::erase_if(values, [](const Value& value) { return value.is_array() || value.is_object(); });
    return {.kind = SchemaKind::kEnum, .values = std::move(values)};
  }

  SchemaNode any_of(const Value& list, std::string_view key, int depth) {
    SchemaNode node{.kind = SchemaKind::kAnyOf};
    if (!list.is_array() || list.size() == 0) {
      problem(list, fmt::format("'{}' expects a list of schemas", key));
      return {};
    }
    for (const Value& item : list.as_array()) node.alternatives.push_back(compile(item, depth + 1));
    check_distinct(node, list);
    return node;
  }

  SchemaNode of_type(const Value& schema, int depth) {
    const Value* type = schema.find("type");
    if (type == nullptr) {
      if (schema.find("properties") != nullptr) return object(schema, depth);
      if (schema.find("items") != nullptr) return array(schema, depth);
      return {};
    }
    if (type->is_string()) return one_type(type->as_string(), schema, *type, depth);
    if (!type->is_array() || type->size() == 0) {
      problem(*type, "'type' expects a name or a list of names");
      return {};
    }
    SchemaNode node{.kind = SchemaKind::kAnyOf};
    for (const Value& name : type->as_array()) {
      if (!name.is_string() && !name.is_null()) {
        problem(name, "'type' expects a name or a list of names");
        continue;
      }
      // YAML reads a bare null as the value; it means the type here.
      SchemaNode alternative = one_type(name.is_null() ? "null" : name.as_string(), schema, name, depth);
      node.alternatives.push_back(nodes_.size());
      nodes_.push_back(std::move(alternative));
    }
    check_distinct(node, *type);
    return node;
  }

  SchemaNode one_type(const std::string& name, const Value& schema, const Value& at, int depth) {
    if (name == "object") return object(schema, depth);
    if (name == "array") return array(schema, depth);
    if (name == "string") {
      return {.kind = SchemaKind::kString,
              .min_length = count(schema, "minLength", 0),
              .max_length = count(schema, "maxLength", SchemaNode::kUnbounded)};
    }
    if (name == "number" || name == "integer") {
      return {.kind = SchemaKind::kNumber,
              .integer = name == "integer",
              .minimum = number(schema, "minimum"),
              .maximum = number(schema, "maximum")};
    }
    if (name == "boolean") return {.kind = SchemaKind::kBoolean};
    if (name == "null") return {.kind = SchemaKind::kNull};
    problem(at, fmt::format("unknown type '{}'{}", name, did_you_mean(name, type_names())));
    return {};
  }

  SchemaNode object(const Value& schema, int depth) {
    SchemaNode node{.kind = SchemaKind::kObject};
    const Value* properties = schema.find("properties");
    if (properties != nullptr && !properties->is_object()) problem(*properties, "'properties' expects named schemas");
    std::vector<std::string> names;
    if (properties != nullptr && properties->is_object()) {
      if (properties->size() > JsonSchema::kMaxProperties) {
        problem(*properties, fmt::format("{} properties in one object; at most {} are supported", properties->size(),
                                         JsonSchema::kMaxProperties));
      }
      for (const auto& [name, body] : properties->as_object()) {
        if (names.size() == JsonSchema::kMaxProperties) break;
        names.push_back(name);
        if (static_cast<std::int64_t>(decode_utf8(name).size()) >= JsonSchema::kMaxNameCharacters) {
          problem(body, fmt::format("a property name of {} or more characters", JsonSchema::kMaxNameCharacters));
        }
        const std::size_t child = compile(body, depth + 1);
        node.properties.push_back({.name = name, .node = child});
      }
    }
    if (const Value* additional = schema.find("additionalProperties")) {
      if (!additional->is_bool() || additional->as_bool()) node.additional = compile(*additional, depth + 1);
    } else if (properties == nullptr) {
      node.additional = compile(Value(true), depth + 1);
    }
    read_required(schema, node, names);
    return node;
  }

  void read_required(const Value& schema, SchemaNode& node, const std::vector<std::string>& names) {
    const Value* required = schema.find("required");
    if (required == nullptr) return;
    if (!required->is_array()) {
      problem(*required, "'required' expects a list of property names");
      return;
    }
    for (const Value& name : required->as_array()) {
      const auto found = std::find_if(node.properties.begin(), node.properties.end(), [&](const auto& property) {
        return name.is_string() && property.name == name.as_string();
      });
      if (found != node.properties.end()) {
        found->required = true;
      } else if (name.is_string()) {
        problem(name, fmt::format("required property '{}' is not among the properties{}", name.as_string(),
                                  did_you_mean(name.as_string(), names)));
      } else {
        problem(name, "'required' expects a list of property names");
      }
    }
  }

  SchemaNode array(const Value& schema, int depth) {
    SchemaNode node{.kind = SchemaKind::kArray,
                    .min_items = count(schema, "minItems", 0),
                    .max_items = count(schema, "maxItems", SchemaNode::kUnbounded)};
    if (const Value* unique = schema.find("uniqueItems")) {
      if (unique->is_bool())
        node.unique = unique->as_bool();
      else
        problem(*unique, "'uniqueItems' expects true or false");
    }
    if (node.min_items > node.max_items) problem(schema, "'minItems' is above 'maxItems'");
    const Value* items = schema.find("items");
    node.items = compile(items == nullptr ? Value(true) : *items, depth + 1);
    const SchemaNode& item = nodes_[node.items];
    if (node.unique && item.kind == SchemaKind::kEnum &&
        node.min_items > static_cast<std::int64_t>(item.values.size())) {
      problem(schema, "'minItems' asks for more items than there are different ones");
    }
    return node;
  }

  std::int64_t count(const Value& schema, const char* key, std::int64_t otherwise) {
    const Value* value = schema.find(key);
    if (value == nullptr) return otherwise;
    if (value->is_integer() && value->as_integer() >= 0) return std::min(value->as_integer(), SchemaNode::kUnbounded);
    problem(*value, fmt::format("'{}' expects a whole number from 0", key));
    return otherwise;
  }
  std::optional<double> number(const Value& schema, const char* key) {
    const Value* value = schema.find(key);
    if (value == nullptr) return std::nullopt;
    if (value->is_number() && std::isfinite(value->as_double())) return value->as_double();
    problem(*value, fmt::format("'{}' expects a number", key));
    return std::nullopt;
  }

  // The characters a value of a schema can start with, as a bit set over the kinds of JSON values.
  unsigned starts(std::size_t index) const {
    constexpr unsigned kObject = 1, kArray = 2, kText = 4, kNumber = 8, kBool = 16, kNull = 32;
    const SchemaNode& node = nodes_[index];
    switch (node.kind) {
      case SchemaKind::kAny:
        return 63;
      case SchemaKind::kObject:
        return kObject;
      case SchemaKind::kArray:
        return kArray;
      case SchemaKind::kString:
        return kText;
      case SchemaKind::kNumber:
        return kNumber;
      case SchemaKind::kBoolean:
        return kBool;
      case SchemaKind::kNull:
        return kNull;
      case SchemaKind::kEnum: {
        unsigned set = 0;
        for (const Value& value : node.values) {
          set |= value.is_string() ? kText : value.is_number() ? kNumber : value.is_bool() ? kBool : kNull;
        }
        return set;
      }
      case SchemaKind::kAnyOf: {
        unsigned set = 0;
        for (const std::size_t alternative : node.alternatives) set |= starts(alternative);
        return set;
      }
    }
    return 0;
  }
  // Decoding picks the alternative by the first character, so they must differ there.
  void check_distinct(const SchemaNode& node, const Value& at) {
    unsigned seen = 0;
    for (const std::size_t alternative : node.alternatives) {
      const unsigned own = starts(alternative);
      if ((seen & own) != 0) {
        problem(
            at,
            "two alternatives hold the same kind of value (object, array, text, number, ...); they must differ in it");
        return;
      }
      seen |= own;
    }
  }

  std::vector<SchemaNode>& nodes_;
  std::vector<SchemaProblem>& problems_;
};

std::string kind_words(const SchemaNode& node) {
  switch (node.kind) {
    case SchemaKind::kObject:
      return "an object";
    case SchemaKind::kArray:
      return "a list";
    case SchemaKind::kString:
      return "a text";
    case SchemaKind::kNumber:
      return node.integer ? "a whole number" : "a number";
    case SchemaKind::kBoolean:
      return "true or false";
    case SchemaKind::kNull:
      return "null";
    default:
      return "another value";
  }
}

class Matcher {
 public:
  explicit Matcher(const std::vector<SchemaNode>& nodes) : nodes_(nodes) {}

  // Depth is bounded by the value, which a parser with a limit made.
  std::optional<std::string> mismatch(const Value& value, std::size_t index, const std::string& path) const {
    const SchemaNode& node = nodes_[index];
    const auto expected = [&]() -> std::optional<std::string> {
      return fmt::format("{}expected {}, got {}", prefix(path), kind_words(node), kind_name(value.kind()));
    };
    switch (node.kind) {
      case SchemaKind::kAny:
        return std::nullopt;
      case SchemaKind::kObject:
        return value.is_object() ? object(value, node, path) : expected();
      case SchemaKind::kArray:
        return value.is_array() ? array(value, node, path) : expected();
      case SchemaKind::kString:
        return value.is_string() ? string(value, node, path) : expected();
      case SchemaKind::kNumber:
        return value.is_number() ? number(value, node, path) : expected();
      case SchemaKind::kBoolean:
        return value.is_bool() ? std::nullopt : expected();
      case SchemaKind::kNull:
        return value.is_null() ? std::nullopt : expected();
      case SchemaKind::kEnum:
        return enumeration(value, node, path);
      case SchemaKind::kAnyOf:
        return any_of(value, node, path);
    }
    return std::nullopt;
  }

 private:
  static std::string prefix(const std::string& path) { return path.empty() ? "" : path + ": "; }

  std::optional<std::string> object(const Value& value, const SchemaNode& node, const std::string& path) const {
    std::vector<std::string> names;
    for (const auto& property : node.properties) names.push_back(property.name);
    for (const auto& [name, member] : value.as_object()) {
      const auto found = std::find(names.begin(), names.end(), name);
      if (found == names.end() && !node.additional) {
        return fmt::format("{}unexpected property '{}'{}", prefix(path), name, did_you_mean(name, names));
      }
      const std::size_t child = found == names.end()
                                    ? *node.additional
                                    : node.properties[static_cast<std::size_t>(found - names.begin())].node;
      if (auto wrong = mismatch(member, child, path + "/" + name)) return wrong;
    }
    for (const auto& property : node.properties) {
      if (property.required && value.find(property.name) == nullptr) {
        return fmt::format("{}property '{}' is missing", prefix(path), property.name);
      }
    }
    return std::nullopt;
  }

  std::optional<std::string> array(const Value& value, const SchemaNode& node, const std::string& path) const {
    const auto size = static_cast<std::int64_t>(value.size());
    if (size < node.min_items)
      return fmt::format("{}expected at least {} items, got {}", prefix(path), node.min_items, size);
    if (size > node.max_items)
      return fmt::format("{}expected at most {} items, got {}", prefix(path), node.max_items, size);
    const Value::Array& items = value.as_array();
    for (std::size_t i = 0; i < items.size(); ++i) {
      if (auto wrong = mismatch(items[i], node.items, fmt::format("{}/{}", path, i))) return wrong;
      if (node.unique && std::find(items.begin(), items.begin() + static_cast<std::ptrdiff_t>(i), items[i]) !=
                             items.begin() + static_cast<std::ptrdiff_t>(i)) {
        return fmt::format("{}{} appears twice", prefix(path), dump_json(items[i]));
      }
    }
    return std::nullopt;
  }

  static std::optional<std::string> string(const Value& value, const SchemaNode& node, const std::string& path) {
    const auto length = static_cast<std::int64_t>(decode_utf8(value.as_string()).size());
    if (length < node.min_length)
      return fmt::format("{}expected at least {} characters, got {}", prefix(path), node.min_length, length);
    if (length > node.max_length)
      return fmt::format("{}expected at most {} characters, got {}", prefix(path), node.max_length, length);
    return std::nullopt;
  }

  static std::optional<std::string> number(const Value& value, const SchemaNode& node, const std::string& path) {
    const double given = value.as_double();
    if (node.integer && std::floor(given) != given)
      return fmt::format("{}expected a whole number, got {}", prefix(path), given);
    if (node.minimum && given < *node.minimum)
      return fmt::format("{}expected at least {}, got {}", prefix(path), *node.minimum, given);
    if (node.maximum && given > *node.maximum)
      return fmt::format("{}expected at most {}, got {}", prefix(path), *node.maximum, given);
    return std::nullopt;
  }

  static std::optional<std::string> enumeration(const Value& value, const SchemaNode& node, const std::string& path) {
    std::string known;
    std::vector<std::string> texts;
    for (const Value& candidate : node.values) {
      if (candidate == value) return std::nullopt;
      if (candidate.is_string()) texts.push_back(candidate.as_string());
      if (texts.size() + known.size() < 400) known += (known.empty() ? "" : ", ") + dump_json(candidate);
    }
    const bool slip = value.is_string() && nearest_name(value.as_string(), texts).has_value();
    return fmt::format("{}{} is not allowed{}", prefix(path), dump_json(value),
                       slip ? did_you_mean(value.as_string(), texts) : "; expected " + known);
  }

  std::optional<std::string> any_of(const Value& value, const SchemaNode& node, const std::string& path) const {
    std::string first;
    for (const std::size_t alternative : node.alternatives) {
      const auto wrong = mismatch(value, alternative, path);
      if (!wrong) return std::nullopt;
      if (first.empty() || !wrong->starts_with(prefix(path) + "expected")) first = *wrong;
    }
    return first;
  }

  const std::vector<SchemaNode>& nodes_;
};

}  // namespace

JsonSchema::JsonSchema() : nodes_(1) {}

JsonSchema::JsonSchema(const Value& schema, std::vector<SchemaProblem>& problems) {
  Compiler(nodes_, problems).compile(schema, 1);
}

std::optional<std::string> JsonSchema::mismatch(const Value& value) const {
  return Matcher(nodes_).mismatch(value, 0, "");
}

}  // namespace instruct::instructions
