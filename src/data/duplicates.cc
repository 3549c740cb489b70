#include "data/duplicates.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <unordered_map>

#include "base/text.h"

namespace instruct::data {
namespace {

constexpr std::size_t kPiece = 9;  // characters
constexpr std::size_t kBins = 64;
constexpr std::size_t kBandRows = 4;
// Of all texts in one bucket, as many are compared: a boilerplate bucket of thousands must not cost its square.
constexpr std::size_t kMaxCompared = 8;

// Hashes of a text's pieces, sorted, without repetition.
using Pieces = std::vector<std::uint64_t>;

// Finaliser of SplitMix64 (Steele, Lea and Flood 2014): spreads every input bit over the result.
std::uint64_t mixed(std::uint64_t x) {
  x += 0x9E3779B97F4A7C15ULL;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ULL;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBULL;
  return x ^ (x >> 31);
}

// A text shorter than a piece is one piece.
Pieces pieces_of(std::string_view text) {
  const std::u32string characters = decode_utf8(text);
  Pieces pieces;
  const std::size_t count = characters.size() <= kPiece ? 1 : characters.size() - kPiece + 1;
  pieces.reserve(count);
  for (std::size_t begin = 0; begin < count; ++begin) {
    std::uint64_t hash = 0;
    for (std::size_t i = begin; i < std::min(characters.size(), begin + kPiece); ++i)
      hash = hash * 0x100000001B3ULL + characters[i] + 1;
    pieces.push_back(mixed(hash));
  }
  std::sort(pieces.begin(), pieces.end());
  pieces.erase(std::unique(pieces.begin(), pieces.end()), pieces.end());
  return pieces;
}

// The least hash in each of kBins ranges of hash values; empty bins take their right neighbour's.
std::array<std::uint64_t, kBins> signature_of(const Pieces& pieces) {
  constexpr std::uint64_t kEmpty = ~std::uint64_t{0};
  std::array<std::uint64_t, kBins> bins;
  bins.fill(kEmpty);
  for (const std::uint64_t hash : pieces) {
    std::uint64_t& bin = bins[hash % kBins];
    bin = std::min(bin, hash / kBins);
  }
  std::array<std::uint64_t, kBins> filled = bins;
  for (std::size_t i = 0; i < kBins; ++i) {
    std::size_t distance = 0;
    while (distance < kBins && bins[(i + distance) % kBins] == kEmpty) ++distance;
    if (distance < kBins) filled[i] = mixed(bins[(i + distance) % kBins] + distance);
  }
  return filled;
}

double jaccard(const Pieces& a, const Pieces& b) {
  Pieces both;
  std::set_intersection(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(both));
  return static_cast<double>(both.size()) / static_cast<double>(a.size() + b.size() - both.size());
}

// Texts seen so far, by exact text and by band.
class Index {
 public:
  explicit Index(double threshold) : threshold_(threshold) {}

  // The best match among the texts added so far, with its number in order of adding.
  bool find(const std::string& text, const Pieces& pieces, Duplicate& match) const {
    if (const auto same = exact_.find(text); same != exact_.end()) {
      match.of = same->second;
      match.similarity = 1;
      return true;
    }
    match.similarity = 0;
    for (const std::uint64_t key : keys_of(pieces)) {
      const auto bucket = buckets_.find(key);
      if (bucket == buckets_.end()) continue;
      for (const std::size_t candidate : bucket->second) {
        const double similarity = jaccard(pieces, pieces_of(texts_[candidate]));
        if (similarity < threshold_ || similarity < match.similarity ||
            (similarity == match.similarity && candidate >= match.of))
          continue;
        match.of = candidate;
        match.similarity = similarity;
      }
    }
    return match.similarity >= threshold_;
  }

  void add(const std::string& text, const Pieces& pieces) {
    const std::size_t number = texts_.size();
    texts_.push_back(text);
    exact_.try_emplace(text, number);
    for (const std::uint64_t key : keys_of(pieces)) {
      std::vector<std::size_t>& bucket = buckets_[key];
      if (bucket.size() < kMaxCompared) bucket.push_back(number);
    }
  }

 private:
  static std::vector<std::uint64_t> keys_of(const Pieces& pieces) {
    const std::array<std::uint64_t, kBins> signature = signature_of(pieces);
    std::vector<std::uint64_t> keys;
    for (std::size_t band = 0; band < kBins; band += kBandRows) {
      std::uint64_t key = band;
      for (std::size_t i = 0; i < kBandRows; ++i) key = mixed(key ^ signature[band + i]);
      keys.push_back(key);
    }
    return keys;
  }

  double threshold_;
  std::vector<std::string> texts_;
  std::unordered_map<std::string, std::size_t> exact_;
  std::unordered_map<std::uint64_t, std::vector<std::size_t>> buckets_;
};

}  // namespace

std::string folded(std::string_view text) {
  std::string result;
  for (const char c : trim(text)) {
    const bool space = c == ' ' || c == '\n' || c == '\t' || c == '\r';
    if (space && result.ends_with(' ')) continue;
    result += space ? ' ' : c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  }
  return result;
}

std::vector<Duplicate> find_duplicates(std::span<const std::string> texts, double threshold) {
  Index index(threshold);
  std::vector<Duplicate> found;
  for (std::size_t i = 0; i < texts.size(); ++i) {
    const std::string text = folded(texts[i]);
    const Pieces pieces = pieces_of(text);
    Duplicate match{.index = i};
    if (index.find(text, pieces, match)) found.push_back(match);
    index.add(text, pieces);
  }
  return found;
}

std::vector<Duplicate> find_overlap(std::span<const std::string> training, std::span<const std::string> held_out,
                                    double threshold) {
  Index index(threshold);
  for (const std::string& original : training) {
    const std::string text = folded(original);
    index.add(text, pieces_of(text));
  }
  std::vector<Duplicate> found;
  for (std::size_t i = 0; i < held_out.size(); ++i) {
    const std::string text = folded(held_out[i]);
    Duplicate match{.index = i};
    if (index.find(text, pieces_of(text), match)) found.push_back(match);
  }
  return found;
}

}  // namespace instruct::data
