// Renders the tree. Scopes, macros and loops as in Jinja; every step and byte is counted against the limits.
#include "templates/template.h"

#include <algorithm>
#include <cmath>
#include <ctime>
#include <set>

#include "base/error.h"
#include "base/text.h"
#include "templates/builtins.h"
#include "templates/strings.h"
#include "templates/syntax.h"

namespace instruct::templates {
namespace {

const std::vector<std::string>& global_names() {
  static const std::vector<std::string> names{"range",  "dict",   "namespace", "raise_exception", "strftime_now",
                                              "joiner", "cycler", "loop",      "caller",          "self"};
  return names;
}

struct Scope {
  std::vector<std::pair<std::string, Data>> variables;
};

enum class Flow { kNormal, kBreak, kContinue };

class Renderer {
 public:
  Renderer(const std::string& origin, const Data& variables, const RenderOptions& options)
      : origin_(origin), options_(options) {
    scopes_.emplace_back();
    make_globals();
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

  Rendered render(const Node& root) {
    run(root);
    Rendered result{.text = output_.chars(), .generation = std::move(generation_)};
    std::size_t position = 0;
    for (const Text::Run& part : output_.runs()) {
      result.spans.push_back({position, position + part.length, part.source});
      position += part.length;
    }
    return result;
  }

 private:
  // Adds the place to an error that has none yet.
  template <typename Body>
  auto at(Mark mark, const Body& body) {
    try {
      return body();
    } catch (const Error& error) {
      const std::string message = error.what();
      if (message.starts_with(origin_ + ": line ")) throw;
      throw Error(error.category(),
                  fmt::format("{}: line {}, column {}: {}", origin_, mark.line, mark.column, message));
    }
  }
  [[noreturn]] void fail(Mark mark, const std::string& message) const { fail_at(origin_, mark, message); }

  void charge(std::size_t units) {
    steps_ += 1 + static_cast<std::int64_t>(units / 64);
    if (steps_ > options_.max_steps)
      raise(ErrorCategory::kBadData, "the template runs too long (more than {} steps)", options_.max_steps);
  }
  void emit(const Text& text) {
    output_.append(text);
    if (static_cast<std::int64_t>(output_.size()) > options_.max_output_bytes) {
      raise(ErrorCategory::kBadData, "the template's output is longer than {} bytes", options_.max_output_bytes);
    }
  }

  class Depth {
   public:
    Depth(Renderer& renderer, Mark mark) : renderer_(renderer) {
      if (++renderer_.depth_ > renderer_.options_.max_depth * 4)
        renderer_.fail(mark, "nested too deep (a macro that calls itself?)");
    }
    ~Depth() { --renderer_.depth_; }
    Depth(const Depth&) = delete;
    Depth& operator=(const Depth&) = delete;

   private:
    Renderer& renderer_;
  };

  const Data* lookup(const std::string& name) const {
    for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope) {
      for (auto variable = scope->variables.rbegin(); variable != scope->variables.rend(); ++variable) {
        if (variable->first == name) return &variable->second;
      }
    }
    return nullptr;
  }
  void assign(const std::string& name, Data value) {
    for (auto& [existing, slot] : scopes_.back().variables) {
      if (existing == name) {
        slot = std::move(value);
        return;
      }
    }
    scopes_.back().variables.emplace_back(name, std::move(value));
  }
  void bind(const std::vector<std::string>& names, const Data& value, Mark mark) {
    if (names.size() == 1) return assign(names[0], value);
    const List items = iterate(value);
    if (items.size() != names.size()) fail(mark, fmt::format("{} names for {} values", names.size(), items.size()));
    for (std::size_t i = 0; i < names.size(); ++i) assign(names[i], items[i]);
  }

