// Tokens to a syntax tree: recursive descent with Jinja's precedence.
#include <algorithm>

#include "base/error.h"
#include "base/text.h"
#include "templates/syntax.h"

namespace instruct::templates {
namespace {

constexpr int kMaxDepth = 100;

class Parser {
 public:
  Parser(const std::vector<Token>& tokens, const std::string& origin) : tokens_(tokens), origin_(origin) {}

  NodePtr run() {
    NodePtr root = block({});
    if (peek().kind != TokenKind::kEnd) fail("unexpected '" + peek().text + "'");
    return root;
  }

 private:
  using Nodes = std::vector<NodePtr>;

  // A guard for recursion: hostile input nests without end.
  class Depth {
   public:
    explicit Depth(Parser& parser) : parser_(parser) {
      if (++parser_.depth_ > kMaxDepth) parser_.fail(fmt::format("nested deeper than {}", kMaxDepth));
    }
    ~Depth() { --parser_.depth_; }
    Depth(const Depth&) = delete;
    Depth& operator=(const Depth&) = delete;

   private:
    Parser& parser_;
  };

  const Token& peek(std::size_t ahead = 0) const { return tokens_[std::min(position_ + ahead, tokens_.size() - 1)]; }
  const Token& take() { return tokens_[std::min(position_++, tokens_.size() - 1)]; }
  bool is_operator(std::string_view text) const { return peek().kind == TokenKind::kOperator && peek().text == text; }
  bool is_name(std::string_view text) const { return peek().kind == TokenKind::kName && peek().text == text; }
  bool accept_operator(std::string_view text) {
    if (!is_operator(text)) return false;
    ++position_;
    return true;
  }
  bool accept_name(std::string_view text) {
    if (!is_name(text)) return false;
    ++position_;
    return true;
  }
  static std::string described(const Token& token) {
    switch (token.kind) {
      case TokenKind::kEnd:
        return "the end of the template";
      case TokenKind::kPrintEnd:
        return "'}}'";
      case TokenKind::kBlockEnd:
        return "'%}'";
      case TokenKind::kString:
        return "a text";
      default:
        return "'" + token.text + "'";
    }
  }
  [[noreturn]] void fail(const std::string& what) const { fail_at(origin_, peek().mark, what); }
  void expect_operator(std::string_view text) {
    if (!accept_operator(text)) fail(fmt::format("expected '{}', got {}", text, described(peek())));
  }
  std::string expect_name(const char* what) {
    if (peek().kind != TokenKind::kName) fail(fmt::format("expected {}, got {}", what, described(peek())));
    return take().text;
  }
  void expect_block_end() {
    if (peek().kind != TokenKind::kBlockEnd) fail("expected '%}', got " + described(peek()));
    ++position_;
  }

  static std::shared_ptr<Node> make(NodeKind kind, Mark mark, std::string text = {}, Nodes children = {}) {
    auto node = std::make_shared<Node>();
    node->kind = kind;
    node->mark = mark;
    node->text = std::move(text);
    node->children = std::move(children);
    return node;
  }

  // Statements up to a block that starts with one of `ends` (left in place), or the end.
  NodePtr block(const std::vector<std::string>& ends) {
    const Depth depth(*this);
    auto node = make(NodeKind::kBlock, peek().mark);
    while (peek().kind != TokenKind::kEnd) {
      if (peek().kind == TokenKind::kText) {
        const Token& token = take();
        node->children.push_back(make(NodeKind::kText, token.mark, token.text));
      } else if (peek().kind == TokenKind::kPrintBegin) {
        const Mark mark = take().mark;
        node->children.push_back(make(NodeKind::kPrint, mark, "", {expression()}));
        if (peek().kind != TokenKind::kPrintEnd) fail("expected '}}', got " + described(peek()));
        ++position_;
      } else if (peek().kind == TokenKind::kBlockBegin) {
        if (std::find(ends.begin(), ends.end(), peek(1).text) != ends.end()) return node;
        node->children.push_back(statement());
      } else {
        fail("unexpected " + described(peek()));
      }
    }
    if (!ends.empty()) fail(fmt::format("expected '{{% {} %}}' before the end of the template", ends.back()));
    return node;
  }

