#define PCRE2_CODE_UNIT_WIDTH 8
#include "tokenizers/split.h"

#include <pcre2.h>

#include "base/error.h"

namespace instruct::tokenizers {
namespace {

constexpr std::uint32_t kMatchLimit = 10'000'000;

// The White_Space property. PCRE's own \s under UCP differs in one character (U+180E).
constexpr std::string_view kSpaces =
    "\\t-\\r\\x20\\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}\\x{205F}\\x{3000}";

// Rewrites \s and \S; inside a class \s only (\S there does not occur in published tokenizers and is refused).
std::string with_exact_spaces(const std::string& pattern) {
  std::string result;
  bool in_class = false;
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    if (c == '\\' && i + 1 < pattern.size()) {
      const char next = pattern[++i];
      if (next == 's') {
        result += in_class ? std::string(kSpaces) : "[" + std::string(kSpaces) + "]";
      } else if (next == 'S') {
        if (in_class) raise(ErrorCategory::kUnsupported, "pre-tokenizer pattern '{}': \\S inside a class", pattern);
        result += "[^" + std::string(kSpaces) + "]";
      } else {
        result += c;
        result += next;
      }
      continue;
    }
    if (c == '[' && !in_class)
      in_class = true;
    else if (c == ']' && in_class)
      in_class = false;
    result += c;
  }
  return result;
}

}  // namespace

struct Splitter::Pattern {
  explicit Pattern(const SplitStep& step) : source(step.pattern) {
    const std::string text = with_exact_spaces(step.pattern);
    int code = 0;
    PCRE2_SIZE place = 0;
    compiled = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                             PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &code, &place, nullptr);
    if (compiled == nullptr) {
      unsigned char message[200];
      pcre2_get_error_message(code, message, sizeof(message));
      raise(ErrorCategory::kBadData, "pre-tokenizer pattern '{}': at character {}: {}", step.pattern, place,
            reinterpret_cast<const char*>(message));
    }
    pcre2_jit_compile(compiled, PCRE2_JIT_COMPLETE);
    context = pcre2_match_context_create(nullptr);
    pcre2_set_match_limit(context, kMatchLimit);
  }
  ~Pattern() {
    pcre2_match_context_free(context);
    pcre2_code_free(compiled);
  }
  Pattern(const Pattern&) = delete;
  Pattern& operator=(const Pattern&) = delete;

  // Adds the matches within `piece` and what lies between them.
  void apply(std::string_view text, TextRange piece, pcre2_match_data* data, std::vector<TextRange>& out) const {
    const std::string_view part = text.substr(piece.begin, piece.end - piece.begin);
    std::size_t position = 0;
    std::size_t done = 0;
    while (position <= part.size()) {
      const int status = pcre2_match(compiled, reinterpret_cast<PCRE2_SPTR>(part.data()), part.size(), position,
                                     PCRE2_NO_UTF_CHECK, data, context);
      if (status == PCRE2_ERROR_NOMATCH) break;
      if (status < 0) {
        raise(ErrorCategory::kBadData, "pre-tokenizer pattern '{}' gave up on a text of {} bytes (PCRE error {})",
              source, part.size(), status);
      }
      const PCRE2_SIZE* match = pcre2_get_ovector_pointer(data);
      if (match[1] <= match[0]) {  // an empty match: step over one character
        position = match[1] + 1;
        while (position < part.size() && (static_cast<unsigned char>(part[position]) & 0xC0) == 0x80) ++position;
        continue;
      }
      if (match[0] > done) out.push_back({piece.begin + done, piece.begin + match[0]});
      out.push_back({piece.begin + match[0], piece.begin + match[1]});
      done = position = match[1];
    }
    if (done < part.size()) out.push_back({piece.begin + done, piece.end});
  }

  std::string source;
  pcre2_code* compiled = nullptr;
  pcre2_match_context* context = nullptr;
};

Splitter::Splitter(const std::vector<SplitStep>& steps) {
  for (const SplitStep& step : steps) patterns_.push_back(std::make_unique<Pattern>(step));
}
Splitter::~Splitter() = default;
Splitter::Splitter(Splitter&&) noexcept = default;

std::vector<TextRange> Splitter::split(std::string_view text) const {
  std::vector<TextRange> pieces;
  if (!text.empty()) pieces.push_back({0, text.size()});
  const std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> data(pcre2_match_data_create(32, nullptr),
                                                                                 pcre2_match_data_free);
  for (const auto& pattern : patterns_) {
    std::vector<TextRange> next;
    next.reserve(pieces.size() * 2);
    for (const TextRange& piece : pieces) pattern->apply(text, piece, data.get(), next);
    pieces = std::move(next);
  }
  return pieces;
}

}  // namespace instruct::tokenizers