  void make_globals() {
    const auto add = [this](const char* name, std::function<Data(const Arguments&)> call) {
      scopes_.back().variables.emplace_back(name, Data(std::make_shared<Callable>(Callable{name, std::move(call)})));
    };
    add("raise_exception", [](const Arguments& a) -> Data {
      raise(ErrorCategory::kBadData, "{}",
            a.positional.empty() ? "the template raised an exception" : to_text(a.positional[0]).chars());
    });
    add("namespace", [](const Arguments& a) {
      auto space = std::make_shared<Namespace>();
      if (!a.positional.empty() && a.positional[0].dict() != nullptr) {
        for (const auto& [key, value] : *a.positional[0].dict())
          space->members.emplace_back(to_text(key).chars(), value);
      }
      for (const auto& [key, value] : a.named) space->members.emplace_back(key, value);
      return Data(space);
    });
    add("dict", [](const Arguments& a) {
      Dict dict;
      if (!a.positional.empty() && a.positional[0].dict() != nullptr) dict = *a.positional[0].dict();
      for (const auto& [key, value] : a.named) dict.emplace_back(Data(key), value);
      return Data(std::move(dict));
    });
    add("range", [this](const Arguments& a) { return range(a); });
    add("strftime_now", [this](const Arguments& a) {
      const std::string format = a.positional.empty() ? "%c" : to_text(a.positional[0]).chars();
      return Data(options_.strftime_now ? options_.strftime_now(format) : system_time(format));
    });
    add("joiner", [](const Arguments& a) {
      const Text separator = a.positional.empty() ? Text(", ") : to_text(a.positional[0]);
      auto used = std::make_shared<bool>(false);
      return Data(std::make_shared<Callable>(Callable{"joiner", [separator, used](const Arguments&) {
                                                        return Data(std::exchange(*used, true) ? separator : Text());
                                                      }}));
    });
  }

  static std::string system_time(const std::string& format) {
    const std::time_t now = std::time(nullptr);
    std::tm parts{};
    localtime_r(&now, &parts);
    char buffer[256];
    const std::size_t length = format.size() > 128 ? 0 : std::strftime(buffer, sizeof(buffer), format.c_str(), &parts);
    return {buffer, length};
  }

  Data range(const Arguments& a) {
    std::vector<std::int64_t> parts;
    for (const Data& argument : a.positional) {
      const auto* integer = argument.get<std::int64_t>();
      if (integer == nullptr) raise(ErrorCategory::kBadData, "range expects whole numbers, got {}", type_of(argument));
      parts.push_back(*integer);
    }
    if (parts.empty() || parts.size() > 3) raise(ErrorCategory::kBadData, "range expects one to three numbers");
    const std::int64_t begin = parts.size() > 1 ? parts[0] : 0;
    const std::int64_t end = parts.size() > 1 ? parts[1] : parts[0];
    const std::int64_t step = parts.size() > 2 ? parts[2] : 1;
    if (step == 0) raise(ErrorCategory::kBadData, "range: the step is zero");
    const double count = std::ceil((static_cast<double>(end) - static_cast<double>(begin)) / static_cast<double>(step));
    if (count > 100000) raise(ErrorCategory::kBadData, "range of {:.0f} numbers is too long (at most 100000)", count);
    List list;
    for (std::int64_t i = 0, value = begin; i < static_cast<std::int64_t>(std::max(0.0, count)); ++i, value += step)
      list.emplace_back(value);
    return list;
  }

