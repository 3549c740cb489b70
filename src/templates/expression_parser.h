// The expressions of a template, by recursive descent with Jinja's precedence. Internal to this folder.
#pragma once

#include <string>

#include "templates/token_reader.h"

namespace instruct::templates {

class ExpressionParser : public TokenReader {
 public:
  using TokenReader::TokenReader;

 protected:
  // One expression, or several with commas between them as a list.
  NodePtr tuple();
  NodePtr expression();
  // Without an inline if: what a loop goes over.
  NodePtr or_expression();
  // `value` through the filter that comes next: with and without the bar in front of its name.
  NodePtr filter(NodePtr value);
  NodePtr filter_name(NodePtr value);

 private:
  // A sign binds tighter than filters: -1|abs is abs(-1).
  enum class Filters { kAllowed, kNone };
  NodePtr and_expression();
  NodePtr not_expression();
  NodePtr comparison();
  NodePtr sum();
  NodePtr concat();
  NodePtr product();
  NodePtr power();
  NodePtr unary(Filters allowed);
  NodePtr filters(NodePtr value);
  NodePtr test(NodePtr value);
  bool starts_operand() const;
  NodePtr argument();
  void arguments(Node& node);
  NodePtr call(NodePtr callee);
  NodePtr postfix(NodePtr value);
  NodePtr subscript(NodePtr value, Mark mark);
  Data integer(const Token& token) const;
  NodePtr primary();
  NodePtr parenthesis();
  NodePtr list();
  NodePtr dict();
};

}  // namespace instruct::templates
