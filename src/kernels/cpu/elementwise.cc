// Elementwise kernels with Highway: bound by memory, so each tensor is read once and written once.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/elementwise.cc"
#include <hwy/foreach_target.h>  // compiles this file once per instruction set

#include <cstring>

#include "hwy/contrib/math/math-inl.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/vectors-inl.h"
#include "kernels/kernels.h"

HWY_BEFORE_NAMESPACE();
namespace instruct::kernels::cpu::HWY_NAMESPACE {

// y = function(d, x).
template <class Function>
void map_one(Stream& stream, const Tensor& x, Tensor& y, Function function) {
  visit_dtype(x.dtype(), [&](auto x_type) HWY_ATTR {
    visit_dtype(y.dtype(), [&](auto y_type) HWY_ATTR {
      const auto* in = x.data<decltype(x_type)>();
      auto* out = y.data<decltype(y_type)>();
      for_runs(stream, {&x, &y}, [&](const Run& run) HWY_ATTR {
        const auto* from = in + run.at[0];
        auto* to = out + run.at[1];
        for_lanes(run.size, [&](auto d, std::int64_t i) HWY_ATTR { store(d, function(d, load(d, from + i)), to + i); });
      });
    });
  });
}

// y = function(d, a, b); a has the dtype of y.
template <class Function>
void map_two(Stream& stream, const Tensor& a, const Tensor& b, Tensor& y, Function function) {
  visit_dtype(y.dtype(), [&](auto y_type) HWY_ATTR {
    visit_dtype(b.dtype(), [&](auto b_type) HWY_ATTR {
      const auto* first = a.data<decltype(y_type)>();
      const auto* second = b.data<decltype(b_type)>();
      auto* out = y.data<decltype(y_type)>();
      for_runs(stream, {&a, &b, &y}, [&](const Run& run) HWY_ATTR {
        const auto* left = first + run.at[0];
        const auto* right = second + run.at[1];
        auto* to = out + run.at[2];
        for_lanes(run.size, [&](auto d, std::int64_t i)
                                HWY_ATTR { store(d, function(d, load(d, left + i), load(d, right + i)), to + i); });
      });
    });
  });
}

void convert_all(Stream& stream, const Tensor& x, Tensor& y) {
  map_one(stream, x, y, [](auto /*d*/, auto v) HWY_ATTR { return v; });
}

void add_all(Stream& stream, const Tensor& a, const Tensor& b, Tensor& y) {
  map_two(stream, a, b, y, [](auto /*d*/, auto left, auto right) HWY_ATTR { return hn::Add(left, right); });
}

void scale_all(Stream& stream, float factor, Tensor& x) {
  map_one(stream, x, x, [factor](auto d, auto v) HWY_ATTR { return hn::Mul(v, hn::Set(d, factor)); });
}

void soft_cap_all(Stream& stream, float cap, Tensor& x) {
  auto* data = x.data<float>();
  for_runs(stream, {&x}, [&](const Run& run) HWY_ATTR {
    auto* piece = data + run.at[0];
    for_lanes(run.size, [&](auto d, std::int64_t i) HWY_ATTR {
      const auto share = hn::Mul(load(d, piece + i), hn::Set(d, 1.0F / cap));
      store(d, hn::Mul(hn::Set(d, cap), hn::Tanh(d, share)), piece + i);
    });
  });
}

void soft_cap_backward_all(Stream& stream, float cap, const Tensor& y, Tensor& dx) {
  map_two(stream, dx, y, dx, [cap](auto d, auto gradient, auto v) HWY_ATTR {
    const auto share = hn::Mul(v, hn::Set(d, 1.0F / cap));
    return hn::NegMulAdd(hn::Min(hn::Mul(share, share), hn::Set(d, 1.0F)), gradient, gradient);
  });
}

// Rotates the heads of one row: (a, b) -> (a c - b s, b c + a s), a and b `half` numbers apart.
template <class X>
void rotate_row(X* row, std::int64_t width, std::int64_t head_width, std::int64_t half, const float* cosine,
                const float* sine, float sign) {
  for (std::int64_t head = 0; head < width; head += head_width) {
    X* first = row + head;
    X* second = first + half;
    for_lanes(half, [&](auto d, std::int64_t i) HWY_ATTR {
      const auto c = load(d, cosine + i);
      const auto s = hn::Mul(hn::Set(d, sign), load(d, sine + i));
      const auto a = load(d, first + i);
      const auto b = load(d, second + i);
      store(d, hn::NegMulAdd(b, s, hn::Mul(a, c)), first + i);
      store(d, hn::MulAdd(a, s, hn::Mul(b, c)), second + i);
    });
  }
}

void rotate_all(Stream& stream, Tensor& x, std::int64_t head_width, std::span<const std::int32_t> positions,
                const Tensor& cosine, const Tensor& sine, Direction direction) {
  const std::int64_t half = cosine.dim(1);
  const float sign = direction == Direction::kForward ? 1.0F : -1.0F;
  const std::int64_t width = x.dim(1);
  visit_dtype(x.dtype(), [&](auto type) HWY_ATTR {
    auto* data = x.data<decltype(type)>();
    for_row_ranges(stream, x.dim(0), width, [&](std::int64_t begin, std::int64_t end) HWY_ATTR {
      for (std::int64_t t = begin; t < end; ++t) {
        const std::int64_t position = positions[static_cast<std::size_t>(t)];
        rotate_row(data + t * x.row_stride(), width, head_width, half,
                   cosine.data<float>() + position * cosine.row_stride(),
                   sine.data<float>() + position * sine.row_stride(), sign);
      }
    });
  });
}

void add_bias_all(Stream& stream, const Tensor& bias, Tensor& y) {
  const float* b = bias.data<float>();
  visit_dtype(y.dtype(), [&](auto type) HWY_ATTR {
    auto* data = y.data<decltype(type)>();
    for_row_ranges(stream, y.dim(0), y.dim(1), [&](std::int64_t begin, std::int64_t end) HWY_ATTR {
      for (std::int64_t t = begin; t < end; ++t) {
        auto* row = data + t * y.row_stride();
        for_lanes(y.dim(1), [&](auto d, std::int64_t i)
                                HWY_ATTR { store(d, hn::Add(load(d, row + i), load(d, b + i)), row + i); });
      }
    });
  });
}

void add_column_sums_all(Stream& stream, const Tensor& x, Tensor& sums) {
  visit_dtype(x.dtype(), [&](auto type) HWY_ATTR {
    const auto* data = x.data<decltype(type)>();
    const auto add_rows = [&](std::int64_t begin, std::int64_t end, float* partial) HWY_ATTR {
      for (std::int64_t t = begin; t < end; ++t) {
        const auto* row = data + t * x.row_stride();
        for_lanes(x.dim(1), [&](auto d, std::int64_t i)
                                HWY_ATTR { store(d, hn::Add(load(d, partial + i), load(d, row + i)), partial + i); });
      }
    };
    sum_over_rows(stream, x.dim(0), x.dim(1), sums.data<float>(), add_rows);
  });
}

// Blocks computed at once beyond those asked for, at most: random_words may write that much more.
constexpr std::int64_t kSpareWords = 4 * 63;

// words[4 b + k] = random.block(first_block + b)[k]: Philox 4x32-10 (see base/random.h), a block in each 64-bit lane.
// The upper halves of the lanes hold leftovers that the multiplication ignores.
void random_words(const RandomStream& random, std::uint64_t first_block, std::int64_t blocks, std::uint32_t* words) {
#if HWY_TARGET == HWY_SCALAR
  for (std::int64_t b = 0; b < blocks; ++b) {
    const std::array<std::uint32_t, 4> block = random.block(first_block + static_cast<std::uint64_t>(b));
    std::copy(block.begin(), block.end(), words + 4 * b);
  }
#else
  const hn::ScalableTag<std::uint64_t> d64;
  const hn::Repartition<std::uint32_t, decltype(d64)> d32;
  const auto multiply = [&](auto a, std::uint32_t b)
                            HWY_ATTR { return hn::MulEven(hn::BitCast(d32, a), hn::Set(d32, b)); };
  for (std::int64_t b = 0; b < blocks; b += static_cast<std::int64_t>(hn::Lanes(d64))) {
    auto c0 = hn::Iota(d64, first_block + static_cast<std::uint64_t>(b));
    auto c1 = hn::ShiftRight<32>(c0);
    auto c2 = hn::Set(d64, random.step());
    auto c3 = hn::ShiftRight<32>(c2);
    std::uint32_t k0 = random.key()[0];
    std::uint32_t k1 = random.key()[1];
    for (int round = 0; round < 10; ++round) {
      const auto p0 = multiply(c0, 0xD2511F53U);
      const auto p1 = multiply(c2, 0xCD9E8D57U);
      c0 = hn::Xor(hn::Xor(hn::ShiftRight<32>(p1), c1), hn::Set(d64, std::uint64_t{k0}));
      c1 = p1;
      c2 = hn::Xor(hn::Xor(hn::ShiftRight<32>(p0), c3), hn::Set(d64, std::uint64_t{k1}));
      c3 = p0;
      k0 += 0x9E3779B9U;
      k1 += 0xBB67AE85U;
    }
    const auto low = hn::Set(d64, std::uint64_t{0xFFFFFFFFU});
    const auto first = hn::Or(hn::And(c0, low), hn::ShiftLeft<32>(c1));
    const auto second = hn::Or(hn::And(c2, low), hn::ShiftLeft<32>(c3));
    alignas(64) std::array<std::uint64_t, 2 * hn::MaxLanes(d64)> pairs;
    hn::StoreInterleaved2(first, second, d64, pairs.data());
    std::memcpy(words + 4 * b, pairs.data(), 16 * hn::Lanes(d64));
  }
#endif
}

// y = x scale where RandomStream::uniform of the element's number is at least rate, else 0.
template <class X>
void dropout_run(const X* x, const RandomStream& random, float rate, std::int64_t first, std::int64_t size, X* y) {
  constexpr std::int64_t kChunk = 512;
  const float scale = 1.0F / (1.0F - rate);
  std::array<std::uint32_t, kChunk + 8 + kSpareWords> words;
  for (std::int64_t at = 0; at < size; at += kChunk) {
    const std::int64_t count = std::min(kChunk, size - at);
    const std::int64_t skip = (first + at) % 4;
    random_words(random, static_cast<std::uint64_t>((first + at) / 4), (skip + count + 3) / 4, words.data());
    const std::uint32_t* word = words.data() + skip;
    for_lanes(count, [&](auto d, std::int64_t i) HWY_ATTR {
      const hn::RebindToUnsigned<decltype(d)> d32;
      const hn::RebindToSigned<decltype(d)> di32;
      const auto bits = hn::BitCast(di32, hn::ShiftRight<8>(hn::LoadU(d32, word + i)));
      const auto uniform = hn::Mul(hn::ConvertTo(d, bits), hn::Set(d, 0x1p-24F));
      const auto kept = hn::Mul(load(d, x + at + i), hn::Set(d, scale));
      store(d, hn::IfThenElseZero(hn::Ge(uniform, hn::Set(d, rate)), kept), y + at + i);
    });
  }
}

void dropout_all(Stream& stream, const Tensor& x, const RandomStream& random, float rate, Tensor& y) {
  visit_dtype(x.dtype(), [&](auto type) HWY_ATTR {
    const auto* in = x.data<decltype(type)>();
    auto* out = y.data<decltype(type)>();
    for_runs(stream, {&x, &y}, [&](const Run& run) HWY_ATTR {
      dropout_run(in + run.at[0], random, rate, run.first, run.size, out + run.at[1]);
    });
  });
}

}  // namespace instruct::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace instruct::kernels::cpu {

