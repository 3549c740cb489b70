// Tokens and syntax tree of templates. Internal to this folder.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/value.h"
#include "templates/data.h"

namespace instruct::templates {

enum class NodeKind {
  // Statements.
  kBlock,
  kText,
  kPrint,
  kIf,
  kFor,
  kWith,
  kSet,
  kSetBlock,
  kMacro,
  kCallBlock,
  kFilterBlock,
  kBreak,
  kContinue,
  kGeneration,
  // Expressions.
  kLiteral,
  kName,
  kList,
  kTuple,
  kDict,
  kUnary,
  kBinary,
  kCompare,
  kAnd,
  kOr,
  kNot,
  kTernary,
  kAttribute,
  kIndex,
  kSlice,
  kCall,
  kFilter,
  kTest,
  kPair,
  kNamed,
  kSpread,
};

// One kind of node for everything: `text` is a name or operator, `children` in the order the comments of the parser
// give.
struct Node {
  NodeKind kind = NodeKind::kBlock;
  std::string text;
  Data value;  // literals
  std::vector<std::shared_ptr<const Node>> children;
  std::vector<std::string> names;  // loop and set targets, parameters
  Mark mark;
  int height = 0;  // of the tree below
};
using NodePtr = std::shared_ptr<const Node>;

enum class TokenKind {
  kText,
  kPrintBegin,
  kPrintEnd,
  kBlockBegin,
  kBlockEnd,
  kName,
  kString,
  kInteger,
  kFloat,
  kOperator,
  kEnd
};

struct Token {
  TokenKind kind = TokenKind::kEnd;
  std::string text;
  Mark mark;
};

// Raises BadData with line and column.
std::vector<Token> tokenize(const std::string& source, const std::string& origin);
NodePtr parse_tokens(const std::vector<Token>& tokens, const std::string& origin);

[[noreturn]] void fail_at(const std::string& origin, Mark mark, const std::string& message);

}  // namespace instruct::templates
