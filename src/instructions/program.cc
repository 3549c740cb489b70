#include "instructions/program.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/error.h"
#include "base/json.h"
#include "base/text.h"

namespace instruct::instructions {
namespace {

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}
// Bytes of characters outside ASCII count as letters, except the full-width punctuation parse errors speak of.
bool starts_name(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || static_cast<unsigned char>(c) >= 0x80;
}
bool continues_name(char c) {
  return starts_name(c) || is_digit(c);
}

struct Lookalike {
  std::string_view written;
  std::string_view meant;
};
// Characters that an input method or a word processor puts where ASCII was meant.
constexpr Lookalike kLookalikes[] = {{"（", "("},     {"）", ")"},    {"，", ","}, {"、", ","},  {"＝", "="},
                                     {"【", "["},     {"】", "]"},    {"［", "["}, {"］", "]"},  {"‘", "'"},
                                     {"’", "'"},      {"“", "\""},    {"”", "\""}, {"＂", "\""}, {"＇", "'"},
                                     {"\u00a0", " "}, {"\u3000", " "}};
constexpr std::string_view kEllipsis = "…";

class Parser {
 public:
  Parser(std::string_view source, std::string_view origin) : source_(source), origin_(origin) {}

  Program parse() {
    Program program;
    skip_space();
    if (at_end()) fail("expected a call such as summary(text), the program is empty");
    if (peek() == '[') {
      list(program);
    } else {
      program.calls.push_back(call(1));
    }
    skip_space();
    if (!at_end()) {
      fail(program.list ? "expected the end of the program after ']', got {}"
                        : "expected the end of the program, got {} (several calls need brackets: [a(x), b(x)])");
    }
    return program;
  }

 private:
  void list(Program& program) {
    program.list = true;
    advance(1);
    for (;;) {
      skip_space();
      if (const std::size_t dots = ellipsis(); dots > 0) {
        if (program.calls.empty()) fail("'...' needs a call before it to continue");
        program.continues = true;
        program.continues_mark = mark();
        advance(dots);
        skip_space();
        if (at_end() || peek() != ']') fail("expected ']' after '...', got {}");
        advance(1);
        return;
      }
      program.calls.push_back(call(1));
      skip_space();
      if (!at_end() && peek() == ',') {
        advance(1);
        continue;
      }
      if (!at_end() && peek() == ']') {
        advance(1);
        return;
      }
      fail("expected ',' or ']' after a call, got {}");
    }
  }

  Call call(int depth) {
    if (depth > kMaxCallDepth) fail(fmt::format("calls inside calls deeper than {}", kMaxCallDepth));
    skip_space();
    Call call;
    call.mark = mark();
    call.verb = name("a verb");
    skip_space();
    if (at_end() || peek() != '(') fail(fmt::format("expected '(' after verb '{}', got {{}}", call.verb));
    advance(1);
    skip_space();
    if (!at_end() && peek() == ')') {
      advance(1);
      return call;
    }
    for (;;) {
      call.arguments.push_back(argument(depth));
      skip_space();
      if (!at_end() && peek() == ',') {
        advance(1);
        continue;
      }
      if (!at_end() && peek() == ')') {
        advance(1);
        return call;
      }
      fail(fmt::format("expected ',' or ')' in the arguments of '{}', got {{}}", call.verb));
    }
  }

  Argument argument(int depth) {
    skip_space();
    Argument argument;
    argument.mark = mark();
    if (!at_end() && starts_name(peek()) && lookalike().meant.empty()) {
      const std::size_t start = offset_;
      const Mark start_mark = mark();
      std::string first = name("an argument");
      skip_space();
      if (!at_end() && peek() == '=') {
        advance(1);
        skip_space();
        argument.name = std::move(first);
        value(argument, depth);
        return argument;
      }
      rewind(start, start_mark);
    }
    value(argument, depth);
    return argument;
  }

