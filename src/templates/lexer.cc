// Template source to tokens, with trim_blocks and lstrip_blocks.
#include <algorithm>
#include <array>

#include "base/error.h"
#include "base/text.h"
#include "templates/strings.h"
#include "templates/syntax.h"

namespace instruct::templates {

void fail_at(const std::string& origin, Mark mark, const std::string& message) {
  raise(ErrorCategory::kBadData, "{}: line {}, column {}: {}", origin, mark.line, mark.column, message);
}

namespace {

constexpr std::array<std::string_view, 24> kOperators{"==", "!=", "<=", ">=", "//", "**", "+", "-", "*", "/", "%", "~",
                                                      "<",  ">",  "=",  "(",  ")",  "[",  "]", "{", "}", ",", ":", "|"};

class Lexer {
 public:
  Lexer(const std::string& source, const std::string& origin) : origin_(origin) {
    // Jinja makes every line end "\n", and drops one at the end of a template.
    for (std::size_t i = 0; i < source.size(); ++i) {
      if (source[i] == '\r' && i + 1 < source.size() && source[i + 1] == '\n') continue;
      source_ += source[i] == '\r' ? '\n' : source[i];
    }
    if (source_.ends_with('\n')) source_.pop_back();
  }

  std::vector<Token> run() {
    while (position_ < source_.size()) text();
    tokens_.push_back({TokenKind::kEnd, "", mark()});
    return std::move(tokens_);
  }

 private:
  Mark mark() {
    // Marks are asked for in order: count from where the last one was.
    while (counted_ < position_) {
      if (source_[counted_++] == '\n') {
        ++line_;
        line_begin_ = counted_;
      }
    }
    return {line_, static_cast<int>(position_ - line_begin_) + 1};
  }
  bool at(std::string_view what) const { return source_.compare(position_, what.size(), what) == 0; }

  // Plain text up to the next tag, then the tag.
  void text() {
    const Mark start = mark();
    std::size_t end = position_;
    while (end < source_.size() && !(source_[end] == '{' && end + 1 < source_.size() &&
                                     (source_[end + 1] == '{' || source_[end + 1] == '%' || source_[end + 1] == '#'))) {
      ++end;
    }
    std::string piece = source_.substr(position_, end - position_);
    const char kind = end < source_.size() ? source_[end + 1] : '\0';
    const char control = end + 2 < source_.size() ? source_[end + 2] : '\0';
    if (trim_next_) {
      piece = strip(Text(piece), std::nullopt, Side::kLeft).chars();
    } else if (newline_next_ && piece.starts_with('\n')) {
      piece.erase(0, 1);
    }
    const bool skipped_all = piece.empty();
    if (kind != '\0' && control == '-') {
      piece = strip(Text(piece), std::nullopt, Side::kRight).chars();
    } else if ((kind == '%' || kind == '#') && control != '+') {
      // lstrip_blocks: blanks between the line's start and the tag.
      const std::size_t last = piece.find_last_not_of(" \t");
      const bool line_start = last == std::string::npos
                                  ? (end - piece.size() == 0 || source_[end - piece.size() - 1] == '\n')
                                  : piece[last] == '\n';
      if (line_start && !(skipped_all && trim_next_)) piece.resize(last == std::string::npos ? 0 : last + 1);
    }
    trim_next_ = newline_next_ = false;
    if (!piece.empty()) tokens_.push_back({TokenKind::kText, std::move(piece), start});
    position_ = end;
    if (kind == '\0') return;
    if (kind == '#') return comment();
    if (kind == '%' && raw_block()) return;
    tag(kind == '{');
  }

  void comment() {
    const Mark start = mark();
    const std::size_t end = source_.find("#}", position_ + 2);
    if (end == std::string::npos) fail_at(origin_, start, "a comment is never closed: expected '#}'");
    trim_next_ = end > position_ && source_[end - 1] == '-';
    newline_next_ = !(end > position_ && source_[end - 1] == '+');
    position_ = end + 2;
  }