  // Statements.
  Flow run(const Node& node) {
    const Depth depth(*this, node.mark);
    return at(node.mark, [&] {
      charge(0);
      switch (node.kind) {
        case NodeKind::kBlock:
          for (const NodePtr& child : node.children) {
            if (const Flow flow = run(*child); flow != Flow::kNormal) return flow;
          }
          return Flow::kNormal;
        case NodeKind::kText:
          emit(Text(node.text));
          return Flow::kNormal;
        case NodeKind::kPrint:
          print(*node.children[0]);
          return Flow::kNormal;
        case NodeKind::kIf:
          return run_if(node);
        case NodeKind::kFor:
          return run_for(node);
        case NodeKind::kSet:
          run_set(node);
          return Flow::kNormal;
        case NodeKind::kSetBlock:
          assign_or_member(node.names.empty() ? "" : node.names[0], node.text,
                           through_filters(*node.children[1], captured(*node.children[0])), node.mark);
          return Flow::kNormal;
        case NodeKind::kMacro:
          assign(node.text, macro(node, node.children.size()));
          return Flow::kNormal;
        case NodeKind::kCallBlock:
          run_call_block(node);
          return Flow::kNormal;
        case NodeKind::kFilterBlock:
          emit(to_text(through_filters(*node.children[1], captured(*node.children[0]))));
          return Flow::kNormal;
        case NodeKind::kBreak:
          return Flow::kBreak;
        case NodeKind::kContinue:
          return Flow::kContinue;
        case NodeKind::kGeneration: {
          const std::size_t begin = output_.size();
          const Flow flow = run(*node.children[0]);
          if (output_.size() > begin && captures_ == 0) generation_.emplace_back(begin, output_.size());
          return flow;
        }
        default:
          raise(ErrorCategory::kInternal, "an expression stands where a statement should");
      }
    });
  }

  void print(const Node& expression) {
    const Data value = evaluate(expression);
    if (options_.strict_undefined && value.is_undefined()) undefined_error(value, expression.mark);
    emit(to_text(value));
  }
  [[noreturn]] void undefined_error(const Data& value, Mark mark) const {
    std::vector<std::string> known;
    for (const auto& [name, variable] : scopes_[1].variables) known.push_back(name);
    const std::string& name = value.get<Undefined>()->name;
    fail(mark, fmt::format("'{}' is undefined{}", name, did_you_mean(name, known)));
  }

  Flow run_if(const Node& node) {
    std::size_t i = 0;
    for (; i + 1 < node.children.size(); i += 2) {
      if (truth(evaluate(*node.children[i]))) return run(*node.children[i + 1]);
    }
    return i < node.children.size() ? run(*node.children[i]) : Flow::kNormal;
  }

  // Output of a body as a value.
  Text captured(const Node& body) {
    Text outer = std::exchange(output_, Text());
    ++captures_;
    try {
      run(body);
    } catch (...) {
      --captures_;
      output_ = std::move(outer);
      throw;
    }
    --captures_;
    return std::exchange(output_, std::move(outer));
  }

  // Filters of {% filter %} and block set: a chain whose innermost value is an empty literal.
  Data through_filters(const Node& chain, const Data& value) {
    if (chain.kind != NodeKind::kFilter) return value;
    const Data inner = through_filters(*chain.children[0], value);
    return at(chain.mark, [&] { return filter(chain.text, inner, arguments_of(chain, 1)); });
  }

  void assign_or_member(const std::string& name, const std::string& member, Data value, Mark mark) {
    if (member.empty()) return assign(name, std::move(value));
    const Data* target = lookup(name);
    const auto* space = target == nullptr ? nullptr : target->get<std::shared_ptr<Namespace>>();
    if (space == nullptr)
      fail(mark, fmt::format("'{}' is no namespace: only namespaces have settable attributes", name));
    for (auto& [key, slot] : (*space)->members) {
      if (key == member) {
        slot = std::move(value);
        return;
      }
    }
    (*space)->members.emplace_back(member, std::move(value));
  }

  void run_set(const Node& node) {
    Data value = evaluate(*node.children[0]);
    if (node.text.empty()) {
      bind(node.names, value, node.mark);
    } else {
      assign_or_member(node.names[0], node.text, std::move(value), node.mark);
    }
  }

  Flow run_for(const Node& node) {
    const Data iterable = evaluate(*node.children[0]);
    if (options_.strict_undefined && iterable.is_undefined()) undefined_error(iterable, node.mark);
    return loop(node, iterate(iterable), 0);
  }

