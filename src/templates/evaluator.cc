#include "templates/evaluator.h"

#include "base/text.h"
#include "templates/globals.h"
#include "templates/operators.h"

namespace instruct::templates {

Evaluator::Evaluator(const std::string& origin, const Data& variables, const RenderOptions& options)
    : origin_(origin), options_(options) {
  scopes_.push_back({make_globals(options, namespaces_)});
  scopes_.emplace_back();
  if (const Dict* dict = variables.dict()) {
    for (const auto& [key, value] : *dict) scopes_.back().variables.emplace_back(to_text(key).chars(), value);
  }
  services_.apply_filter = [this](const std::string& name, const Data& value, const Arguments& arguments) {
    return filter(name, value, arguments);
  };
  services_.apply_test = [this](const std::string& name, const Data& value, const Arguments& arguments) {
    return test(name, value, arguments);
  };
  services_.charge = [this](std::size_t units) { charge(units); };
}

Evaluator::~Evaluator() {
  for (const auto& space : namespaces_) space->members.clear();
}

void Evaluator::undefined_error(const Data& value, Mark mark) const {
  std::vector<std::string> known;
  for (const auto& [name, variable] : scopes_[1].variables) known.push_back(name);
  const std::string& name = value.get<Undefined>()->name;
  fail(mark, fmt::format("'{}' is undefined{}", name, did_you_mean(name, known)));
}

void Evaluator::charge(std::size_t units) {
  if (units > static_cast<std::size_t>(options_.max_output_bytes))
    raise(ErrorCategory::kBadData, "a text or list is longer than {} bytes", options_.max_output_bytes);
  steps_ += 1 + static_cast<std::int64_t>(units / 64);
  if (steps_ > options_.max_steps)
    raise(ErrorCategory::kBadData, "the template runs too long (more than {} steps)", options_.max_steps);
}

const Data* Evaluator::lookup(const std::string& name) const {
  for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope) {
    for (auto variable = scope->variables.rbegin(); variable != scope->variables.rend(); ++variable) {
      if (variable->first == name) return &variable->second;
    }
  }
  return nullptr;
}

void Evaluator::assign(const std::string& name, Data value) {
  for (auto& [existing, slot] : scopes_.back().variables) {
    if (existing == name) {
      slot = std::move(value);
      return;
    }
  }
  scopes_.back().variables.emplace_back(name, std::move(value));
}

void Evaluator::bind(const std::vector<std::string>& names, const Data& value, Mark mark) {
  if (names.size() == 1) return assign(names[0], value);
  const List items = iterate(value);
  if (items.size() != names.size()) fail(mark, fmt::format("{} names for {} values", names.size(), items.size()));
  for (std::size_t i = 0; i < names.size(); ++i) assign(names[i], items[i]);
}

Data Evaluator::evaluate(const Node& node) {
  const Depth depth(*this, node.mark);
  return at(node.mark, [&] {
    charge(0);
    return value_of(node);
  });
}

Data Evaluator::value_of(const Node& node) {
  const auto child = [&](std::size_t i) { return evaluate(*node.children[i]); };
  const auto present = [&](std::size_t i) { return node.children[i] != nullptr; };
  switch (node.kind) {
    case NodeKind::kLiteral:
      return node.value;
    case NodeKind::kName: {
      const Data* value = lookup(node.text);
      return value != nullptr ? *value : Data(Undefined{node.text});
    }
    case NodeKind::kList:
    case NodeKind::kTuple: {
      List list;
      for (const NodePtr& item : node.children) list.push_back(evaluate(*item));
      return node.kind == NodeKind::kList ? Data(std::move(list)) : Data::tuple(std::move(list));
    }
    case NodeKind::kDict:
      return dict(node);
    case NodeKind::kUnary:
      return unary(node.text, child(0));
    case NodeKind::kBinary: {
      const Data left = child(0);
      return binary(node.text, left, child(1), services_);
    }
    case NodeKind::kCompare:
      return comparison(node);
    case NodeKind::kAnd: {
      Data left = child(0);
      return truth(left) ? child(1) : left;
    }
    case NodeKind::kOr: {
      Data left = child(0);
      return truth(left) ? left : child(1);
    }
    case NodeKind::kNot:
      return !truth(child(0));
    case NodeKind::kTernary:
      if (truth(child(0))) return child(1);
      return present(2) ? child(2) : Data(Undefined{"inline if"});
    case NodeKind::kAttribute:
      return get_attribute(child(0), node.text, services_);
    case NodeKind::kIndex: {
      const Data value = child(0);
      return get_item(value, child(1), services_);
    }
    case NodeKind::kSlice: {
      const Data value = child(0);
      Data bounds[3];
      for (std::size_t i = 0; i < 3; ++i) bounds[i] = present(i + 1) ? child(i + 1) : Data();
      return slice(value, bounds[0], bounds[1], bounds[2]);
    }
    case NodeKind::kCall: {
      const Data function = child(0);
      return call_value(function, arguments_of(node, 1), node.mark);
    }
    case NodeKind::kFilter: {
      const Data value = child(0);
      return filter(node.text, value, arguments_of(node, 1));
    }
    case NodeKind::kTest: {
      const Data value = child(0);
      return test(node.text, value, arguments_of(node, 1)) == node.names.empty();
    }
    default:
      raise(ErrorCategory::kInternal, "a statement stands where an expression should");
  }
}

