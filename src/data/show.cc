#include "data/show.h"

#include <fmt/core.h>

#include <algorithm>
#include <span>

#include "base/text.h"

namespace instruct::data {
namespace {

using instructions::EncodedDialogue;

// Neighbouring tokens of which the text is shown together: a token may end inside a character, and then the character
// goes with the token that completes it.
struct Piece {
  std::string text;
  std::size_t first = 0;  // token
  bool trained = false;
  bool special = false;
  bool seam = false;
};

std::vector<Piece> pieces_of(const EncodedDialogue& encoded, const tokenizers::Tokenizer& tokenizer) {
  std::vector<Piece> pieces;
  std::string held;
  std::size_t first = 0;
  for (std::size_t i = 0; i < encoded.tokens.size(); ++i) {
    const tokenizers::TextRange range = encoded.ranges[i];
    // An added bos stands for no text: its own spelling is shown.
    const std::string text = range.begin == range.end ? std::string(tokenizer.token_bytes(encoded.tokens[i]))
                                                      : encoded.text.substr(range.begin, range.end - range.begin);
    if (held.empty()) first = i;
    held += text;
    if (incomplete_utf8_tail(held) > 0 && i + 1 < encoded.tokens.size()) continue;
    pieces.push_back({.text = repair_utf8(held),
                      .first = first,
                      .trained = encoded.trained[i] != 0,
                      .special = tokenizer.is_special(encoded.tokens[i]),
                      .seam = std::find(encoded.seams.begin(), encoded.seams.end(), i) != encoded.seams.end()});
    held.clear();
  }
  return pieces;
}

// Control characters would do things to a terminal: they are shown as pictures (U+2400 on).
std::string visible(const std::string& text) {
  std::string result;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if ((byte < 0x20 && c != '\n') || byte == 0x7F) {
      append_utf8(result, byte == 0x7F ? U'\u2421' : U'\u2400' + byte);
    } else {
      result += c;
    }
  }
  return result;
}

std::string escaped(const std::string& text) {
  std::string result;
  for (const char c : text) {
    switch (c) {
      case '&':
        result += "&amp;";
        break;
      case '<':
        result += "&lt;";
        break;
      case '>':
        result += "&gt;";
        break;
      case '"':
        result += "&quot;";
        break;
      case '\n':
        result += "&#10;";
        break;
      default:
        result += c;
    }
  }
  return result;
}

std::string headline(const ShownRow& row) {
  const auto trained = std::count(row.encoded.trained.begin(), row.encoded.trained.end(), std::uint8_t{1});
  std::string text = fmt::format("{}: {} tokens, {} trained", row.title, row.encoded.tokens.size(), trained);
  if (!row.encoded.end_trained) text += ", no end-of-turn token trained";
  if (!row.encoded.follows_prompt) text += ", not the prompt it is served with";
  if (!row.encoded.seams.empty()) text += fmt::format(", {} seams", row.encoded.seams.size());
  return text;
}

std::string coloured(const std::vector<Piece>& pieces) {
  std::string text;
  bool odd = false;
  for (const Piece& piece : pieces) {
    odd = !odd;
    const char* style = piece.seam      ? "\x1b[30;43m"
                        : piece.trained ? (odd ? "\x1b[30;42m" : "\x1b[30;102m")
                        : piece.special ? "\x1b[2m"
                                        : "";
    text += style + visible(piece.text) + (*style != '\0' ? "\x1b[0m" : "");
  }
  return text;
}

std::string marked(const std::vector<Piece>& pieces) {
  std::string text;
  bool open = false;
  for (const Piece& piece : pieces) {
    if (piece.trained != open) text += open ? "»" : "«";
    open = piece.trained;
    text += visible(piece.text);
  }
  return text + (open ? "»" : "");
}

constexpr const char* kPageHead = R"(<!doctype html>
<meta charset="utf-8"><title>Rows as the model sees them</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: #f6f6f6; padding: 1rem; }
.t { background: #b8e6b8; } .t:nth-child(even) { background: #9cd79c; } .s { color: #888; } .x { background: #f2d16b; }
</style>
<p><span class="t">trained</span>, <span class="s">special</span>, <span class="x">seam: part answer, part not</span></p>
)";

}  // namespace

ShownRow shown_text(const std::string& title, const TextRow& row, const std::string& output,
                    const tokenizers::Tokenizer& tokenizer) {
  ShownRow shown{.title = output.empty() ? title : fmt::format("{}: {}", title, output), .encoded = {}};
  EncodedDialogue& encoded = shown.encoded;
  encoded.tokens = row.tokens;
  encoded.end_trained = true;  // there is none that could be missed
  encoded.trained.assign(row.tokens.size(), 0);
  for (std::size_t i = 0; i < row.tokens.size(); ++i) {
    // What a token adds to the text depends on the one before it: a space between words.
    const auto pair = std::span(row.tokens).subspan(i > 0 ? i - 1 : 0, i > 0 ? 2 : 1);
    const std::string before = i > 0 ? tokenizer.decode(pair.first(1)) : "";
    const std::string both = tokenizer.decode(pair);
    const std::size_t begin = encoded.text.size();
    encoded.text += both.substr(std::min(before.size(), both.size()));
    encoded.ranges.push_back({begin, encoded.text.size()});
  }
  const bool span = row.source != nullptr && row.parts.size() == row.tokens.size();
  const bool each = row.source != nullptr || !row.sentences.empty();  // parts are true or not
  for (std::size_t i = 0; i < row.parts.size(); ++i) {
    const auto part = static_cast<float>(i);
    const bool marked = span ? !row.truth.empty() && row.truth[1] > 0 && part >= row.truth[0] && part <= row.truth[1]
                             : !each || (!row.truth.empty() && row.truth[i] > 0);
    for (std::int64_t at = row.parts[i].begin; marked && at < row.parts[i].end; ++at)
      encoded.trained[static_cast<std::size_t>(at)] = 1;
  }
  return shown;
}

std::string show_row(const ShownRow& row, const tokenizers::Tokenizer& tokenizer, Colour colour) {
  const std::vector<Piece> pieces = pieces_of(row.encoded, tokenizer);
  const std::string text = colour == Colour::kAlways ? coloured(pieces) : marked(pieces);
  return headline(row) + "\n" + text + (text.ends_with('\n') ? "" : "\n");
}

std::string show_html(const std::vector<ShownRow>& rows, const tokenizers::Tokenizer& tokenizer) {
  std::string page = kPageHead;
  for (const ShownRow& row : rows) {
    page += "<h2>" + escaped(headline(row)) + "</h2>\n<pre>";
    for (const Piece& piece : pieces_of(row.encoded, tokenizer)) {
      const std::string style = std::string(piece.seam ? "x" : piece.trained ? "t" : "") + (piece.special ? " s" : "");
      page += fmt::format("<span class=\"{}\" title=\"token {}, id {}\">{}</span>", style, piece.first,
                          row.encoded.tokens[piece.first], escaped(visible(piece.text)));
    }
    page += "</pre>\n";
  }
  return page;
}

}  // namespace instruct::data
