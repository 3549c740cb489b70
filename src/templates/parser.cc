// Tokens to a syntax tree: the statements.
#include <algorithm>

#include "base/error.h"
#include "base/text.h"
#include "templates/expression_parser.h"
#include "templates/syntax.h"

namespace instruct::templates {
namespace {

class Parser : public ExpressionParser {
 public:
  using ExpressionParser::ExpressionParser;

  NodePtr run() {
    NodePtr root = block({});
    if (peek().kind != TokenKind::kEnd) fail("unexpected '" + peek().text + "'");
    return root;
  }

 private:
  // Statements up to a block that starts with one of `ends` (left in place), or the end.
  NodePtr block(const std::vector<std::string>& ends) {
    const Depth depth(*this);
    auto node = make(NodeKind::kBlock, peek().mark);
    while (peek().kind != TokenKind::kEnd) {
      if (peek().kind == TokenKind::kText) {
        const Token& token = take();
        adopt(*node, make(NodeKind::kText, token.mark, token.text));
      } else if (peek().kind == TokenKind::kPrintBegin) {
        const Mark mark = take().mark;
        adopt(*node, make(NodeKind::kPrint, mark, "", {tuple()}));
        if (peek().kind != TokenKind::kPrintEnd) fail("expected '}}', got " + described(peek()));
        ++position_;
      } else if (peek().kind == TokenKind::kBlockBegin) {
        if (std::find(ends.begin(), ends.end(), peek(1).text) != ends.end()) return node;
        adopt(*node, statement());
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

  // A body that becomes a value of its own: no break leaves it.
  NodePtr closed_block(const char* end) {
    const int loops = std::exchange(loops_, 0);
    NodePtr body = block({end});
    loops_ = loops;
    return body;
  }

  // The body is read after what stands in the head, but it is the first child: its place was left free.
  void set_body(Node& node, NodePtr body) const {
    adopt(node, body);
    node.children.pop_back();
    node.children[0] = std::move(body);
  }

  NodePtr statement() {
    const Depth depth(*this);
    ++position_;  // '{%'
    const Mark mark = peek().mark;
    const std::string name = expect_name("a statement");
    if (name == "if") return if_statement(mark);
    if (name == "for") return for_statement(mark);
    if (name == "with") return with_statement(mark);
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
      NodePtr body = closed_block("endgeneration");
      end_tag("endgeneration");
      return make(NodeKind::kGeneration, mark, "", {body});
    }
    if (name == "include" || name == "import" || name == "extends" || name == "from" || name == "block") {
      raise(ErrorCategory::kUnsupported, "{}: line {}, column {}: '{}' is not supported: a template stands alone",
            origin_, mark.line, mark.column, name);
    }
    const std::vector<std::string> known{"if",     "elif",  "with",     "else",  "endif",     "for",
                                         "endfor", "set",   "endset",   "macro", "endmacro",  "call",
                                         "filter", "break", "continue", "raw",   "generation"};
    fail_at(origin_, mark, fmt::format("unknown statement '{}'{}", name, did_you_mean(name, known)));
  }

  // children: condition, body, condition, body, ..., [else body]
  NodePtr if_statement(Mark mark) {
    auto node = make(NodeKind::kIf, mark);
    adopt(*node, expression());
    expect_block_end();
    for (;;) {
      adopt(*node, block({"elif", "else", "endif"}));
      ++position_;
      if (accept_name("elif")) {
        adopt(*node, expression());
        expect_block_end();
      } else if (accept_name("else")) {
        expect_block_end();
        adopt(*node, block({"endif"}));
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
      for (const char* word : {"true", "false", "none", "True", "False", "None"}) {
        if (peek().text == word) fail(fmt::format("'{}' is a value, not a name", word));
      }
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
    if (is_operator(",")) {
      auto several = make(NodeKind::kTuple, mark, "", {iterable});
      while (accept_operator(",")) adopt(*several, or_expression());
      iterable = several;
    }
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
    for (const NodePtr& child : {iterable, body, filter, otherwise}) adopt(*node, child);
    return node;
  }

  // names, children: body, values.
  NodePtr with_statement(Mark mark) {
    auto node = make(NodeKind::kWith, mark, "", {nullptr});
    while (peek().kind == TokenKind::kName) {
      node->names.push_back(expect_name("a name"));
      expect_operator("=");
      adopt(*node, expression());
      if (!accept_operator(",")) break;
    }
    expect_block_end();
    set_body(*node, block({"endwith"}));
    end_tag("endwith");
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
      adopt(*node, tuple());
      expect_block_end();
      return node;
    }
    node->kind = NodeKind::kSetBlock;
    NodePtr filtered = make(NodeKind::kLiteral, mark);
    while (is_operator("|")) filtered = filter(filtered);
    expect_block_end();
    NodePtr body = closed_block("endset");
    end_tag("endset");
    adopt(*node, body);
    adopt(*node, filtered);
    return node;
  }

  // names: parameters; children: body, then defaults of the last parameters.
  void signature(Node& node) {
    expect_operator("(");
    while (!is_operator(")")) {
      node.names.push_back(expect_name("a parameter"));
      if (accept_operator("=")) {
        adopt(node, expression());
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
    set_body(*node, closed_block("endmacro"));
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
    set_body(*node, closed_block("endcall"));
    end_tag("endcall");
    adopt(*node, call);
    return node;
  }

  NodePtr filter_block(Mark mark) {
    NodePtr filtered = make(NodeKind::kLiteral, mark);
    filtered = filter_name(filtered);
    while (is_operator("|")) filtered = filter(filtered);
    expect_block_end();
    NodePtr body = closed_block("endfilter");
    end_tag("endfilter");
    return make(NodeKind::kFilterBlock, mark, "", {body, filtered});
  }

  int loops_ = 0;
};

}  // namespace

NodePtr parse_tokens(const std::vector<Token>& tokens, const std::string& origin) {
  return Parser(tokens, origin).run();
}

}  // namespace instruct::templates