  Flow loop(const Node& node, List items, std::int64_t level) {
    scopes_.emplace_back();
    const auto leave = [this](const void*) { scopes_.pop_back(); };
    const std::unique_ptr<void, decltype(leave)> guard(this, leave);
    if (node.children[2] != nullptr) {
      List kept;
      for (const Data& item : items) {
        bind(node.names, item, node.mark);
        if (truth(evaluate(*node.children[2]))) kept.push_back(item);
      }
      items = std::move(kept);
    }
    if (items.empty()) return node.children[3] != nullptr ? run(*node.children[3]) : Flow::kNormal;
    for (std::size_t i = 0; i < items.size(); ++i) {
      scopes_.back().variables.clear();
      assign("loop", loop_object(node, items, i, level));
      bind(node.names, items[i], node.mark);
      if (run(*node.children[1]) == Flow::kBreak) break;
    }
    return Flow::kNormal;
  }

  Data loop_object(const Node& node, const List& items, std::size_t i, std::int64_t level) {
    const auto size = static_cast<std::int64_t>(items.size());
    const auto index = static_cast<std::int64_t>(i);
    auto loop_data = std::make_shared<Namespace>();
    loop_data->members = {{"index", Data(index + 1)},
                          {"index0", Data(index)},
                          {"revindex", Data(size - index)},
                          {"revindex0", Data(size - index - 1)},
                          {"first", Data(i == 0)},
                          {"last", Data(index + 1 == size)},
                          {"length", Data(size)},
                          {"depth", Data(level + 1)},
                          {"depth0", Data(level)},
                          {"previtem", i > 0 ? items[i - 1] : Data(Undefined{"loop.previtem"})},
                          {"nextitem", index + 1 < size ? items[i + 1] : Data(Undefined{"loop.nextitem"})}};
    loop_data->members.emplace_back(
        "cycle", Data(std::make_shared<Callable>(Callable{"cycle", [i](const Arguments& a) {
                                                            return a.positional.empty()
                                                                       ? Data()
                                                                       : a.positional[i % a.positional.size()];
                                                          }})));
    if (node.text == "recursive") {
      loop_data->members.emplace_back(
          "()", Data(std::make_shared<Callable>(
                    Callable{"loop", [this, &node, level](const Arguments& a) {
                               Text outer = std::exchange(output_, Text());
                               ++captures_;
                               loop(node, a.positional.empty() ? List{} : iterate(a.positional[0]), level + 1);
                               --captures_;
                               return Data(std::exchange(output_, std::move(outer)));
                             }})));
    }
    return loop_data;
  }

  // A callable with the node's parameters; children[1, defaults_end) are the defaults of the last ones.
  Data macro(const Node& node, std::size_t defaults_end) {
    const std::size_t defaults = defaults_end - 1;
    return std::make_shared<Callable>(Callable{node.text, [this, &node, defaults](const Arguments& a) {
                                                 const Depth depth(*this, node.mark);
                                                 if (a.positional.size() > node.names.size()) {
                                                   raise(ErrorCategory::kBadData,
                                                         "macro '{}' takes {} arguments, got {}", node.text,
                                                         node.names.size(), a.positional.size());
                                                 }
                                                 // A macro sees the globals and the template's top level, not the
                                                 // scopes of its caller.
                                                 std::vector<Scope> saved(std::make_move_iterator(scopes_.begin() + 2),
                                                                          std::make_move_iterator(scopes_.end()));
                                                 scopes_.resize(2);
                                                 scopes_.emplace_back();
                                                 try {
                                                   for (std::size_t i = 0; i < node.names.size(); ++i)
                                                     assign(node.names[i], parameter(node, a, i, defaults));
                                                   for (const auto& [key, value] : a.named) {
                                                     if (key == "caller") assign("caller", value);
                                                   }
                                                   Text result = captured(*node.children[0]);
                                                   restore(std::move(saved));
                                                   return Data(std::move(result));
                                                 } catch (...) {
                                                   restore(std::move(saved));
                                                   throw;
                                                 }
                                               }});
  }
  void restore(std::vector<Scope> saved) {
    scopes_.resize(2);
    for (Scope& scope : saved) scopes_.push_back(std::move(scope));
  }
  Data parameter(const Node& node, const Arguments& a, std::size_t i, std::size_t defaults) {
    if (i < a.positional.size()) return a.positional[i];
    for (const auto& [key, value] : a.named) {
      if (key == node.names[i]) return value;
    }
    const std::size_t first = node.names.size() - defaults;
    if (i >= first) return evaluate(*node.children[1 + i - first]);
    return Undefined{node.names[i]};
  }