  void end_tag(const std::string& name) {
    ++position_;  // '{%'
    if (!accept_name(name)) fail(fmt::format("expected '{}', got {}", name, described(peek())));
    expect_block_end();
  }

  NodePtr statement() {
    const Depth depth(*this);
    ++position_;  // '{%'
    const Mark mark = peek().mark;
    const std::string name = expect_name("a statement");
    if (name == "if") return if_statement(mark);
    if (name == "for") return for_statement(mark);
    if (name == "set") return set_statement(mark);
    if (name == "macro") return macro(mark);
    if (name == "call") return call_block(mark);
    if (name == "filter") return filter_block(mark);
    if (name == "break" || name == "continue") {
      if (loops_ == 0) fail_at(origin_, mark, fmt::format("'{}' outside a loop", name));
      expect_block_end();
      return make(name == "break" ? NodeKind::kBreak : NodeKind::kContinue, mark);
    }
    if (name == "generation") {
      expect_block_end();
      NodePtr body = block({"endgeneration"});
      end_tag("endgeneration");
      return make(NodeKind::kGeneration, mark, "", {body});
    }
    if (name == "include" || name == "import" || name == "extends" || name == "from" || name == "block") {
      raise(ErrorCategory::kUnsupported, "{}: line {}, column {}: '{}' is not supported: a template stands alone",
            origin_, mark.line, mark.column, name);
    }
    const std::vector<std::string> known{"if",    "elif",     "else",  "endif",     "for",  "endfor",
                                         "set",   "endset",   "macro", "endmacro",  "call", "filter",
                                         "break", "continue", "raw",   "generation"};
    fail_at(origin_, mark, fmt::format("unknown statement '{}'{}", name, did_you_mean(name, known)));
  }

  // children: condition, body, condition, body, ..., [else body]
  NodePtr if_statement(Mark mark) {
    auto node = make(NodeKind::kIf, mark);
    node->children.push_back(expression());
    expect_block_end();
    for (;;) {
      node->children.push_back(block({"elif", "else", "endif"}));
      ++position_;
      if (accept_name("elif")) {
        node->children.push_back(expression());
        expect_block_end();
      } else if (accept_name("else")) {
        expect_block_end();
        node->children.push_back(block({"endif"}));
        end_tag("endif");
        return node;
      } else {
        accept_name("endif");
        expect_block_end();
        return node;
      }
    }
  }

  std::vector<std::string> targets() {
    std::vector<std::string> names;
    const bool brackets = accept_operator("(");
    do {
      if (peek().kind != TokenKind::kName || (is_name("in") && !names.empty())) break;
      names.push_back(expect_name("a name"));
    } while (accept_operator(","));
    if (brackets) expect_operator(")");
    if (names.empty()) fail("expected a name, got " + described(peek()));
    return names;
  }

  // children: iterable, body, [filter or null], [else body or null]; text "recursive" when so marked.
  NodePtr for_statement(Mark mark) {
    auto node = make(NodeKind::kFor, mark);
    node->names = targets();
    if (!accept_name("in")) fail("expected 'in', got " + described(peek()));
    NodePtr iterable = or_expression();
    NodePtr filter;
    if (accept_name("if")) filter = expression();
    if (accept_name("recursive")) node->text = "recursive";
    expect_block_end();
    ++loops_;
    NodePtr body = block({"else", "endfor"});
    --loops_;
    NodePtr otherwise;
    ++position_;
    if (accept_name("else")) {
      expect_block_end();
      otherwise = block({"endfor"});
      end_tag("endfor");
    } else {
      accept_name("endfor");
      expect_block_end();
    }
    node->children = {iterable, body, filter, otherwise};
    return node;
  }

  // kSet: names, children {value}; text holds the attribute of "namespace.attribute". kSetBlock: children {body,
  // filters...}.
  NodePtr set_statement(Mark mark) {
    auto node = make(NodeKind::kSet, mark);
    if (peek(1).kind == TokenKind::kOperator && peek(1).text == ".") {
      node->names = {expect_name("a name")};
      ++position_;
      node->text = expect_name("an attribute");
    } else {
      node->names = targets();
    }
    if (accept_operator("=")) {
      node->children.push_back(tuple());
      expect_block_end();
      return node;
    }
    node->kind = NodeKind::kSetBlock;
    NodePtr filtered = make(NodeKind::kLiteral, mark);
    while (is_operator("|")) filtered = filter(filtered);
    expect_block_end();
    NodePtr body = block({"endset"});
    end_tag("endset");
    node->children = {body, filtered};
    return node;
  }

