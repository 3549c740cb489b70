#include "templates/expression_parser.h"

#include <cstdlib>

namespace instruct::templates {

NodePtr ExpressionParser::tuple() {
  const Mark mark = peek().mark;
  NodePtr first = expression();
  if (!is_operator(",")) return first;
  auto node = make(NodeKind::kTuple, mark, "", {first});
  while (accept_operator(",")) {
    if (peek().kind == TokenKind::kBlockEnd || peek().kind == TokenKind::kPrintEnd) break;
    adopt(*node, expression());
  }
  return node;
}

NodePtr ExpressionParser::expression() {
  const Depth depth(*this);
  const Mark mark = peek().mark;
  NodePtr value = or_expression();
  while (is_name("if")) {
    ++position_;
    NodePtr condition = or_expression();
    NodePtr otherwise;
    if (accept_name("else")) otherwise = expression();
    value = make(NodeKind::kTernary, mark, "", {condition, value, otherwise});
  }
  return value;
}

NodePtr ExpressionParser::or_expression() {
  const Mark mark = peek().mark;
  NodePtr left = and_expression();
  while (accept_name("or")) left = make(NodeKind::kOr, mark, "", {left, and_expression()});
  return left;
}

NodePtr ExpressionParser::and_expression() {
  const Mark mark = peek().mark;
  NodePtr left = not_expression();
  while (accept_name("and")) left = make(NodeKind::kAnd, mark, "", {left, not_expression()});
  return left;
}

NodePtr ExpressionParser::not_expression() {
  const Depth depth(*this);
  const Mark mark = peek().mark;
  if (is_name("not")) {
    ++position_;
    return make(NodeKind::kNot, mark, "", {not_expression()});
  }
  return comparison();
}

// text: operators separated by blanks; children: operands.
NodePtr ExpressionParser::comparison() {
  const Mark mark = peek().mark;
  NodePtr left = sum();
  std::shared_ptr<Node> node;
  for (;;) {
    std::string op;
    if (peek().kind == TokenKind::kOperator && (peek().text == "==" || peek().text == "!=" || peek().text == "<" ||
                                                peek().text == ">" || peek().text == "<=" || peek().text == ">=")) {
      op = take().text;
    } else if (accept_name("in")) {
      op = "in";
    } else if (is_name("not") && peek(1).kind == TokenKind::kName && peek(1).text == "in") {
      position_ += 2;
      op = "notin";
    } else {
      break;
    }
    if (node == nullptr) node = make(NodeKind::kCompare, mark, "", {left});
    node->names.push_back(op);
    adopt(*node, sum());
  }
  return node == nullptr ? left : node;
}

NodePtr ExpressionParser::sum() {
  const Mark mark = peek().mark;
  NodePtr left = concat();
  while (is_operator("+") || is_operator("-")) {
    const std::string op = take().text;
    left = make(NodeKind::kBinary, mark, op, {left, concat()});
  }
  return left;
}

NodePtr ExpressionParser::concat() {
  const Mark mark = peek().mark;
  NodePtr left = product();
  while (accept_operator("~")) left = make(NodeKind::kBinary, mark, "~", {left, product()});
  return left;
}

NodePtr ExpressionParser::product() {
  const Mark mark = peek().mark;
  NodePtr left = power();
  while (is_operator("*") || is_operator("/") || is_operator("//") || is_operator("%")) {
    const std::string op = take().text;
    left = make(NodeKind::kBinary, mark, op, {left, power()});
  }
  return left;
}

NodePtr ExpressionParser::power() {
  const Mark mark = peek().mark;
  NodePtr left = unary(Filters::kAllowed);
  while (accept_operator("**")) left = make(NodeKind::kBinary, mark, "**", {left, unary(Filters::kAllowed)});
  return left;
}

NodePtr ExpressionParser::unary(Filters allowed) {
  const Depth depth(*this);
  const Mark mark = peek().mark;
  NodePtr value;
  if (is_operator("-") || is_operator("+")) {
    const std::string op = take().text;
    value = make(NodeKind::kUnary, mark, op, {unary(Filters::kNone)});
  } else {
    value = postfix(primary());
  }
  return allowed == Filters::kAllowed ? filters(value) : value;
}

NodePtr ExpressionParser::filters(NodePtr value) {
  for (;;) {
    if (is_operator("|")) {
      value = filter(value);
    } else if (is_name("is")) {
      value = test(value);
    } else if (is_operator("(") && value->kind == NodeKind::kFilter) {
      value = call(value);
    } else {
      return value;
    }
  }
}

NodePtr ExpressionParser::filter(NodePtr value) {
  expect_operator("|");
  return filter_name(std::move(value));
}

// children: value, arguments...
NodePtr ExpressionParser::filter_name(NodePtr value) {
  const Mark mark = peek().mark;
  std::string name = expect_name("a filter");
  auto node = make(NodeKind::kFilter, mark, std::move(name), {std::move(value)});
  if (is_operator("(")) arguments(*node);
  return node;
}

// children: value, arguments...; names {"not"} when negated.
NodePtr ExpressionParser::test(NodePtr value) {
  ++position_;
  const bool negated = accept_name("not");
  const Mark mark = peek().mark;
  auto node = make(NodeKind::kTest, mark, expect_name("a test"), {std::move(value)});
  if (negated) node->names = {"not"};
  if (is_operator("(")) {
    arguments(*node);
  } else if (starts_operand()) {
    adopt(*node, postfix(primary()));
  }
  return node;
}

bool ExpressionParser::starts_operand() const {
  const Token& token = peek();
  if (token.kind == TokenKind::kString || token.kind == TokenKind::kInteger || token.kind == TokenKind::kFloat)
    return true;
  if (token.kind == TokenKind::kOperator) return token.text == "[" || token.text == "{";
  if (token.kind != TokenKind::kName) return false;
  for (const char* word : {"and", "or", "not", "is", "if", "else", "in", "recursive"}) {
    if (token.text == word) return false;
  }
  return true;
}

// value, name=value, *list or **object.
NodePtr ExpressionParser::argument() {
  const Mark mark = peek().mark;
  for (const char* spread : {"*", "**"}) {
    if (accept_operator(spread)) return make(NodeKind::kSpread, mark, spread, {expression()});
  }
  if (peek().kind != TokenKind::kName || peek(1).kind != TokenKind::kOperator || peek(1).text != "=")
    return expression();
  std::string name = take().text;
  ++position_;
  return make(NodeKind::kNamed, mark, std::move(name), {expression()});
}

void ExpressionParser::arguments(Node& node) {
  expect_operator("(");
  bool last_open = true;  // named values and those out of lists and objects come last
  while (!is_operator(")")) {
    adopt(node, argument());
    const NodePtr& last = node.children.back();
    const bool open = last->kind != NodeKind::kNamed && last->kind != NodeKind::kSpread;
    if (open && !last_open) fail_at(origin_, last->mark, "a value after a named one");
    last_open = open;
    if (!accept_operator(",")) break;
  }
  expect_operator(")");
}

NodePtr ExpressionParser::call(NodePtr callee) {
  auto node = make(NodeKind::kCall, peek().mark, "", {std::move(callee)});
  arguments(*node);
  return node;
}

NodePtr ExpressionParser::postfix(NodePtr value) {
  for (;;) {
    const Mark mark = peek().mark;
    if (accept_operator(".")) {
      if (peek().kind == TokenKind::kInteger) {
        auto index = make(NodeKind::kLiteral, mark);
        index->value = integer(take());
        value = make(NodeKind::kIndex, mark, "", {value, index});
      } else {
        value = make(NodeKind::kAttribute, mark, expect_name("an attribute"), {value});
      }
    } else if (accept_operator("[")) {
      value = subscript(value, mark);
    } else if (is_operator("(")) {
      value = call(value);
    } else {
      return value;
    }
  }
}

// kIndex children: value, index. kSlice children: value, begin, end, step (each may be null).
NodePtr ExpressionParser::subscript(NodePtr value, Mark mark) {
  NodePtr parts[3];
  int count = 0;
  bool slice = false;
  for (;;) {
    if (is_operator(":")) {
      slice = true;
      ++position_;
      if (++count > 2) fail("a slice has at most three parts");
    } else if (is_operator("]")) {
      break;
    } else {
      if (parts[count] != nullptr) fail("expected ']', got " + described(peek()));
      parts[count] = expression();
    }
  }
  expect_operator("]");
  if (slice) return make(NodeKind::kSlice, mark, "", {value, parts[0], parts[1], parts[2]});
  if (parts[0] == nullptr) fail("expected an index before ']'");
  return make(NodeKind::kIndex, mark, "", {value, parts[0]});
}

Data ExpressionParser::integer(const Token& token) const {
  std::int64_t value = 0;
  for (const char c : token.text) {
    if (__builtin_mul_overflow(value, 10, &value) || __builtin_add_overflow(value, c - '0', &value)) {
      fail_at(origin_, token.mark, "the number is too large");
    }
  }
  return value;
}

NodePtr ExpressionParser::primary() {
  const Depth depth(*this);
  const Token& token = peek();
  auto literal = make(NodeKind::kLiteral, token.mark);
  switch (token.kind) {
    case TokenKind::kString: {
      std::string text = take().text;
      while (peek().kind == TokenKind::kString) text += take().text;  // neighbours join
      literal->value = Data(std::move(text));
      return literal;
    }
    case TokenKind::kInteger:
      literal->value = integer(take());
      return literal;
    case TokenKind::kFloat:
      literal->value = std::strtod(take().text.c_str(), nullptr);  // infinite when too large, as in Python
      return literal;
    case TokenKind::kName: {
      const std::string name = take().text;
      if (name == "true" || name == "True") {
        literal->value = true;
      } else if (name == "false" || name == "False") {
        literal->value = false;
      } else if (name == "none" || name == "None") {
        literal->value = Data();
      } else {
        return make(NodeKind::kName, token.mark, name);
      }
      return literal;
    }
    case TokenKind::kOperator:
      if (token.text == "(") return parenthesis();
      if (token.text == "[") return list();
      if (token.text == "{") return dict();
      break;
    default:
      break;
  }
  fail("expected a value, got " + described(token));
}

NodePtr ExpressionParser::parenthesis() {
  const Mark mark = take().mark;
  if (accept_operator(")")) return make(NodeKind::kTuple, mark);
  NodePtr first = expression();
  if (accept_operator(")")) return first;
  auto node = make(NodeKind::kTuple, mark, "", {first});
  while (accept_operator(",")) {
    if (is_operator(")")) break;
    adopt(*node, expression());
  }
  expect_operator(")");
  return node;
}

NodePtr ExpressionParser::list() {
  auto node = make(NodeKind::kList, take().mark);
  while (!is_operator("]")) {
    adopt(*node, expression());
    if (!accept_operator(",")) break;
  }
  expect_operator("]");
  return node;
}

// children: key, value, key, value, ...
NodePtr ExpressionParser::dict() {
  auto node = make(NodeKind::kDict, take().mark);
  while (!is_operator("}")) {
    adopt(*node, expression());
    expect_operator(":");
    adopt(*node, expression());
    if (!accept_operator(",")) break;
  }
  expect_operator("}");
  return node;
}

}  // namespace instruct::templates