  void run_call_block(const Node& node) {
    const Node& call = *node.children.back();
    Arguments arguments = arguments_of(call, 1);
    // The caller's body runs in the scopes of this place.
    arguments.named.emplace_back(
        "caller",
        Data(std::make_shared<Callable>(Callable{"caller", [this, &node, scopes = scopes_](const Arguments& a) {
                                                   std::vector<Scope> saved = std::exchange(scopes_, scopes);
                                                   scopes_.emplace_back();
                                                   try {
                                                     for (std::size_t i = 0; i < node.names.size(); ++i)
                                                       assign(node.names[i],
                                                              parameter(node, a, i, node.children.size() - 2));
                                                     Text result = captured(*node.children[0]);
                                                     scopes_ = std::move(saved);
                                                     return Data(std::move(result));
                                                   } catch (...) {
                                                     scopes_ = std::move(saved);
                                                     throw;
                                                   }
                                                 }})));
    emit(to_text(call_value(evaluate(*call.children[0]), arguments, call.mark)));
  }

  // Expressions.
  Data evaluate(const Node& node) {
    const Depth depth(*this, node.mark);
    return at(node.mark, [&]() -> Data {
      charge(0);
      const auto child = [&](std::size_t i) { return evaluate(*node.children[i]); };
      switch (node.kind) {
        case NodeKind::kLiteral:
          return node.value;
        case NodeKind::kName: {
          const Data* value = lookup(node.text);
          return value != nullptr ? *value : Data(Undefined{node.text});
        }
        case NodeKind::kList: {
          List list;
          for (const NodePtr& item : node.children) list.push_back(evaluate(*item));
          return list;
        }
        case NodeKind::kDict: {
          Dict dict;
          for (std::size_t i = 0; i < node.children.size(); i += 2) dict.emplace_back(child(i), child(i + 1));
          return dict;
        }
        case NodeKind::kUnary:
          return unary(node, child(0));
        case NodeKind::kBinary:
          return binary(node.text, child(0), child(1));
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
          return node.children[2] != nullptr ? child(2) : Data(Undefined{"inline if"});
        case NodeKind::kAttribute:
          return attribute(child(0), node.text);
        case NodeKind::kIndex:
          return get_item(child(0), child(1));
        case NodeKind::kSlice:
          return slice(node);
        case NodeKind::kCall:
          return call(node);
        case NodeKind::kFilter:
          return filter(node.text, child(0), arguments_of(node, 1));
        case NodeKind::kTest:
          return test(node.text, child(0), arguments_of(node, 1)) == node.names.empty();
        default:
          raise(ErrorCategory::kInternal, "a statement stands where an expression should");
      }
    });
  }

  Arguments arguments_of(const Node& node, std::size_t first) {
    Arguments arguments;
    for (std::size_t i = first; i < node.children.size(); ++i) {
      const Node& argument = *node.children[i];
      if (argument.kind == NodeKind::kNamed) {
        arguments.named.emplace_back(argument.text, evaluate(*argument.children[0]));
      } else {
        arguments.positional.push_back(evaluate(argument));
      }
    }
    return arguments;
  }

