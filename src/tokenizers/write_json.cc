// A TokenizerSpec as tokenizer.json, so that models from GGUF files can become Hugging Face folders.
#include <algorithm>
#include <map>
#include <unordered_map>

#include "base/error.h"
#include "base/text.h"
#include "tokenizers/base64.h"
#include "tokenizers/frame.h"
#include "tokenizers/pattern.h"
#include "tokenizers/tokenizer.h"

namespace instruct::tokenizers {
namespace {

Value typed(const char* type) {
  return Value::object({{"type", type}});
}

Value replace(const std::string& pattern, const std::string& content) {
  Value result = typed("Replace");
  const auto literal = literal_of_pattern(pattern);
  result.set("pattern", literal ? Value::object({{"String", *literal}}) : Value::object({{"Regex", pattern}}));
  result.set("content", content);
  return result;
}

Value sequence(const char* key, Value parts) {
  if (parts.size() == 0) return {};
  if (parts.size() == 1) return std::move(parts.as_array()[0]);
  Value result = typed("Sequence");
  result.set(key, std::move(parts));
  return result;
}

Value added_tokens(const TokenizerSpec& spec) {
  std::map<std::int32_t, MatchRule> rules;
  for (const MatchRule& rule : spec.match_rules) rules[rule.id] = rule;
  Value added = Value::array();
  for (std::size_t i = 0; i < spec.tokens.size(); ++i) {
    const TokenKind kind = spec.kinds[i];
    if (kind != TokenKind::kSpecial && kind != TokenKind::kUserDefined && kind != TokenKind::kUnknown) continue;
    const auto found = rules.find(static_cast<std::int32_t>(i));
    const MatchRule rule = found == rules.end() ? MatchRule{} : found->second;
    added.push(Value::object({{"id", static_cast<std::int64_t>(i)},
                              {"content", spec.tokens[i]},
                              {"single_word", rule.single_word},
                              {"lstrip", rule.strip_left},
                              {"rstrip", rule.strip_right},
                              {"normalized", rule.normalised},
                              {"special", kind != TokenKind::kUserDefined}}));
  }
  return added;
}

// One of its steps alone.
Value bert_normaliser(NormaliserKind kind) {
  return Value::object({{"type", "BertNormalizer"},
                        {"clean_text", kind == NormaliserKind::kBertClean},
                        {"handle_chinese_chars", kind == NormaliserKind::kBertChinese},
                        {"strip_accents", kind == NormaliserKind::kBertAccents},
                        {"lowercase", false}});
}

Value normaliser(const TokenizerSpec& spec) {
  Value parts = Value::array();
  for (const NormaliserStep& step : spec.normalisers) {
    switch (step.kind) {
      case NormaliserKind::kNfc:
        parts.push(typed("NFC"));
        break;
      case NormaliserKind::kNfd:
        parts.push(typed("NFD"));
        break;
      case NormaliserKind::kNfkc:
        parts.push(typed("NFKC"));
        break;
      case NormaliserKind::kNfkd:
        parts.push(typed("NFKD"));
        break;
      case NormaliserKind::kReplace:
        parts.push(replace(step.pattern, step.text));
        break;
      case NormaliserKind::kPrepend:
        parts.push(Value::object({{"type", "Prepend"}, {"prepend", step.text}}));
        break;
      case NormaliserKind::kLowercase:
        parts.push(typed("Lowercase"));
        break;
      case NormaliserKind::kStripAccents:
        parts.push(typed("StripAccents"));
        break;
      case NormaliserKind::kNmt:
        parts.push(typed("Nmt"));
        break;
      case NormaliserKind::kStrip:
        parts.push(Value::object(
            {{"type", "Strip"}, {"strip_left", step.text != "right"}, {"strip_right", step.text != "left"}}));
        break;
      case NormaliserKind::kCharsmap:
      case NormaliserKind::kLongestCharsmap:  // the nearest that there is; differs in rare sequences
        parts.push(Value::object({{"type", "Precompiled"}, {"precompiled_charsmap", base64_of_bytes(step.text)}}));
        break;
      case NormaliserKind::kBertClean:
      case NormaliserKind::kBertChinese:
      case NormaliserKind::kBertAccents:
        parts.push(bert_normaliser(step.kind));
        break;
      default:
        raise(ErrorCategory::kUnsupported, "{}: tokenizer.json has no normalizer for this prefix", spec.name);
    }
  }
  return sequence("normalizers", std::move(parts));
}

const char* behaviour_name(SplitBehaviour behaviour) {
  switch (behaviour) {
    case SplitBehaviour::kRemoved:
      return "Removed";
    case SplitBehaviour::kContiguous:
      return "Contiguous";
    case SplitBehaviour::kMergedWithPrevious:
      return "MergedWithPrevious";
    case SplitBehaviour::kMergedWithNext:
      return "MergedWithNext";
    default:
      return "Isolated";
  }
}

// The replacement of Metaspace, which puts it for spaces; other preparations of characters do not exist.
Value metaspace(const TokenizerSpec& spec) {
  const NormaliserStep& first = spec.preparations.front();
  if (first.kind != NormaliserKind::kReplace || first.pattern != " " || spec.preparations.size() > 2) {
    raise(ErrorCategory::kUnsupported, "{}: tokenizer.json has no pre-tokenizer for these preparations", spec.name);
  }
  const char* scheme = "never";
  if (spec.preparations.size() == 2)
    scheme = spec.preparations[1].kind == NormaliserKind::kPrefixFirst ? "first" : "always";
  return Value::object(
      {{"type", "Metaspace"}, {"replacement", first.text}, {"prepend_scheme", scheme}, {"split", false}});
}

// Written as the library's own parts where they split so, which as Split would need a pattern of its dialect.
Value class_split(const SplitStep& step) {
  if (step.match == SplitMatch::kSpace) return typed("WhitespaceSplit");
  if (step.match == SplitMatch::kPunctuation)
    return Value::object({{"type", "Punctuation"}, {"behavior", behaviour_name(step.behaviour)}});
  return Value::object({{"type", "Digits"}, {"individual_digits", step.behaviour == SplitBehaviour::kIsolated}});
}

Value piece_prefix(const std::string& symbol) {
  return Value::object(
      {{"type", "Metaspace"}, {"replacement", symbol}, {"prepend_scheme", "always"}, {"split", false}});
}

Value pre_tokenizer(const TokenizerSpec& spec) {
  Value parts = Value::array();
  const bool bytes = spec.alphabet == Alphabet::kBytes;
  const bool prefixed = !spec.preparations.empty();
  const auto byte_level = [](bool prefix) {
    return Value::object(
        {{"type", "ByteLevel"}, {"add_prefix_space", prefix}, {"trim_offsets", true}, {"use_regex", false}});
  };
  if (!bytes && prefixed) parts.push(metaspace(spec));
  if (bytes && prefixed) {
    // The library applies steps in order, and a prefix belongs before the first split: only its own pattern can follow.
    const auto own = splits_of_gguf_name("gpt-2");
    if (spec.splits.size() > 1 || (!spec.splits.empty() && spec.splits[0].pattern != own[0].pattern))
      raise(ErrorCategory::kUnsupported, "{}: tokenizer.json has no prefix space before these splits", spec.name);
    Value part = byte_level(true);
    part.set("use_regex", !spec.splits.empty());
    return part;
  }
  for (const SplitStep& step : spec.splits) {
    if (step.match != SplitMatch::kPattern) {
      parts.push(class_split(step));
      continue;
    }
    parts.push(Value::object({{"type", "Split"},
                              {"pattern", Value::object({{"Regex", step.pattern}})},
                              {"behavior", behaviour_name(step.behaviour)},
                              {"invert", step.invert}}));
  }
  if (bytes) parts.push(byte_level(false));
  if (!spec.piece_prefix.empty()) parts.push(piece_prefix(spec.piece_prefix));
  return sequence("pretokenizers", std::move(parts));
}

Value decoder(const TokenizerSpec& spec) {
  if (spec.model == ModelKind::kWordPiece) {
    return Value::object(
        {{"type", "WordPiece"}, {"prefix", spec.continuing_prefix}, {"cleanup", spec.clean_up_spaces}});
  }
  if (spec.alphabet == Alphabet::kBytes) {
    return Value::object(
        {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}, {"use_regex", true}});
  }
  Value parts = Value::array();
  if (!spec.space_symbol.empty()) parts.push(replace(quote_pattern(spec.space_symbol), " "));
  parts.push(typed("ByteFallback"));
  parts.push(typed("Fuse"));
  if (spec.strip_leading_space)
    parts.push(Value::object({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}}));
  return sequence("decoders", std::move(parts));
}