  // {% raw %} ... {% endraw %} becomes text. False when the block is another one.
  bool raw_block() {
    std::size_t i = position_ + 2;
    if (i < source_.size() && (source_[i] == '-' || source_[i] == '+')) ++i;
    i = std::min(source_.find_first_not_of(" \t\n\r", i), source_.size());
    if (source_.compare(i, 3, "raw") != 0) return false;
    i = std::min(source_.find_first_not_of(" \t\n\r", i + 3), source_.size());
    bool trim_begin = false;
    if (i < source_.size() && source_[i] == '-') {
      trim_begin = true;
      ++i;
    }
    if (source_.compare(i, 2, "%}") != 0) return false;
    const Mark start = mark();
    std::size_t begin = i + 2;
    std::size_t search = begin;
    for (;;) {
      const std::size_t open = source_.find("{%", search);
      if (open == std::string::npos) fail_at(origin_, start, "'raw' is never closed: expected '{% endraw %}'");
      std::size_t j = open + 2;
      const bool trim_end = j < source_.size() && source_[j] == '-';
      if (trim_end) ++j;
      j = std::min(source_.find_first_not_of(" \t\n\r", j), source_.size());
      if (source_.compare(j, 6, "endraw") != 0) {
        search = open + 2;
        continue;
      }
      const std::size_t close = source_.find("%}", j);
      if (close == std::string::npos) fail_at(origin_, start, "'endraw' is never closed: expected '%}'");
      std::string piece = source_.substr(begin, open - begin);
      if (trim_begin) piece = strip(Text(piece), std::nullopt, Side::kLeft).chars();
      if (trim_end) piece = strip(Text(piece), std::nullopt, Side::kRight).chars();
      if (!piece.empty()) tokens_.push_back({TokenKind::kText, std::move(piece), start});
      trim_next_ = source_[close - 1] == '-';
      newline_next_ = true;
      position_ = close + 2;
      return true;
    }
  }

  void tag(bool print) {
    const Mark start = mark();
    tokens_.push_back({print ? TokenKind::kPrintBegin : TokenKind::kBlockBegin, "", start});
    position_ += 2;
    if (position_ < source_.size() && (source_[position_] == '-' || source_[position_] == '+')) ++position_;
    const std::string_view close = print ? "}}" : "%}";
    int depth = 0;
    for (;;) {
      position_ = std::min(source_.find_first_not_of(" \t\n\r\f\v", position_), source_.size());
      if (position_ >= source_.size())
        fail_at(origin_, start, fmt::format("a tag is never closed: expected '{}'", close));
      const bool minus = source_[position_] == '-' && source_.compare(position_ + 1, 2, close) == 0;
      const bool plus = source_[position_] == '+' && source_.compare(position_ + 1, 2, close) == 0;
      if (depth == 0 && (minus || plus || at(close))) {
        tokens_.push_back({print ? TokenKind::kPrintEnd : TokenKind::kBlockEnd, "", mark()});
        position_ += minus || plus ? 3 : 2;
        trim_next_ = minus;
        newline_next_ = !print && !plus;
        return;
      }
      const std::size_t before = tokens_.size();
      inner();
      const std::string& token = tokens_[before].text;
      if (tokens_[before].kind == TokenKind::kOperator) {
        if (token == "(" || token == "[" || token == "{") ++depth;
        if (token == ")" || token == "]" || token == "}") --depth;
      }
    }
  }

  // One token of an expression.
  void inner() {
    const Mark start = mark();
    const char c = source_[position_];
    const auto is_word = [](char x) {
      return std::isalnum(static_cast<unsigned char>(x)) != 0 || x == '_' || static_cast<unsigned char>(x) >= 0x80;
    };
    if (std::isdigit(static_cast<unsigned char>(c)) != 0) return number(start);
    if (is_word(c)) {
      std::size_t end = position_;
      while (end < source_.size() && is_word(source_[end])) ++end;
      tokens_.push_back({TokenKind::kName, source_.substr(position_, end - position_), start});
      position_ = end;
      return;
    }
    if (c == '"' || c == '\'') return string(start);
    if (c == '.') {
      tokens_.push_back({TokenKind::kOperator, ".", start});
      ++position_;
      return;
    }
    for (const std::string_view op : kOperators) {
      if (at(op)) {
        tokens_.push_back({TokenKind::kOperator, std::string(op), start});
        position_ += op.size();
        return;
      }
    }
    fail_at(origin_, start, fmt::format("unexpected character '{}'", c));
  }