  Data attribute(const Data& value, const std::string& name) {
    if (value.dict() == nullptr || value.find(name) == nullptr) {
      if (auto method = bound_method(value, name, services_)) return *method;
    }
    return get_attribute(value, name);
  }

  Data call(const Node& node) {
    const Node& callee = *node.children[0];
    Data function = evaluate(callee);
    return call_value(function, arguments_of(node, 1), node.mark);
  }
  Data call_value(const Data& function, const Arguments& arguments, Mark mark) {
    const Depth depth(*this, mark);
    if (const auto* callable = function.get<std::shared_ptr<Callable>>()) return (*callable)->call(arguments);
    if (const Data* recursive = function.find("()")) return call_value(*recursive, arguments, mark);
    if (function.is_undefined()) {
      const std::string& name = function.get<Undefined>()->name;
      fail(mark, fmt::format("'{}' is undefined, so it cannot be called{}", name, did_you_mean(name, global_names())));
    }
    fail(mark, "a value of type " + type_of(function) + " cannot be called");
  }

  Data filter(const std::string& name, const Data& value, const Arguments& arguments) {
    if (auto result = call_filter(name, value, arguments, services_)) return *result;
    raise(ErrorCategory::kBadData, "unknown filter '{}'{}", name, did_you_mean(name, filter_names()));
  }
  bool test(const std::string& name, const Data& value, const Arguments& arguments) {
    if (const auto result = call_test(name, value, arguments)) return *result;
    raise(ErrorCategory::kBadData, "unknown test '{}'{}", name, did_you_mean(name, test_names()));
  }

  Data unary(const Node& node, const Data& value) {
    if (!value.is_number()) fail(node.mark, fmt::format("'{}' expects a number, got {}", node.text, type_of(value)));
    if (const auto* number = value.get<double>()) return node.text == "-" ? -*number : *number;
    const std::int64_t integer = static_cast<std::int64_t>(as_double(value));
    const std::int64_t exact = value.get<std::int64_t>() != nullptr ? *value.get<std::int64_t>() : integer;
    std::int64_t result = 0;
    if (node.text == "-" && __builtin_sub_overflow(std::int64_t{0}, exact, &result))
      fail(node.mark, "the number is too large");
    return node.text == "-" ? result : exact;
  }

  Data comparison(const Node& node) {
    Data left = evaluate(*node.children[0]);
    for (std::size_t i = 0; i < node.names.size(); ++i) {
      const Data right = evaluate(*node.children[i + 1]);
      const std::string& op = node.names[i];
      bool holds = false;
      if (op == "==")
        holds = equal(left, right);
      else if (op == "!=")
        holds = !equal(left, right);
      else if (op == "in")
        holds = contains(right, left);
      else if (op == "notin")
        holds = !contains(right, left);
      else {
        const int order = compare(left, right);
        holds = op == "<" ? order < 0 : op == ">" ? order > 0 : op == "<=" ? order <= 0 : order >= 0;
      }
      if (!holds) return false;
      left = right;
    }
    return true;
  }

  Data slice(const Node& node) {
    const Data value = evaluate(*node.children[0]);
    if (value.is_undefined()) undefined_error(value, node.mark);
    std::optional<std::int64_t> parts[3];
    for (std::size_t i = 0; i < 3; ++i) {
      if (node.children[i + 1] == nullptr) continue;
      const Data part = evaluate(*node.children[i + 1]);
      if (part.is_none()) continue;
      const auto* integer = part.get<std::int64_t>();
      if (integer == nullptr) fail(node.mark, "a slice expects whole numbers, got " + type_of(part));
      parts[i] = *integer;
    }
    const std::int64_t step = parts[2].value_or(1);
    if (step == 0) fail(node.mark, "a slice's step is zero");
    const List items = iterate(value);
    const auto size = static_cast<std::int64_t>(items.size());
    const auto place = [&](std::optional<std::int64_t> index, std::int64_t otherwise) {
      if (!index) return otherwise;
      const std::int64_t from_start = *index < 0 ? *index + size : *index;
      return std::clamp<std::int64_t>(from_start, step < 0 ? -1 : 0, step < 0 ? size - 1 : size);
    };
    List chosen;
    const std::int64_t begin = place(parts[0], step < 0 ? size - 1 : 0);
    const std::int64_t end = place(parts[1], step < 0 ? -1 : size);
    for (std::int64_t i = begin; step < 0 ? i > end : i < end; i += step) {
      chosen.push_back(items[static_cast<std::size_t>(i)]);
      if (std::abs(step) > size) break;
    }
    if (value.get<Text>() == nullptr) return chosen;
    Text text;
    for (const Data& item : chosen) text.append(*item.get<Text>());
    return text;
  }

