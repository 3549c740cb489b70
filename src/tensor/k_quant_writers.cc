// Writing K-quants: blocks of 256 values in groups of 16 or 32, whose scales (and offsets) are themselves integers of 4
// to 8 bits, multiples of one or two half-precision numbers of the block.
//
// A group is stored as  x ~ scale * q - offset  (q from 0 on) or  x ~ scale * q  (q around 0). For a given scale the
// best q is the nearest; for given q the best scale and offset are those of least squares. As in ggml's quantiser, a
// number of scales around the obvious one is tried, q rounded, scale and offset fitted to it, and the pair of the
// smallest weighted error kept. Then the block's own numbers follow from the largest scale and offset, and what ggml
// does not do: of the integers beside the nearest ones for each group, those are taken that leave the smallest error.
//
// Errors are weighted, for large values matter more: their products with activations are larger. By magnitude and the
// root mean square of the group, as in ggml's Q4_K and Q5_K; Q6_K by squares, as there. For Q3_K ggml takes squares
// too, for Q2_K the magnitude alone: that leaves larger errors, and SmolLM2 with Q3_K a perplexity of 84.7, not 79.3.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "tensor/block_writers.h"

namespace instruct::tensor {
namespace {

// Four values at once, on any processor; sums are the same everywhere.
using Lanes = float __attribute__((vector_size(16)));
constexpr std::size_t kLanes = 4;
template <std::size_t N>
using Group = std::array<Lanes, N / kLanes>;

float sum(Lanes x) {
  return (x[0] + x[1]) + (x[2] + x[3]);
}

// Adding and taking away 1.5 * 2^23 rounds |x| < 2^22 to the nearest integer, ties to even.
Lanes rounded(Lanes x) {
  constexpr float kShift = 12582912.0F;
  return (x + kShift) - kShift;
}

Lanes clamped(Lanes x, float least, float most) {
  const Lanes low = Lanes{} + least;
  const Lanes high = Lanes{} + most;
  x = x < low ? low : x;
  return x > high ? high : x;
}

template <std::size_t N>
Group<N> load(const float* x) {
  Group<N> group;
  std::memcpy(group.data(), x, N * sizeof(float));
  return group;
}

// Root mean square and magnitude.
template <std::size_t N>
Group<N> weights_of(const Group<N>& x) {
  Lanes squares{};
  for (const Lanes& lanes : x) squares += lanes * lanes;
  const float mean = std::sqrt(sum(squares) / static_cast<float>(N));
  Group<N> weights;
  for (std::size_t i = 0; i < x.size(); ++i) weights[i] = mean + (x[i] < 0 ? -x[i] : x[i]);
  return weights;
}

Group<16> squares_of(const Group<16>& x) {
  Group<16> weights;
  for (std::size_t i = 0; i < x.size(); ++i) weights[i] = x[i] * x[i];
  return weights;
}

// ---- x ~ scale * q - offset, q in [0, levels] ----

struct Affine {
  float scale = 0;
  float offset = 0;  // never below 0: zero must have a q
};

// The scales tried are range / (levels + first + i * step).
struct Search {
  float levels;
  float first;
  float step;
  int count;
};

template <std::size_t N>
float error_of(const Group<N>& x, const Group<N>& w, const Group<N>& q, Affine fit) {
  Lanes error{};
  for (std::size_t i = 0; i < x.size(); ++i) {
    const Lanes difference = q[i] * fit.scale - fit.offset - x[i];
    error += w[i] * difference * difference;
  }
  return sum(error);
}

// Scale and offset that minimise sum w (scale * q - offset - x)^2 for given q: the normal equations of a line, and of a
// line through zero where the offset would be negative. False where all q are equal.
template <std::size_t N>
bool fit_line(const Group<N>& x, const Group<N>& w, const Group<N>& q, float sum_w, float sum_wx, Affine& fit) {
  Lanes wq{}, wqq{}, wqx{};
  for (std::size_t i = 0; i < x.size(); ++i) {
    const Lanes weighted = w[i] * q[i];
    wq += weighted;
    wqq += weighted * q[i];
    wqx += weighted * x[i];
  }
  const float q1 = sum(wq), q2 = sum(wqq), qx = sum(wqx);
  const float determinant = sum_w * q2 - q1 * q1;
  if (!(determinant > 0)) return false;
  fit = {(sum_w * qx - sum_wx * q1) / determinant, (q1 * qx - q2 * sum_wx) / determinant};
  if (fit.offset < 0) fit = {qx / q2, 0};
  return true;
}

template <std::size_t N>
Affine search(const Group<N>& x, const Group<N>& w, const Search& tried) {
  Lanes least{}, most = x[0], total{}, weighted{};
  for (std::size_t i = 0; i < x.size(); ++i) {
    least = x[i] < least ? x[i] : least;
    most = x[i] > most ? x[i] : most;
    total += w[i];
    weighted += w[i] * x[i];
  }
  const float low = std::min({least[0], least[1], least[2], least[3]});
  const float range = std::max({most[0], most[1], most[2], most[3]}) - low;
  Affine best{0, -low};
  if (!(range > 0)) return best;
  const float sum_w = sum(total), sum_wx = sum(weighted);
  float smallest = HUGE_VALF;
  best.scale = range / tried.levels;
  for (int i = -1; i < tried.count; ++i) {  // the obvious scale first: of equally good ones it is kept
    const float more = i < 0 ? 0 : tried.first + tried.step * static_cast<float>(i);
    const float inverse = (tried.levels + more) / range;
    Group<N> q;
    for (std::size_t j = 0; j < x.size(); ++j) q[j] = clamped(rounded((x[j] - low) * inverse), 0, tried.levels);
    Affine fit;
    if (!fit_line<N>(x, w, q, sum_w, sum_wx, fit)) continue;
    const float error = error_of<N>(x, w, q, fit);
    if (error < smallest) {
      smallest = error;
      best = fit;
    }
  }
  return best;
}

template <std::size_t N>
struct AffineBlock {
  float scale_unit = 0, offset_unit = 0;  // as half precision holds them
  std::array<int, 256 / N> scales{}, offsets{};
  std::array<std::uint8_t, 256> q{};
};

float as_half(float value) {
  return to_float(to_half(value));
}

template <std::size_t N>
Group<N> nearest(const Group<N>& x, Affine fit, float levels) {
  const float inverse = fit.scale > 0 ? 1.0F / fit.scale : 0.0F;
  Group<N> q;
  for (std::size_t i = 0; i < x.size(); ++i) q[i] = clamped(rounded((x[i] + fit.offset) * inverse), 0, levels);
  return q;
}

template <std::size_t N>
void store(const Group<N>& q, float zero, std::uint8_t* to) {
  for (std::size_t i = 0; i < N; ++i) to[i] = static_cast<std::uint8_t>(q[i / kLanes][i % kLanes] + zero);
}

// Of a group: the integers for scale and offset near those of `wanted` that leave the smallest error.
template <std::size_t N>
void settle(const Group<N>& x, const Group<N>& w, Affine wanted, float levels, int most, std::size_t g,
            AffineBlock<N>& block) {
  const auto nearest_integer = [most](float value, float unit) {
    return unit > 0 ? std::clamp(static_cast<int>(std::lround(value / unit)), 0, most) : 0;
  };
  const int scale = nearest_integer(wanted.scale, block.scale_unit);
  const int offset = nearest_integer(wanted.offset, block.offset_unit);
  float smallest = HUGE_VALF;
  for (const int s : {scale, scale - 1, scale + 1}) {
    for (const int m : {offset, offset - 1, offset + 1}) {
      if (s < 0 || s > most || m < 0 || m > most) continue;
      const Affine fit{block.scale_unit * static_cast<float>(s), block.offset_unit * static_cast<float>(m)};
      const Group<N> q = nearest<N>(x, fit, levels);
      const float error = error_of<N>(x, w, q, fit);
      if (!(error < smallest)) continue;
      smallest = error;
      block.scales[g] = s;
      block.offsets[g] = m;
      store<N>(q, 0, block.q.data() + N * g);
    }
  }
}

template <std::size_t N>
AffineBlock<N> affine_block(const float* x, const Search& tried, int most) {
  constexpr std::size_t kGroups = 256 / N;
  std::array<Group<N>, kGroups> groups, weights;
  std::array<Affine, kGroups> fits;
  Affine largest;
  for (std::size_t g = 0; g < kGroups; ++g) {
    groups[g] = load<N>(x + N * g);
    weights[g] = weights_of<N>(groups[g]);
    fits[g] = search<N>(groups[g], weights[g], tried);
    largest.scale = std::max(largest.scale, fits[g].scale);
    largest.offset = std::max(largest.offset, fits[g].offset);
  }
  AffineBlock<N> block;
  block.scale_unit = as_half(largest.scale / static_cast<float>(most));
  block.offset_unit = as_half(largest.offset / static_cast<float>(most));
  for (std::size_t g = 0; g < kGroups; ++g) settle<N>(groups[g], weights[g], fits[g], tried.levels, most, g, block);
  return block;
}

// ---- x ~ scale * q, q in [-zero, zero) ----

template <std::size_t N>
struct SymmetricBlock {
  float unit = 0;
  std::array<int, 256 / N> scales{};
  std::array<std::uint8_t, 256> q{};  // zero added
};

// The error that scale * q leaves is sum w x^2 - gain, where gain = (sum w q x)^2 / sum w q^2 at the best scale, which
// is sum w q x / sum w q^2.
template <std::size_t N>
float search_symmetric(const Group<N>& x, const Group<N>& w, float zero) {
  float extreme = 0;
  for (std::size_t i = 0; i < N; ++i) {
    const float value = x[i / kLanes][i % kLanes];
    if (std::abs(value) > std::abs(extreme)) extreme = value;
  }
  if (std::abs(extreme) < 1e-15F) return 0;
  float most = 0, best = 0;
  for (int i = -10; i <= 9; ++i) {  // the obvious scale first: of equally good ones it is kept
    const float inverse = -(zero + (i < -9 ? 0 : 0.1F * static_cast<float>(i))) / extreme;
    Lanes wqx{}, wqq{};
    for (std::size_t j = 0; j < x.size(); ++j) {
      const Lanes q = clamped(rounded(x[j] * inverse), -zero, zero - 1);
      const Lanes weighted = w[j] * q;
      wqx += weighted * x[j];
      wqq += weighted * q;
    }
    const float qx = sum(wqx), qq = sum(wqq);
    if (qq > 0 && qx * qx > most * qq) {
      best = qx / qq;
      most = best * qx;
    }
  }
  return best;
}

template <std::size_t N>
void settle_symmetric(const Group<N>& x, const Group<N>& w, float wanted, float zero, int most, std::size_t g,
                      SymmetricBlock<N>& block) {
  const int scale = block.unit != 0 ? static_cast<int>(std::lround(wanted / block.unit)) : 0;
  float smallest = HUGE_VALF;
  for (const int s : {scale, scale - 1, scale + 1}) {
    if (s < -most || s >= most) continue;
    const float actual = block.unit * static_cast<float>(s);
    const float inverse = actual != 0 ? 1.0F / actual : 0.0F;
    Group<N> q;
    for (std::size_t i = 0; i < x.size(); ++i) q[i] = clamped(rounded(x[i] * inverse), -zero, zero - 1);
    const float error = error_of<N>(x, w, q, {actual, 0});
    if (!(error < smallest)) continue;
    smallest = error;
    block.scales[g] = s;
    store<N>(q, zero, block.q.data() + N * g);
  }
}

// Scales are integers in [-most, most); the largest has the code of the largest magnitude, -most.
SymmetricBlock<16> symmetric_block(const float* x, float zero, int most, Group<16> (*weigh)(const Group<16>&)) {
  std::array<Group<16>, 16> groups, weights;
  std::array<float, 16> scales{};
  float extreme = 0;
  for (std::size_t g = 0; g < 16; ++g) {
    groups[g] = load<16>(x + 16 * g);
    weights[g] = weigh(groups[g]);
    scales[g] = search_symmetric<16>(groups[g], weights[g], zero);
    if (std::abs(scales[g]) > std::abs(extreme)) extreme = scales[g];
  }
  SymmetricBlock<16> block;
  block.unit = as_half(-extreme / static_cast<float>(most));
  for (std::size_t g = 0; g < 16; ++g) settle_symmetric<16>(groups[g], weights[g], scales[g], zero, most, g, block);
  return block;
}

// ---- bytes ----

// Two bits each of 128 values to a run of 32 bytes, and the next 128 (block_codec.cc reads them).
void pack_pairs(const std::array<std::uint8_t, 256>& q, std::uint8_t* to) {
  for (std::size_t i = 0; i < 256; ++i)
    to[i / 128 * 32 + i % 32] |= static_cast<std::uint8_t>((q[i] & 3) << (i / 32 % 4 * 2));
}

// The low four bits: 64 neighbours to 32 bytes.
void pack_nibbles(const std::array<std::uint8_t, 256>& q, std::uint8_t* to) {
  for (std::size_t i = 0; i < 128; ++i) {
    const std::size_t at = i / 32 * 64 + i % 32;
    to[i] = static_cast<std::uint8_t>((q[at] & 0xF) | (q[at + 32] & 0xF) << 4);
  }
}

// Eight six-bit scales and offsets in 12 bytes after the block's two numbers.
void put_scales(const AffineBlock<32>& block, std::uint8_t* to) {
  put_half(to, 0, block.scale_unit);
  put_half(to, 2, block.offset_unit);
  std::uint8_t* packed = to + 4;
  for (std::size_t j = 0; j < 4; ++j) {
    const int s = block.scales[j + 4], m = block.offsets[j + 4];
    packed[j] = static_cast<std::uint8_t>(block.scales[j] | (s >> 4) << 6);
    packed[j + 4] = static_cast<std::uint8_t>(block.offsets[j] | (m >> 4) << 6);
    packed[j + 8] = static_cast<std::uint8_t>((s & 0xF) | (m & 0xF) << 4);
  }
}

}  // namespace

void write_q4_k(const float* x, std::uint8_t* block) {
  const auto stored = affine_block<32>(x, {15, -1.0F, 0.1F, 21}, 63);
  put_scales(stored, block);
  pack_nibbles(stored.q, block + 16);
}

void write_q5_k(const float* x, std::uint8_t* block) {
  const auto stored = affine_block<32>(x, {31, -0.5F, 0.1F, 16}, 63);
  put_scales(stored, block);
  std::memset(block + 16, 0, 32);
  for (std::size_t i = 0; i < 256; ++i) block[16 + i % 32] |= static_cast<std::uint8_t>((stored.q[i] >> 4) << (i / 32));
  pack_nibbles(stored.q, block + 48);
}

void write_q2_k(const float* x, std::uint8_t* block) {
  const auto stored = affine_block<16>(x, {3, -0.5F, 0.1F, 16}, 15);
  for (std::size_t j = 0; j < 16; ++j) block[j] = static_cast<std::uint8_t>(stored.scales[j] | stored.offsets[j] << 4);
  std::memset(block + 16, 0, 64);
  pack_pairs(stored.q, block + 16);
  put_half(block, 80, stored.scale_unit);
  put_half(block, 82, stored.offset_unit);
}

void write_q3_k(const float* x, std::uint8_t* block) {
  const auto stored = symmetric_block(x, 4, 32, weights_of<16>);
  std::memset(block, 0, 108);
  for (std::size_t i = 0; i < 256; ++i) block[i % 32] |= static_cast<std::uint8_t>((stored.q[i] >> 2) << (i / 32));
  pack_pairs(stored.q, block + 32);
  std::uint8_t* packed = block + 96;
  for (std::size_t j = 0; j < 16; ++j) {
    const int scale = stored.scales[j] + 32;
    packed[j % 8] |= static_cast<std::uint8_t>((scale & 0xF) << (j / 8 * 4));
    packed[8 + j % 4] |= static_cast<std::uint8_t>((scale >> 4) << (j / 4 * 2));
  }
  put_half(block, 108, stored.unit);
}

void write_q6_k(const float* x, std::uint8_t* block) {
  const auto stored = symmetric_block(x, 32, 128, squares_of);
  for (std::size_t half = 0; half < 2; ++half) {
    const std::uint8_t* q = stored.q.data() + 128 * half;
    for (std::size_t i = 0; i < 32; ++i) {
      block[64 * half + i] = static_cast<std::uint8_t>((q[i] & 0xF) | (q[i + 64] & 0xF) << 4);
      block[64 * half + 32 + i] = static_cast<std::uint8_t>((q[i + 32] & 0xF) | (q[i + 96] & 0xF) << 4);
      block[128 + 32 * half + i] =
          static_cast<std::uint8_t>(q[i] >> 4 | (q[i + 32] >> 4) << 2 | (q[i + 64] >> 4) << 4 | (q[i + 96] >> 4) << 6);
    }
  }
  for (std::size_t j = 0; j < 16; ++j)
    block[192 + j] = static_cast<std::uint8_t>(static_cast<std::int8_t>(stored.scales[j]));
  put_half(block, 208, stored.unit);
}

}  // namespace instruct::tensor