Value post_processor(const TokenizerSpec& spec) {
  const std::vector<FramePart> single = frame_of(spec, 1);
  Value specials = Value::object();
  const auto parts_of = [&](const std::vector<FramePart>& parts) {
    Value list = Value::array();
    for (const FramePart& part : parts) {
      const std::int64_t type_id = part.type_id;
      if (part.text >= 0) {
        list.push(
            Value::object({{"Sequence", Value::object({{"id", part.text == 0 ? "A" : "B"}, {"type_id", type_id}})}}));
        continue;
      }
      const std::string& token = spec.tokens[static_cast<std::size_t>(part.id)];
      list.push(Value::object({{"SpecialToken", Value::object({{"id", token}, {"type_id", type_id}})}}));
      Value ids = Value::array();
      Value tokens = Value::array();
      ids.push(std::int64_t{part.id});
      tokens.push(token);
      specials.set(token, Value::object({{"id", token}, {"ids", ids}, {"tokens", tokens}}));
    }
    return list;
  };
  Value processors = Value::array();
  if (spec.trim_offsets) {
    processors.push(Value::object({{"type", "ByteLevel"},
                                   {"add_prefix_space", spec.keep_first_space},
                                   {"trim_offsets", true},
                                   {"use_regex", true}}));
  }
  if (single.size() > 1 || !spec.single.empty()) {
    const Value one = parts_of(single);
    const Value two = parts_of(frame_of(spec, 2));
    processors.push(
        Value::object({{"type", "TemplateProcessing"}, {"single", one}, {"pair", two}, {"special_tokens", specials}}));
  }
  return sequence("processors", std::move(processors));
}