  // What stands after "name=" or alone.
  void value(Argument& argument, int depth) {
    constexpr std::string_view kExpected =
        "expected an argument (a variable, a 'selector', a \"text\", a number or a call), got {}";
    if (at_end()) fail(kExpected);
    const char c = peek();
    if (c == '\'') {
      argument.kind = ArgumentKind::kSelector;
      argument.text = quoted('\'');
    } else if (c == '"') {
      argument.kind = ArgumentKind::kLiteral;
      argument.literal = Value(quoted('"'));
    } else if (is_digit(c) || c == '-' || c == '+') {
      argument.kind = ArgumentKind::kLiteral;
      argument.literal = number();
    } else if (starts_name(c) && lookalike().meant.empty()) {
      const std::size_t start = offset_;
      const Mark start_mark = mark();
      std::string text = name("an argument");
      skip_space();
      if (!at_end() && peek() == '(') {
        rewind(start, start_mark);
        argument.kind = ArgumentKind::kCall;
        argument.call.push_back(call(depth + 1));
      } else {
        argument.kind = ArgumentKind::kVariable;
        argument.text = std::move(text);
      }
    } else {
      fail(kExpected);
    }
  }

  std::string name(std::string_view what) {
    if (at_end() || !starts_name(peek()) || !lookalike().meant.empty() || ellipsis() > 0) {
      fail(fmt::format("expected {}, got {{}}", what));
    }
    const std::size_t start = offset_;
    while (!at_end() && continues_name(peek()) && lookalike().meant.empty() && ellipsis() == 0) advance(1);
    return std::string(source_.substr(start, offset_ - start));
  }

  std::string quoted(char quote) {
    const Mark start = mark();
    advance(1);
    std::string text;
    while (!at_end() && peek() != quote) {
      if (peek() == '\\') {
        advance(1);
        if (at_end()) break;
        text += escaped();
      } else {
        text += peek();
      }
      advance(1);
    }
    if (at_end()) fail_at(start, fmt::format("the text that starts with {} here has no closing {}", quote, quote));
    advance(1);
    return text;
  }

  char escaped() {
    switch (peek()) {
      case 'n':
        return '\n';
      case 't':
        return '\t';
      case 'r':
        return '\r';
      case '\\':
      case '\'':
      case '"':
        return peek();
      default:
        fail("expected \\n, \\t, \\r, \\\\, \\' or \\\" after a backslash, got {}");
    }
  }

  Value number() {
    const Mark start_mark = mark();
    const std::size_t start = offset_;
    advance(1);
    while (!at_end() &&
           (continues_name(peek()) || peek() == '.' || ((peek() == '-' || peek() == '+') && exponent_before()))) {
      if (ellipsis() > 0 || !lookalike().meant.empty()) break;
      advance(1);
    }
    const std::string_view text = source_.substr(start, offset_ - start);
    std::string_view digits = text;
    if (digits.starts_with('+')) digits.remove_prefix(1);
    const char* end = digits.data() + digits.size();
    std::int64_t integer = 0;
    if (const auto [stop, status] = std::from_chars(digits.data(), end, integer);
        status == std::errc() && stop == end) {
      return Value(integer);
    }
    double real = 0;
    const auto [stop, status] = std::from_chars(digits.data(), end, real);
    if (status != std::errc() || stop != end || !std::isfinite(real)) {
      fail_at(start_mark, fmt::format("'{}' is not a number", text));
    }
    return Value(real);
  }

  bool exponent_before() const { return source_[offset_ - 1] == 'e' || source_[offset_ - 1] == 'E'; }

  std::size_t ellipsis() const {
    const std::string_view rest = source_.substr(offset_);
    if (rest.starts_with("...")) return 3;
    if (!rest.starts_with(kEllipsis)) return 0;
    return rest.substr(kEllipsis.size()).starts_with(kEllipsis) ? 2 * kEllipsis.size() : kEllipsis.size();
  }

  Lookalike lookalike() const {
    const std::string_view rest = source_.substr(offset_);
    for (const Lookalike& entry : kLookalikes) {
      if (rest.starts_with(entry.written)) return entry;
    }
    return {};
  }

  bool at_end() const { return offset_ >= source_.size(); }
  char peek() const { return source_[offset_]; }
  Mark mark() const { return {line_, column_}; }
  void rewind(std::size_t offset, Mark mark) {
    offset_ = offset;
    line_ = mark.line;
    column_ = mark.column;
  }
  void advance(std::size_t bytes) {
    for (std::size_t i = 0; i < bytes && !at_end(); ++i, ++offset_) {
      const char c = source_[offset_];
      if (c == '\n') {
        ++line_;
        column_ = 1;
      } else if ((static_cast<unsigned char>(c) & 0xC0) != 0x80) {
        ++column_;
      }
    }
  }
  void skip_space() {
    while (!at_end() && (peek() == ' ' || peek() == '\t' || peek() == '\n' || peek() == '\r')) advance(1);
  }

