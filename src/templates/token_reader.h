// Reads the tokens of a template one after the other. Internal to this folder.
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "templates/syntax.h"

namespace instruct::templates {

class TokenReader {
 public:
  TokenReader(const std::vector<Token>& tokens, const std::string& origin) : tokens_(tokens), origin_(origin) {}

 protected:
  using Nodes = std::vector<NodePtr>;
  static constexpr int kMaxDepth = 100;
  static constexpr int kMaxHeight = 500;

  // A guard for recursion: hostile input nests without end.
  class Depth {
   public:
    explicit Depth(TokenReader& reader) : reader_(reader) {
      if (++reader_.depth_ > kMaxDepth) reader_.fail(fmt::format("nested deeper than {}", kMaxDepth));
    }
    ~Depth() { --reader_.depth_; }
    Depth(const Depth&) = delete;
    Depth& operator=(const Depth&) = delete;

   private:
    TokenReader& reader_;
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

  std::shared_ptr<Node> make(NodeKind kind, Mark mark, std::string text = {}, Nodes children = {}) const {
    auto node = std::make_shared<Node>();
    node->kind = kind;
    node->mark = mark;
    node->text = std::move(text);
    for (NodePtr& child : children) adopt(*node, std::move(child));
    return node;
  }
  // Adds a child (or the lack of one). Chains of operators grow high trees without recursion here, but whoever walks
  // a tree recurses.
  void adopt(Node& node, NodePtr child) const {
    if (child != nullptr) node.height = std::max(node.height, child->height + 1);
    if (node.height > kMaxHeight) fail_at(origin_, node.mark, fmt::format("nested deeper than {}", kMaxHeight));
    node.children.push_back(std::move(child));
  }

  const std::vector<Token>& tokens_;
  const std::string& origin_;
  std::size_t position_ = 0;
  int depth_ = 0;
};

}  // namespace instruct::templates