  // names: parameters; children: body, then defaults of the last parameters.
  void signature(Node& node) {
    expect_operator("(");
    while (!is_operator(")")) {
      node.names.push_back(expect_name("a parameter"));
      if (accept_operator("=")) {
        node.children.push_back(expression());
      } else if (node.children.size() > 1) {
        fail("a parameter without a default follows one with a default");
      }
      if (!accept_operator(",")) break;
    }
    expect_operator(")");
  }

  NodePtr macro(Mark mark) {
    auto node = make(NodeKind::kMacro, mark, expect_name("the macro's name"), {nullptr});
    signature(*node);
    expect_block_end();
    const int loops = std::exchange(loops_, 0);
    node->children[0] = block({"endmacro"});
    loops_ = loops;
    end_tag("endmacro");
    return node;
  }

  // names: caller's parameters; children: body, defaults..., last the call.
  NodePtr call_block(Mark mark) {
    auto node = make(NodeKind::kCallBlock, mark, "caller", {nullptr});
    if (is_operator("(")) signature(*node);
    NodePtr call = expression();
    if (call->kind != NodeKind::kCall) fail_at(origin_, mark, "expected a call after 'call'");
    expect_block_end();
    node->children[0] = block({"endcall"});
    end_tag("endcall");
    node->children.push_back(call);
    return node;
  }

  NodePtr filter_block(Mark mark) {
    NodePtr filtered = make(NodeKind::kLiteral, mark);
    filtered = filter_name(filtered);
    while (is_operator("|")) filtered = filter(filtered);
    expect_block_end();
    NodePtr body = block({"endfilter"});
    end_tag("endfilter");
    return make(NodeKind::kFilterBlock, mark, "", {body, filtered});
  }

  // Expressions, loosest first.
  NodePtr tuple() {
    const Mark mark = peek().mark;
    NodePtr first = expression();
    if (!is_operator(",")) return first;
    auto node = make(NodeKind::kList, mark, "", {first});
    while (accept_operator(",")) {
      if (peek().kind == TokenKind::kBlockEnd || peek().kind == TokenKind::kPrintEnd) break;
      node->children.push_back(expression());
    }
    return node;
  }

  NodePtr expression() {
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

  NodePtr or_expression() {
    const Mark mark = peek().mark;
    NodePtr left = and_expression();
    while (accept_name("or")) left = make(NodeKind::kOr, mark, "", {left, and_expression()});
    return left;
  }
  NodePtr and_expression() {
    const Mark mark = peek().mark;
    NodePtr left = not_expression();
    while (accept_name("and")) left = make(NodeKind::kAnd, mark, "", {left, not_expression()});
    return left;
  }
  NodePtr not_expression() {
    const Depth depth(*this);
    const Mark mark = peek().mark;
    if (is_name("not")) {
      ++position_;
      return make(NodeKind::kNot, mark, "", {not_expression()});
    }
    return comparison();
  }

  // text: operators separated by blanks; children: operands.
  NodePtr comparison() {
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
      node->children.push_back(sum());
    }
    return node == nullptr ? left : node;
  }

