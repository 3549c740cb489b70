#include "templates/renderer.h"

#include <algorithm>
#include <memory>
#include <optional>

#include "base/text.h"
#include "templates/evaluator.h"

namespace instruct::templates {
namespace {

enum class Flow { kNormal, kBreak, kContinue };

class Renderer : private Evaluator {
 public:
  using Evaluator::Evaluator;

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
  // Variables set within are gone at its end.
  class InnerScope {
   public:
    explicit InnerScope(Renderer& renderer) : renderer_(renderer) { renderer_.scopes_.emplace_back(); }
    ~InnerScope() { renderer_.scopes_.pop_back(); }
    InnerScope(const InnerScope&) = delete;
    InnerScope& operator=(const InnerScope&) = delete;

   private:
    Renderer& renderer_;
  };

  // Within, the scopes are the first `keep` ones of now, then `others`, then an empty one.
  class OtherScopes {
   public:
    OtherScopes(Renderer& renderer, std::size_t keep, std::vector<Scope> others)
        : scopes_(renderer.scopes_), keep_(static_cast<std::ptrdiff_t>(keep)) {
      std::move(scopes_.begin() + keep_, scopes_.end(), std::back_inserter(saved_));
      replace(std::move(others));
      scopes_.emplace_back();
    }
    ~OtherScopes() { replace(std::move(saved_)); }
    OtherScopes(const OtherScopes&) = delete;
    OtherScopes& operator=(const OtherScopes&) = delete;

   private:
    void replace(std::vector<Scope> others) {
      scopes_.erase(scopes_.begin() + keep_, scopes_.end());
      std::move(others.begin(), others.end(), std::back_inserter(scopes_));
    }
    std::vector<Scope>& scopes_;
    std::ptrdiff_t keep_;
    std::vector<Scope> saved_;
  };

  // Within, output starts empty and goes no further.
  class Capture {
   public:
    explicit Capture(Renderer& renderer) : renderer_(renderer), outer_(std::exchange(renderer.output_, Text())) {
      ++renderer_.captures_;
    }
    ~Capture() {
      --renderer_.captures_;
      renderer_.output_ = std::move(outer_);
    }
    Capture(const Capture&) = delete;
    Capture& operator=(const Capture&) = delete;

   private:
    Renderer& renderer_;
    Text outer_;
  };