Data Evaluator::dict(const Node& node) {
  Dict members;
  for (std::size_t i = 0; i < node.children.size(); i += 2) {
    Data key = evaluate(*node.children[i]);
    set_member(members, std::move(key), evaluate(*node.children[i + 1]));
  }
  return members;
}

Arguments Evaluator::arguments_of(const Node& node, std::size_t first) {
  Arguments arguments;
  for (std::size_t i = first; i < node.children.size(); ++i) {
    const Node& argument = *node.children[i];
    if (argument.kind == NodeKind::kNamed) {
      arguments.named.emplace_back(argument.text, evaluate(*argument.children[0]));
    } else if (argument.kind == NodeKind::kSpread) {
      spread(argument, arguments);
    } else {
      arguments.positional.push_back(evaluate(argument));
    }
  }
  return arguments;
}

// f(*list, **object)
void Evaluator::spread(const Node& node, Arguments& arguments) {
  const Data value = evaluate(*node.children[0]);
  if (node.text == "*") {
    for (Data& item : iterate(value)) arguments.positional.push_back(std::move(item));
    charge(arguments.positional.size());
    return;
  }
  if (value.dict() == nullptr) fail(node.mark, "'**' expects an object, got " + type_of(value));
  for (const auto& [key, member] : *value.dict()) {
    if (key.get<Text>() == nullptr) fail(node.mark, "'**' expects names as keys, got " + type_of(key));
    arguments.named.emplace_back(key.get<Text>()->chars(), member);
  }
}

Data Evaluator::call_value(const Data& function, const Arguments& arguments, Mark mark) {
  const Depth depth(*this, mark);
  if (const auto* callable = function.get<std::shared_ptr<Callable>>()) return (*callable)->call(arguments);
  if (const Data* recursive = function.find("()")) return call_value(*recursive, arguments, mark);
  if (function.is_undefined()) {
    const std::string& name = function.get<Undefined>()->name;
    fail(mark, fmt::format("'{}' is undefined, so it cannot be called{}", name, did_you_mean(name, global_names())));
  }
  fail(mark, "a value of type " + type_of(function) + " cannot be called");
}

Data Evaluator::filter(const std::string& name, const Data& value, const Arguments& arguments) {
  if (auto result = call_filter(name, value, arguments, services_)) return *result;
  raise(ErrorCategory::kBadData, "unknown filter '{}'{}", name, did_you_mean(name, filter_names()));
}
bool Evaluator::test(const std::string& name, const Data& value, const Arguments& arguments) {
  if (const auto result = call_test(name, value, arguments)) return *result;
  raise(ErrorCategory::kBadData, "unknown test '{}'{}", name, did_you_mean(name, test_names()));
}

Data Evaluator::comparison(const Node& node) {
  Data left = evaluate(*node.children[0]);
  for (std::size_t i = 0; i < node.names.size(); ++i) {
    Data right = evaluate(*node.children[i + 1]);
    if (!compared(node.names[i], left, right)) return false;
    left = std::move(right);
  }
  return true;
}

}  // namespace instruct::templates