  Data binary(const std::string& op, const Data& a, const Data& b) {
    if (op == "~") {
      Text text = to_text(a);
      text.append(to_text(b));
      charge(text.size());
      return text;
    }
    if (a.is_undefined() || b.is_undefined()) {
      raise(ErrorCategory::kBadData, "'{}' is undefined, so '{}' has nothing to work on",
            (a.is_undefined() ? a : b).get<Undefined>()->name, op);
    }
    if (op == "+" && a.get<Text>() != nullptr && b.get<Text>() != nullptr) {
      Text text = *a.get<Text>();
      text.append(*b.get<Text>());
      charge(text.size());
      return text;
    }
    if (op == "+" && a.list() != nullptr && b.list() != nullptr) {
      List list = *a.list();
      list.insert(list.end(), b.list()->begin(), b.list()->end());
      charge(list.size());
      return list;
    }
    if (op == "%" && a.get<Text>() != nullptr) {
      return format_percent(*a.get<Text>(), b.list() != nullptr ? *b.list() : List{b}, b.dict(), services_.charge);
    }
    if (op == "*" && (a.get<Text>() != nullptr || a.list() != nullptr || b.get<Text>() != nullptr)) return repeat(a, b);
    if (!a.is_number() || !b.is_number()) {
      raise(ErrorCategory::kBadData, "'{}' does not work on {} and {}", op, type_of(a), type_of(b));
    }
    return arithmetic(op, a, b);
  }

  Data repeat(const Data& a, const Data& b) {
    const Data& value = a.get<std::int64_t>() != nullptr ? b : a;
    const auto* count = (a.get<std::int64_t>() != nullptr ? a : b).get<std::int64_t>();
    if (count == nullptr) raise(ErrorCategory::kBadData, "'*' does not work on {} and {}", type_of(a), type_of(b));
    const std::int64_t times = std::max<std::int64_t>(0, *count);
    const std::size_t size = value.get<Text>() != nullptr ? value.get<Text>()->size() : value.list()->size();
    if (size > 0 && times > options_.max_output_bytes / static_cast<std::int64_t>(size)) {
      raise(ErrorCategory::kBadData, "a repetition of {} times is too long", times);
    }
    charge(size * static_cast<std::size_t>(times));
    Text text;
    List list;
    for (std::int64_t i = 0; i < times; ++i) {
      if (value.get<Text>() != nullptr)
        text.append(*value.get<Text>());
      else
        list.insert(list.end(), value.list()->begin(), value.list()->end());
    }
    return value.get<Text>() != nullptr ? Data(std::move(text)) : Data(std::move(list));
  }

  static std::int64_t whole(const Data& value) {
    return value.get<std::int64_t>() != nullptr ? *value.get<std::int64_t>()
                                                : static_cast<std::int64_t>(*value.get<bool>() ? 1 : 0);
  }