  void emit(const Text& text) {
    output_.append(text);
    if (static_cast<std::int64_t>(output_.size()) > options_.max_output_bytes) {
      raise(ErrorCategory::kBadData, "the template's output is longer than {} bytes", options_.max_output_bytes);
    }
  }

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
        case NodeKind::kIf:
          return run_if(node);
        case NodeKind::kFor:
          return run_for(node);
        case NodeKind::kWith:
          return run_with(node);
        case NodeKind::kBreak:
          return Flow::kBreak;
        case NodeKind::kContinue:
          return Flow::kContinue;
        default:
          run_simple(node);
          return Flow::kNormal;
      }
    });
  }

  // The statements that no break leaves.
  void run_simple(const Node& node) {
    switch (node.kind) {
      case NodeKind::kText:
        return emit(Text(node.text));
      case NodeKind::kPrint:
        return print(*node.children[0]);
      case NodeKind::kSet:
        return run_set(node);
      case NodeKind::kSetBlock:
        return assign_or_member(node.names[0], node.text,
                                through_filters(*node.children[1], captured(*node.children[0])), node.mark);
      case NodeKind::kMacro:
        return assign(node.text, macro(node));
      case NodeKind::kCallBlock:
        return run_call_block(node);
      case NodeKind::kFilterBlock:
        return emit(to_text(through_filters(*node.children[1], captured(*node.children[0]))));
      case NodeKind::kGeneration:
        return run_generation(node);
      default:
        raise(ErrorCategory::kInternal, "an expression stands where a statement should");
    }
  }

  void print(const Node& expression) {
    const Data value = evaluate(expression);
    if (options_.strict_undefined && value.is_undefined()) undefined_error(value, expression.mark);
    emit(to_text(value));
  }

  // A body's output as a value; what the body sets is gone afterwards.
  Text captured(const Node& body) {
    const InnerScope scope(*this);
    const Capture capture(*this);
    run(body);
    return std::move(output_);
  }

  void run_generation(const Node& node) {
    const InnerScope scope(*this);
    const std::size_t begin = output_.size();
    run(*node.children[0]);
    if (output_.size() > begin && captures_ == 0) generation_.emplace_back(begin, output_.size());
  }

  Flow run_if(const Node& node) {
    std::size_t i = 0;
    for (; i + 1 < node.children.size(); i += 2) {
      if (truth(evaluate(*node.children[i]))) return run(*node.children[i + 1]);
    }
    return i < node.children.size() ? run(*node.children[i]) : Flow::kNormal;
  }

  Flow run_with(const Node& node) {
    std::vector<Data> values;  // all before the first is set
    for (std::size_t i = 1; i < node.children.size(); ++i) values.push_back(evaluate(*node.children[i]));
    const InnerScope scope(*this);
    for (std::size_t i = 0; i < values.size(); ++i) assign(node.names[i], std::move(values[i]));
    return run(*node.children[0]);
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
    if (member.starts_with('_')) fail(mark, fmt::format("'{}' starts with an underscore", member));
    if (space == nullptr || (*space)->is_loop)
      fail(mark, fmt::format("'{}' is no namespace: only namespaces have settable attributes", name));
    set_member(**space, member, std::move(value));
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
    const InnerScope scope(*this);
    if (node.children[2] != nullptr) {
      List kept;
      for (const Data& item : items) {
        bind(node.names, item, node.mark);
        if (truth(evaluate(*node.children[2]))) kept.push_back(item);
      }
      items = std::move(kept);
    }
    if (items.empty()) return node.children[3] != nullptr ? run(*node.children[3]) : Flow::kNormal;
    const auto last = std::make_shared<std::optional<std::string>>();  // what loop.changed saw
    for (std::size_t i = 0; i < items.size(); ++i) {
      scopes_.back().variables.clear();
      assign("loop", loop_object(node, items, i, level, last));
      bind(node.names, items[i], node.mark);
      if (run(*node.children[1]) == Flow::kBreak) break;
    }
    return Flow::kNormal;
  }

  Data loop_object(const Node& node, const List& items, std::size_t i, std::int64_t level,
                   const std::shared_ptr<std::optional<std::string>>& last) {
    const auto size = static_cast<std::int64_t>(items.size());
    const auto index = static_cast<std::int64_t>(i);
    auto object = std::make_shared<Namespace>();
    object->is_loop = true;
    object->members = {{"index", Data(index + 1)},
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
    for (const auto& [name, member] : object->members) object->depth = std::max(object->depth, member.depth());
    object->members.emplace_back("cycle", callable("cycle", [i](const Arguments& a) {
                                   if (a.positional.empty()) raise(ErrorCategory::kBadData, "cycle expects values");
                                   return a.positional[i % a.positional.size()];
                                 }));
    object->members.emplace_back("changed", callable("changed", [last](const Arguments& a) {
                                   const std::string now = to_repr(Data(a.positional)).chars();
                                   const bool same = *last == now;
                                   *last = now;
                                   return Data(!same);
                                 }));
    if (node.text == "recursive") {
      object->members.emplace_back("()", callable("loop", [this, &node, level](const Arguments& a) {
                                     const Capture capture(*this);
                                     loop(node, a.positional.empty() ? List{} : iterate(a.positional[0]), level + 1);
                                     return Data(std::move(output_));
                                   }));
    }
    return object;
  }

  static Data callable(const std::string& name, std::function<Data(const Arguments&)> call, int depth = 0) {
    return std::make_shared<Callable>(Callable{name, std::move(call), depth});
  }

  // A macro sees the globals and the template's top level, not the scopes of its caller.
  Data macro(const Node& node) {
    const bool takes_more = mentions(*node.children[0], "varargs");
    const bool takes_names = mentions(*node.children[0], "kwargs");
    return callable(node.text, [this, &node, takes_more, takes_names](const Arguments& a) {
      const Depth depth(*this, node.mark);
      const OtherScopes inside(*this, kOuterScopes, {});
      const Data* caller = nullptr;
      Dict others;
      for (const auto& [key, value] : a.named) {
        if (std::find(node.names.begin(), node.names.end(), key) != node.names.end()) continue;
        if (key == "caller") {
          caller = &value;
        } else {
          others.emplace_back(Data(key), value);
        }
      }
      if (!others.empty() && !takes_names)
        raise(ErrorCategory::kBadData, "macro '{}' has no parameter '{}'{}", node.text,
              to_text(others[0].first).chars(), did_you_mean(to_text(others[0].first).chars(), node.names));
      if (a.positional.size() > node.names.size() && !takes_more)
        raise(ErrorCategory::kBadData, "macro '{}' takes {} arguments, got {}", node.text, node.names.size(),
              a.positional.size());
      bind_parameters(node, a, node.children.size() - 1);
      if (caller != nullptr) assign("caller", *caller);
      if (takes_names) assign("kwargs", Data(std::move(others)));
      if (takes_more) {
        const std::size_t taken = std::min(a.positional.size(), node.names.size());
        assign("varargs", Data::tuple({a.positional.begin() + static_cast<std::ptrdiff_t>(taken), a.positional.end()}));
      }
      return Data(captured(*node.children[0]));
    });
  }

  // The body's children 1 to `defaults` are the defaults of the last parameters; they may use the earlier ones.
  void bind_parameters(const Node& node, const Arguments& a, std::size_t defaults) {
    const std::size_t first = node.names.size() - defaults;
    for (std::size_t i = 0; i < node.names.size(); ++i) {
      const auto named = std::find_if(a.named.begin(), a.named.end(),
                                      [&](const auto& argument) { return argument.first == node.names[i]; });
      if (i < a.positional.size()) {
        if (named != a.named.end()) raise(ErrorCategory::kBadData, "'{}' is given twice", node.names[i]);
        assign(node.names[i], a.positional[i]);
      } else if (named != a.named.end()) {
        assign(node.names[i], named->second);
      } else {
        assign(node.names[i], i >= first ? evaluate(*node.children[1 + i - first]) : Data(Undefined{node.names[i]}));
      }
    }
  }

  static bool mentions(const Node& node, std::string_view name) {
    if (node.kind == NodeKind::kName && node.text == name) return true;
    return std::any_of(node.children.begin(), node.children.end(),
                       [&](const NodePtr& child) { return child != nullptr && mentions(*child, name); });
  }

  void run_call_block(const Node& node) {
    const Node& call = *node.children.back();
    const Data function = evaluate(*call.children[0]);
    Arguments arguments = arguments_of(call, 1);
    int depth = 0;
    for (const Scope& scope : scopes_) {
      for (const auto& [name, value] : scope.variables) depth = std::max(depth, value.depth());
    }
    // The caller's body runs in the scopes of this place.
    const auto body = [this, &node, scopes = scopes_](const Arguments& a) {
      const OtherScopes inside(*this, 0, scopes);
      bind_parameters(node, a, node.children.size() - 2);
      return Data(captured(*node.children[0]));
    };
    arguments.named.emplace_back("caller", callable("caller", body, depth));
    emit(to_text(call_value(function, arguments, call.mark)));
  }

  Text output_;
  std::vector<std::pair<std::size_t, std::size_t>> generation_;
  int captures_ = 0;
};

}  // namespace

Rendered render_tree(const Node& root, const std::string& origin, const Data& variables, const RenderOptions& options) {
  return Renderer(origin, variables, options).render(root);
}

}  // namespace instruct::templates