  NodePtr sum() {
    const Mark mark = peek().mark;
    NodePtr left = concat();
    while (is_operator("+") || is_operator("-")) {
      const std::string op = take().text;
      left = make(NodeKind::kBinary, mark, op, {left, concat()});
    }
    return left;
  }
  NodePtr concat() {
    const Mark mark = peek().mark;
    NodePtr left = product();
    while (accept_operator("~")) left = make(NodeKind::kBinary, mark, "~", {left, product()});
    return left;
  }
  NodePtr product() {
    const Mark mark = peek().mark;
    NodePtr left = power();
    while (is_operator("*") || is_operator("/") || is_operator("//") || is_operator("%")) {
      const std::string op = take().text;
      left = make(NodeKind::kBinary, mark, op, {left, power()});
    }
    return left;
  }
  NodePtr power() {
    const Mark mark = peek().mark;
    NodePtr left = unary(Filters::kAllowed);
    while (accept_operator("**")) left = make(NodeKind::kBinary, mark, "**", {left, unary(Filters::kAllowed)});
    return left;
  }
  // A sign binds tighter than filters: -1|abs is abs(-1).
  enum class Filters { kAllowed, kNone };
  NodePtr unary(Filters allowed) {
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

  NodePtr filters(NodePtr value) {
    for (;;) {
      if (is_operator("|")) {
        value = filter(value);
      } else if (is_name("is")) {
        value = test(value);
      } else if (is_operator("(") && value->kind == NodeKind::kFilter) {
        value = make(NodeKind::kCall, peek().mark, "", call_children(value));
      } else {
        return value;
      }
    }
  }

  NodePtr filter(NodePtr value) {
    expect_operator("|");
    return filter_name(std::move(value));
  }

  // children: value, arguments...
  NodePtr filter_name(NodePtr value) {
    const Mark mark = peek().mark;
    std::string name = expect_name("a filter");
    auto node = make(NodeKind::kFilter, mark, std::move(name), {std::move(value)});
    if (is_operator("(")) arguments(*node);
    return node;
  }

  // children: value, arguments...; names {"not"} when negated.
  NodePtr test(NodePtr value) {
    ++position_;
    const bool negated = accept_name("not");
    const Mark mark = peek().mark;
    auto node = make(NodeKind::kTest, mark, expect_name("a test"), {std::move(value)});
    if (negated) node->names = {"not"};
    if (is_operator("(")) {
      arguments(*node);
    } else if (starts_operand()) {
      node->children.push_back(postfix(primary()));
    }
    return node;
  }
  bool starts_operand() const {
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

  void arguments(Node& node) {
    expect_operator("(");
    while (!is_operator(")")) {
      if (peek().kind == TokenKind::kName && peek(1).kind == TokenKind::kOperator && peek(1).text == "=") {
        const Mark mark = peek().mark;
        std::string name = take().text;
        ++position_;
        node.children.push_back(make(NodeKind::kNamed, mark, std::move(name), {expression()}));
      } else {
        node.children.push_back(expression());
      }
      if (!accept_operator(",")) break;
    }
    expect_operator(")");
  }
  Nodes call_children(NodePtr callee) {
    Node holder;
    holder.children.push_back(std::move(callee));
    arguments(holder);
    return holder.children;
  }

  NodePtr postfix(NodePtr value) {
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
        value = make(NodeKind::kCall, mark, "", call_children(value));
      } else {
        return value;
      }
    }
  }

  // kIndex children: value, index. kSlice children: value, begin, end, step (each may be null).
  NodePtr subscript(NodePtr value, Mark mark) {
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

  Data integer(const Token& token) const {
    std::int64_t value = 0;
    for (const char c : token.text) {
      if (__builtin_mul_overflow(value, 10, &value) || __builtin_add_overflow(value, c - '0', &value)) {
        fail_at(origin_, token.mark, "the number is too large");
      }
    }
    return value;
  }

  NodePtr primary() {
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
        literal->value = std::stod(take().text);
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

  NodePtr parenthesis() {
    const Mark mark = take().mark;
    if (accept_operator(")")) return make(NodeKind::kList, mark);
    NodePtr first = expression();
    if (accept_operator(")")) return first;
    auto node = make(NodeKind::kList, mark, "", {first});
    while (accept_operator(",")) {
      if (is_operator(")")) break;
      node->children.push_back(expression());
    }
    expect_operator(")");
    return node;
  }

  NodePtr list() {
    auto node = make(NodeKind::kList, take().mark);
    while (!is_operator("]")) {
      node->children.push_back(expression());
      if (!accept_operator(",")) break;
    }
    expect_operator("]");
    return node;
  }

  // children: key, value, key, value, ...
  NodePtr dict() {
    auto node = make(NodeKind::kDict, take().mark);
    while (!is_operator("}")) {
      node->children.push_back(expression());
      expect_operator(":");
      node->children.push_back(expression());
      if (!accept_operator(",")) break;
    }
    expect_operator("}");
    return node;
  }

  const std::vector<Token>& tokens_;
  const std::string& origin_;
  std::size_t position_ = 0;
  int depth_ = 0;
  int loops_ = 0;
};

}  // namespace

NodePtr parse_tokens(const std::vector<Token>& tokens, const std::string& origin) {
  return Parser(tokens, origin).run();
}

}  // namespace instruct::templates