  void number(Mark start) {
    std::size_t end = position_;
    bool real = false;
    const auto digits = [&] {
      while (end < source_.size() &&
             (std::isdigit(static_cast<unsigned char>(source_[end])) != 0 || source_[end] == '_'))
        ++end;
    };
    digits();
    if (end + 1 < source_.size() && source_[end] == '.' &&
        std::isdigit(static_cast<unsigned char>(source_[end + 1])) != 0) {
      real = true;
      ++end;
      digits();
    }
    if (end < source_.size() && (source_[end] == 'e' || source_[end] == 'E')) {
      std::size_t exponent = end + 1;
      if (exponent < source_.size() && (source_[exponent] == '+' || source_[exponent] == '-')) ++exponent;
      if (exponent < source_.size() && std::isdigit(static_cast<unsigned char>(source_[exponent])) != 0) {
        real = true;
        end = exponent;
        digits();
      }
    }
    std::string text = source_.substr(position_, end - position_);
    std::erase(text, '_');
    tokens_.push_back({real ? TokenKind::kFloat : TokenKind::kInteger, std::move(text), start});
    position_ = end;
  }

  void string(Mark start) {
    const char quote = source_[position_++];
    std::string text;
    for (;; ++position_) {
      if (position_ >= source_.size())
        fail_at(origin_, start, fmt::format("a text is never closed: expected {}", quote));
      const char c = source_[position_];
      if (c == quote) break;
      if (c == '\\' && position_ + 1 < source_.size()) {
        escape(text, source_[++position_]);
      } else {
        text += c;
      }
    }
    ++position_;
    tokens_.push_back({TokenKind::kString, std::move(text), start});
  }

  void escape(std::string& text, char c) {
    const auto hex = [&](std::size_t count) {
      char32_t code = 0;
      for (std::size_t i = 0; i < count && position_ + 1 < source_.size() &&
                              std::isxdigit(static_cast<unsigned char>(source_[position_ + 1])) != 0;
           ++i) {
        const char digit = source_[++position_];
        code = code * 16 + static_cast<char32_t>(digit <= '9' ? digit - '0' : (digit | 0x20) - 'a' + 10);
      }
      append_utf8(text, code > 0x10FFFF || (code >= 0xD800 && code < 0xE000) ? U'\uFFFD' : code);
    };
    if (c >= '0' && c <= '7') {  // up to three octal digits
      char32_t code = static_cast<char32_t>(c - '0');
      for (int i = 0;
           i < 2 && position_ + 1 < source_.size() && source_[position_ + 1] >= '0' && source_[position_ + 1] <= '7';
           ++i)
        code = code * 8 + static_cast<char32_t>(source_[++position_] - '0');
      return append_utf8(text, code);
    }
    switch (c) {
      case 'n':
        text += '\n';
        return;
      case 't':
        text += '\t';
        return;
      case 'r':
        text += '\r';
        return;
      case 'b':
        text += '\b';
        return;
      case 'f':
        text += '\f';
        return;
      case 'v':
        text += '\v';
        return;
      case 'a':
        text += '\a';
        return;
      case '\n':
        return;
      case 'x':
        return hex(2);
      case 'u':
        return hex(4);
      case 'U':
        return hex(8);
      case '\\':
      case '\'':
      case '"':
        text += c;
        return;
      default:
        text += '\\';
        text += c;
    }
  }

  std::string source_;
  const std::string& origin_;
  std::size_t position_ = 0;
  std::size_t counted_ = 0;
  std::size_t line_begin_ = 0;
  int line_ = 1;
  bool trim_next_ = false;     // strip all white space from the next text
  bool newline_next_ = false;  // drop one line end from it
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(const std::string& source, const std::string& origin) {
  return Lexer(source, origin).run();
}

}  // namespace instruct::templates
