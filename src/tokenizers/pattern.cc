#define PCRE2_CODE_UNIT_WIDTH 8
#include "tokenizers/pattern.h"

#include <pcre2.h>

#include <algorithm>

#include "base/error.h"

namespace instruct::tokenizers {
namespace {

constexpr std::uint32_t kMatchLimit = 10'000'000;
constexpr std::string_view kOperators = "\\^$.|?*+()[]{}";

// The White_Space property. PCRE's own \s under UCP differs in one character (U+180E).
constexpr std::string_view kSpaces =
    "\\t-\\r\\x20\\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}\\x{205F}\\x{3000}";

// Oniguruma's dialect in PCRE2's words.
class Translator {
 public:
  explicit Translator(const std::string& pattern) : pattern_(pattern) {}

  std::string run() {
    for (at_ = 0; at_ < pattern_.size(); ++at_) {
      const char c = pattern_[at_];
      if (c == '\\' && at_ + 1 < pattern_.size()) {
        escape(pattern_[++at_]);
        continue;
      }
      if (in_class_) {
        if (c == '&' && next_is('&')) refuse("'&&' in a class");
        if (c == '[' && !next_is(':')) refuse("a class in a class");
        if (c == '[') {
          posix_class();
          continue;
        }
        if (c == ']') in_class_ = false;
      } else if (c == '[') {
        in_class_ = true;
      } else if (c == '}' && next_is('+')) {
        refuse("'+' behind a counted repetition");  // Oniguruma repeats the whole, PCRE2 forbids giving back
      }
      result_ += pattern_[at_];
    }
    return std::move(result_);
  }

 private:
  [[noreturn]] void refuse(const char* what) const {
    raise(ErrorCategory::kUnsupported, "pre-tokenizer pattern '{}': at byte {}: {}", pattern_, at_, what);
  }
  bool next_is(char c) const { return at_ + 1 < pattern_.size() && pattern_[at_ + 1] == c; }

  // "[:alpha:]" is copied whole.
  void posix_class() {
    const std::size_t end = pattern_.find(":]", at_ + 2);
    if (end == std::string::npos) refuse("a class in a class");
    result_ += pattern_.substr(at_, end + 2 - at_);
    at_ = end + 1;
  }

  void escape(char next) {
    switch (next) {
      case 's':
        result_ += in_class_ ? std::string(kSpaces) : "[" + std::string(kSpaces) + "]";
        return;
      case 'S':
        if (in_class_) refuse("\\S in a class");
        result_ += "[^" + std::string(kSpaces) + "]";
        return;
      case 'h':
        result_ += in_class_ ? "0-9a-fA-F" : "[0-9a-fA-F]";
        return;
      case 'H':
        if (in_class_) refuse("\\H in a class");
        result_ += "[^0-9a-fA-F]";
        return;
      default:
        result_ += '\\';
        result_ += next;
        if (next_is('{')) copy_braces();
    }
  }

  // The argument of an escape: "{L}" behind "\p".
  void copy_braces() {
    const std::size_t end = std::min(pattern_.find('}', at_), pattern_.size() - 1);
    result_ += pattern_.substr(at_ + 1, end - at_);
    at_ = end;
  }

  const std::string& pattern_;
  std::size_t at_ = 0;
  bool in_class_ = false;
  std::string result_;
};

}  // namespace

struct Pattern::Compiled {
  explicit Compiled(std::string given) : source(std::move(given)) {
    const std::string text = Translator(source).run();
    int code = 0;
    PCRE2_SIZE place = 0;
    pattern = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                            PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &code, &place, nullptr);
    if (pattern == nullptr) {
      unsigned char message[200];
      pcre2_get_error_message(code, message, sizeof(message));
      raise(ErrorCategory::kBadData, "pre-tokenizer pattern '{}': at character {}: {}", source, place,
            reinterpret_cast<const char*>(message));
    }
    pcre2_jit_compile(pattern, PCRE2_JIT_COMPLETE);
    context = pcre2_match_context_create(nullptr);
    pcre2_set_match_limit(context, kMatchLimit);
  }
  ~Compiled() {
    pcre2_match_context_free(context);
    pcre2_code_free(pattern);
  }
  Compiled(const Compiled&) = delete;
  Compiled& operator=(const Compiled&) = delete;

  std::string source;
  pcre2_code* pattern = nullptr;
  pcre2_match_context* context = nullptr;
};

Pattern::Pattern(std::string source) : compiled_(std::make_unique<Compiled>(std::move(source))) {}
Pattern::~Pattern() = default;
Pattern::Pattern(Pattern&&) noexcept = default;

struct Pattern::Matches::State {
  explicit State(const Compiled& given) : compiled(given), data(pcre2_match_data_create(1, nullptr)) {}
  ~State() { pcre2_match_data_free(data); }
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  int match(std::uint32_t options) const {
    return pcre2_match(compiled.pattern, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), position, options,
                       data, compiled.context);
  }

  const Compiled& compiled;
  pcre2_match_data* data;
  std::string_view text;
  std::size_t position = 0;
  std::optional<std::size_t> last_end;
};

Pattern::Matches::Matches(const Pattern& pattern, std::string_view text)
    : state_(std::make_unique<State>(*pattern.compiled_)) {
  reset(text);
}
Pattern::Matches::~Matches() = default;

void Pattern::Matches::reset(std::string_view text) {
  state_->text = text;
  state_->position = 0;
  state_->last_end.reset();
}

std::optional<TextRange> Pattern::Matches::next() {
  State& state = *state_;
  while (state.position <= state.text.size()) {
    int status = state.match(PCRE2_NO_UTF_CHECK);
    // Compiled matching has a small stack; the interpreter goes on where that ends.
    if (status == PCRE2_ERROR_JIT_STACKLIMIT) status = state.match(PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT);
    if (status == PCRE2_ERROR_NOMATCH) return std::nullopt;
    if (status < 0) {
      raise(ErrorCategory::kBadData, "pre-tokenizer pattern '{}' gave up on a text of {} bytes (PCRE error {})",
            state.compiled.source, state.text.size(), status);
    }
    const PCRE2_SIZE* place = pcre2_get_ovector_pointer(state.data);
    const TextRange found{place[0], place[1]};
    if (found.begin < found.end || state.last_end != found.end) {
      if (found.end < found.begin || found.begin < state.position) return std::nullopt;  // only through \K
      state.position = found.end;
      state.last_end = found.end;
      return found;
    }
    ++state.position;
    while (state.position < state.text.size() &&
           (static_cast<unsigned char>(state.text[state.position]) & 0xC0) == 0x80)
      ++state.position;
  }
  return std::nullopt;
}

std::string quote_pattern(std::string_view text) {
  std::string quoted;
  for (const char c : text) {
    if (kOperators.find(c) != std::string_view::npos) quoted += '\\';
    quoted += c;
  }
  return quoted;
}

std::optional<std::string> literal_of_pattern(std::string_view pattern) {
  std::string text;
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    if (pattern[i] == '\\') {
      if (++i == pattern.size() || kOperators.find(pattern[i]) == std::string_view::npos) return std::nullopt;
    } else if (kOperators.find(pattern[i]) != std::string_view::npos) {
      return std::nullopt;
    }
    text += pattern[i];
  }
  return text.empty() ? std::nullopt : std::optional(text);
}

}  // namespace instruct::tokenizers