Value word_piece(const TokenizerSpec& spec, Value vocabulary) {
  return Value::object({{"type", "WordPiece"},
                        {"unk_token", spec.tokens[static_cast<std::size_t>(*spec.unknown)]},
                        {"continuing_subword_prefix", spec.continuing_prefix},
                        {"max_input_chars_per_word", spec.longest_word},
                        {"vocab", std::move(vocabulary)}});
}

Value unigram(const TokenizerSpec& spec, bool byte_fallback) {
  if (!spec.foreign_pieces.empty())
    raise(ErrorCategory::kUnsupported, "{}: a tokenizer.json cannot say which pieces have no token", spec.name);
  Value pieces = Value::array();
  for (std::size_t i = 0; i < spec.tokens.size() && spec.scores[i] == spec.scores[i]; ++i) {
    Value piece = Value::array();
    piece.push(spec.tokens[i]);
    piece.push(spec.scores[i]);
    pieces.push(std::move(piece));
  }
  return Value::object({{"type", "Unigram"},
                        {"unk_id", spec.unknown ? Value(std::int64_t{*spec.unknown}) : Value()},
                        {"vocab", std::move(pieces)},
                        {"byte_fallback", byte_fallback}});
}

Value model(const TokenizerSpec& spec) {
  Value::Object vocabulary;
  bool fallback = false;
  for (std::size_t i = 0; i < spec.tokens.size(); ++i) {
    if (spec.kinds[i] == TokenKind::kUnused || spec.tokens[i].empty()) continue;
    fallback = fallback || spec.kinds[i] == TokenKind::kByte;
    vocabulary.emplace_back(spec.tokens[i], Value(static_cast<std::int64_t>(i)));
  }
  if (spec.model == ModelKind::kWordPiece) return word_piece(spec, Value(std::move(vocabulary)));
  if (spec.model == ModelKind::kUnigram) return unigram(spec, fallback);
  Value merges = Value::array();
  for (const auto& [left, right] : spec.merges.empty() ? merges_of_scores(spec) : spec.merges) {
    Value pair = Value::array();
    pair.push(left);
    pair.push(right);
    merges.push(std::move(pair));
  }
  return Value::object(
      {{"type", "BPE"},
       {"dropout", Value()},
       {"unk_token", spec.unknown ? Value(spec.tokens[static_cast<std::size_t>(*spec.unknown)]) : Value()},
       {"continuing_subword_prefix", Value()},
       {"end_of_word_suffix", Value()},
       {"fuse_unk", spec.fuse_unknown},
       {"byte_fallback", fallback},
       {"ignore_merges", spec.ignore_merges},
       {"vocab", Value(std::move(vocabulary))},
       {"merges", std::move(merges)}});
}

}  // namespace