  Data arithmetic(const std::string& op, const Data& a, const Data& b) {
    const bool integers = a.get<double>() == nullptr && b.get<double>() == nullptr;
    const double x = as_double(a);
    const double y = as_double(b);
    if ((op == "/" || op == "//" || op == "%") && y == 0) raise(ErrorCategory::kBadData, "division by zero");
    if (op == "/") return x / y;
    if (integers) {
      const std::int64_t m = whole(a);
      const std::int64_t n = whole(b);
      std::int64_t result = 0;
      bool overflow = false;
      if (op == "+")
        overflow = __builtin_add_overflow(m, n, &result);
      else if (op == "-")
        overflow = __builtin_sub_overflow(m, n, &result);
      else if (op == "*")
        overflow = __builtin_mul_overflow(m, n, &result);
      else if (n == -1)
        overflow = op == "//" && __builtin_sub_overflow(std::int64_t{0}, m, &result);
      else if (op == "//")
        result = m / n - ((m % n != 0 && (m < 0) != (n < 0)) ? 1 : 0);
      else if (op == "%")
        result = m % n + ((m % n != 0 && (m < 0) != (n < 0)) ? n : 0);
      else
        return power(m, n);
      if (overflow) raise(ErrorCategory::kBadData, "the result of '{}' is too large", op);
      return result;
    }
    if (op == "+") return x + y;
    if (op == "-") return x - y;
    if (op == "*") return x * y;
    if (op == "//") return std::floor(x / y);
    if (op == "%") return x - std::floor(x / y) * y;
    return std::pow(x, y);
  }
  static Data power(std::int64_t base, std::int64_t exponent) {
    if (exponent < 0) return std::pow(static_cast<double>(base), static_cast<double>(exponent));
    std::int64_t result = 1;
    for (std::int64_t i = 0; i < exponent; ++i) {
      if (__builtin_mul_overflow(result, base, &result))
        raise(ErrorCategory::kBadData, "the result of '**' is too large");
      if (result == 0 || result == 1) return exponent % 2 == 0 || base >= 0 ? result : base;
    }
    return result;
  }

  const std::string& origin_;
  const RenderOptions& options_;
  Services services_;
  std::vector<Scope> scopes_;  // globals, the template's own, then loops and macros
  Text output_;
  std::vector<std::pair<std::size_t, std::size_t>> generation_;
  std::int64_t steps_ = 0;
  int depth_ = 0;
  int captures_ = 0;
};

// Names read before they are set, in order. Scopes are ignored: what is set anywhere counts as the template's own.
void collect(const Node& node, std::set<std::string>& own, std::vector<std::string>& names, bool setting) {
  if (setting) {
    if (node.kind == NodeKind::kSet || node.kind == NodeKind::kSetBlock || node.kind == NodeKind::kFor ||
        node.kind == NodeKind::kMacro || node.kind == NodeKind::kCallBlock) {
      if (node.text.empty() || node.kind != NodeKind::kSet) own.insert(node.names.begin(), node.names.end());
      if (node.kind == NodeKind::kMacro) own.insert(node.text);
    }
  } else if (node.kind == NodeKind::kName && !own.contains(node.text) &&
             std::find(names.begin(), names.end(), node.text) == names.end()) {
    names.push_back(node.text);
  }
  for (const NodePtr& child : node.children) {
    if (child != nullptr) collect(*child, own, names, setting);
  }
}

}  // namespace

Template Template::parse(std::string source, std::string origin) {
  if (const auto bad = find_invalid_utf8(source))
    raise(ErrorCategory::kBadData, "{}: invalid UTF-8 at byte {}", origin, *bad);
  Template result;
  result.source_ = std::move(source);
  result.origin_ = std::move(origin);
  result.root_ = parse_tokens(tokenize(result.source_, result.origin_), result.origin_);
  return result;
}

Rendered Template::render(const Data& variables, const RenderOptions& options) const {
  return Renderer(origin_, variables, options).render(*root_);
}

std::vector<std::string> Template::free_variables() const {
  std::set<std::string> own(global_names().begin(), global_names().end());
  std::vector<std::string> names;
  collect(*root_, own, names, true);
  collect(*root_, own, names, false);
  return names;
}

}  // namespace instruct::templates