  // What is at the current place, for messages.
  std::string found() const {
    if (at_end()) return "the end of the program";
    if (const Lookalike look = lookalike(); !look.meant.empty()) {
      return fmt::format("'{}' (write '{}')", look.written, look.meant);
    }
    std::size_t size = 1;
    while (offset_ + size < source_.size() && (static_cast<unsigned char>(source_[offset_ + size]) & 0xC0) == 0x80)
      ++size;
    return fmt::format("'{}'", source_.substr(offset_, size));
  }

  // `what` may hold one {} for what was found.
  [[noreturn]] void fail(std::string_view what) const {
    std::string text(what);
    if (const std::size_t hole = text.find("{}"); hole != std::string::npos) text.replace(hole, 2, found());
    fail_at(mark(), text);
  }
  [[noreturn]] void fail_at(Mark where, std::string_view what) const {
    raise(ErrorCategory::kBadData, "{}: line {}, column {}: {}", origin_, where.line, where.column, what);
  }

  std::string_view source_;
  std::string_view origin_;
  std::size_t offset_ = 0;
  int line_ = 1;
  int column_ = 1;
};

std::string quote(std::string_view text, char mark) {
  std::string out(1, mark);
  for (const char c : text) {
    switch (c) {
      case '\n':
        out += "\\n";
        break;
      case '\t':
        out += "\\t";
        break;
      case '\r':
        out += "\\r";
        break;
      case '\\':
        out += "\\\\";
        break;
      default:
        if (c == mark) out += '\\';
        out += c;
    }
  }
  return out + mark;
}

void print(const Call& call, std::string& out);

void print(const Argument& argument, std::string& out) {
  if (!argument.name.empty()) out += argument.name + "=";
  switch (argument.kind) {
    case ArgumentKind::kVariable:
      out += argument.text;
      break;
    case ArgumentKind::kSelector:
      out += quote(argument.text, '\'');
      break;
    case ArgumentKind::kLiteral:
      out += argument.literal.is_string() ? quote(argument.literal.as_string(), '"') : dump_json(argument.literal);
      break;
    case ArgumentKind::kCall:
      for (const Call& call : argument.call) print(call, out);
  }
}

void print(const Call& call, std::string& out) {
  out += call.verb + "(";
  for (std::size_t i = 0; i < call.arguments.size(); ++i) {
    if (i > 0) out += ", ";
    print(call.arguments[i], out);
  }
  out += ")";
}

}  // namespace

bool operator==(const Argument& a, const Argument& b) {
  return a.name == b.name && a.kind == b.kind && a.text == b.text && a.literal == b.literal && a.call == b.call;
}
bool operator==(const Call& a, const Call& b) {
  return a.verb == b.verb && a.arguments == b.arguments;
}
bool operator==(const Program& a, const Program& b) {
  return a.calls == b.calls && a.list == b.list && a.continues == b.continues;
}

Program parse_program(std::string_view source, std::string_view origin) {
  if (source.size() > kMaxProgramBytes) {
    raise(ErrorCategory::kBadData, "{}: a program of {} bytes; at most {} are read", origin, source.size(),
          kMaxProgramBytes);
  }
  if (const auto bad = find_invalid_utf8(source)) {
    raise(ErrorCategory::kBadData, "{}: invalid UTF-8 at byte {}", origin, *bad);
  }
  return Parser(source, origin).parse();
}

std::string print_call(const Call& call) {
  std::string out;
  print(call, out);
  return out;
}

std::string print_program(const Program& program) {
  std::string out = program.list ? "[" : "";
  for (std::size_t i = 0; i < program.calls.size(); ++i) {
    if (i > 0) out += ", ";
    print(program.calls[i], out);
  }
  if (program.continues) out += ", ...";
  return program.list ? out + "]" : out;
}

bool is_program_name(std::string_view name) {
  if (name.empty() || !starts_name(name.front())) return false;
  if (!std::all_of(name.begin(), name.end(), continues_name) || find_invalid_utf8(name)) return false;
  if (name.find(kEllipsis) != std::string_view::npos) return false;
  return std::none_of(std::begin(kLookalikes), std::end(kLookalikes),
                      [&](const Lookalike& entry) { return name.find(entry.written) != std::string_view::npos; });
}

}  // namespace instruct::instructions