HWY_EXPORT(convert_all);
HWY_EXPORT(add_all);
HWY_EXPORT(scale_all);
HWY_EXPORT(soft_cap_all);
HWY_EXPORT(soft_cap_backward_all);
HWY_EXPORT(rotate_all);
HWY_EXPORT(add_bias_all);
HWY_EXPORT(add_column_sums_all);
HWY_EXPORT(dropout_all);

void convert(Stream& stream, const Tensor& x, Tensor& y) {
  HWY_DYNAMIC_DISPATCH(convert_all)(stream, x, y);
}

void add(Stream& stream, const Tensor& a, const Tensor& b, Tensor& y) {
  HWY_DYNAMIC_DISPATCH(add_all)(stream, a, b, y);
}

void add_into(Stream& stream, const Tensor& x, Tensor& y) {
  HWY_DYNAMIC_DISPATCH(add_all)(stream, y, x, y);
}

void scale(Stream& stream, float factor, Tensor& x) {
  HWY_DYNAMIC_DISPATCH(scale_all)(stream, factor, x);
}

void soft_cap(Stream& stream, float cap, Tensor& x) {
  HWY_DYNAMIC_DISPATCH(soft_cap_all)(stream, cap, x);
}

void soft_cap_backward(Stream& stream, float cap, const Tensor& y, Tensor& dx) {
  HWY_DYNAMIC_DISPATCH(soft_cap_backward_all)(stream, cap, y, dx);
}

void rotate(Stream& stream, Tensor& x, std::int64_t head_width, std::span<const std::int32_t> positions,
            const Tensor& cosine, const Tensor& sine, Direction direction) {
  HWY_DYNAMIC_DISPATCH(rotate_all)(stream, x, head_width, positions, cosine, sine, direction);
}

void add_bias(Stream& stream, const Tensor& bias, Tensor& y) {
  HWY_DYNAMIC_DISPATCH(add_bias_all)(stream, bias, y);
}

void add_column_sums(Stream& stream, const Tensor& x, Tensor& sums) {
  HWY_DYNAMIC_DISPATCH(add_column_sums_all)(stream, x, sums);
}

void dropout(Stream& stream, const Tensor& x, const RandomStream& random, float rate, Tensor& y) {
  HWY_DYNAMIC_DISPATCH(dropout_all)(stream, x, random, rate, y);
}

}  // namespace instruct::kernels::cpu
#endif  // HWY_ONCE
