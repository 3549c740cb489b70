// Values of expressions, in scopes, within the limits of a rendering. Internal to this folder.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "templates/builtins.h"
#include "templates/globals.h"
#include "templates/syntax.h"
#include "templates/template.h"

namespace instruct::templates {

struct Scope {
  std::vector<std::pair<std::string, Data>> variables;
};

class Evaluator {
 public:
  Evaluator(const std::string& origin, const Data& variables, const RenderOptions& options);
  ~Evaluator();
  Evaluator(const Evaluator&) = delete;
  Evaluator& operator=(const Evaluator&) = delete;

 protected:
  static constexpr std::size_t kOuterScopes = 2;  // the globals, and the template's own top level

  // A guard for recursion.
  class Depth {
   public:
    Depth(Evaluator& evaluator, Mark mark) : evaluator_(evaluator) {
      if (++evaluator_.depth_ > evaluator_.options_.max_depth) {
        --evaluator_.depth_;
        evaluator_.fail(mark, fmt::format("nested deeper than {}", evaluator_.options_.max_depth));
      }
    }
    ~Depth() { --evaluator_.depth_; }
    Depth(const Depth&) = delete;
    Depth& operator=(const Depth&) = delete;

   private:
    Evaluator& evaluator_;
  };

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
  [[noreturn]] void undefined_error(const Data& value, Mark mark) const;
  // Counts a step of work on `units` bytes or items.
  void charge(std::size_t units);

  const Data* lookup(const std::string& name) const;
  void assign(const std::string& name, Data value);
  // One name to the value, or several to its items.
  void bind(const std::vector<std::string>& names, const Data& value, Mark mark);

  Data evaluate(const Node& node);
  // The children from `first` on, as arguments.
  Arguments arguments_of(const Node& node, std::size_t first);
  void spread(const Node& node, Arguments& arguments);
  Data call_value(const Data& function, const Arguments& arguments, Mark mark);
  Data filter(const std::string& name, const Data& value, const Arguments& arguments);

  const std::string& origin_;
  const RenderOptions& options_;
  std::vector<Scope> scopes_;  // globals, the template's own, then loops and macros

 private:
  Data value_of(const Node& node);
  Data dict(const Node& node);
  Data comparison(const Node& node);
  bool test(const std::string& name, const Data& value, const Arguments& arguments);

  Namespaces namespaces_;
  Services services_;
  std::int64_t steps_ = 0;
  int depth_ = 0;
};

}  // namespace instruct::templates