// A token's parts are joined when its score says so; all ways to build one rank together, as their order in the list
// says, which differs from SentencePiece only where two ways to build one token overlap.
std::vector<std::pair<std::string, std::string>> merges_of_scores(const TokenizerSpec& spec) {
  std::unordered_map<std::string_view, std::size_t> ids;
  for (std::size_t i = 0; i < spec.tokens.size(); ++i) {
    if (spec.kinds[i] == TokenKind::kNormal || spec.kinds[i] == TokenKind::kUserDefined) ids.emplace(spec.tokens[i], i);
  }
  std::vector<std::size_t> order;
  for (std::size_t i = 0; i < std::min(spec.tokens.size(), spec.scores.size()); ++i) {
    const bool number = spec.scores[i] == spec.scores[i];
    if (number && ids.contains(spec.tokens[i]) && spec.tokens[i].size() <= 2048) order.push_back(i);
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return spec.scores[a] > spec.scores[b]; });
  std::vector<std::pair<std::string, std::string>> merges;
  for (const std::size_t id : order) {
    const std::string_view token = spec.tokens[id];
    for (std::size_t cut = 1; cut < token.size(); ++cut) {
      if (ids.contains(token.substr(0, cut)) && ids.contains(token.substr(cut)))
        merges.emplace_back(token.substr(0, cut), token.substr(cut));
    }
  }
  return merges;
}

// Minus the place of the first merge that makes the token, as SentencePiece numbers what it trains.
std::vector<float> scores_of(const TokenizerSpec& spec) {
  if (!spec.scores.empty()) return {spec.scores.begin(), spec.scores.end()};
  std::unordered_map<std::string, std::size_t> ranks;
  for (std::size_t rank = 0; rank < spec.merges.size(); ++rank)
    ranks.emplace(spec.merges[rank].first + spec.merges[rank].second, rank);
  std::vector<float> scores(spec.tokens.size(), 0);
  for (std::size_t i = 0; i < spec.tokens.size(); ++i) {
    if (spec.kinds[i] != TokenKind::kNormal) continue;
    const auto rank = ranks.find(spec.tokens[i]);
    if (rank != ranks.end()) {
      scores[i] = -static_cast<float>(rank->second);
    } else if (decode_utf8(spec.tokens[i]).size() > 1) {
      raise(ErrorCategory::kUnsupported, "{}: no merge makes token '{}', so its merges cannot become scores", spec.name,
            spec.tokens[i]);
    }
  }
  return scores;
}

Value tokenizer_json_of(const TokenizerSpec& spec) {
  return Value::object({{"version", "1.0"},
                        {"truncation", Value()},
                        {"padding", Value()},
                        {"added_tokens", added_tokens(spec)},
                        {"normalizer", normaliser(spec)},
                        {"pre_tokenizer", pre_tokenizer(spec)},
                        {"post_processor", post_processor(spec)},
                        {"decoder", decoder(spec)},
                        {"model", model(spec)}});
}

}  // namespace instruct::tokenizers
