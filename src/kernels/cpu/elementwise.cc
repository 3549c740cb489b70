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
  map_one(stream, x, x, [cap](auto d, auto v) HWY_ATTR {
    return hn::Mul(hn::Set(d, cap), hn::Tanh(d, hn::Mul(v, hn::Set(d, 1.0F / cap))));
  });
}

void soft_cap_backward_all(Stream& stream, float cap, const Tensor& y, Tensor& dx) {
  map_two(stream, dx, y, dx, [cap](auto d, auto gradient, auto v) HWY_ATTR {
    const auto share = hn::Mul(v, hn::Set(d, 1.0F / cap));
    return hn::NegMulAdd(hn::Min(hn::Mul(share, share), hn::Set(d, 1.0F)), gradient, gradient);
  });
}

// Value and derivative of an activation.
template <class V>
struct Point {
  V value;
  V slope;
};

// Those of the form z sigmoid(v(z)). With s = sigmoid(v): s + z s (1 - s) dv/dz.
template <class Inner>
struct OfSigmoid {
  template <class D, class V>
  static HWY_INLINE V value(D d, V z) {
    return hn::Mul(z, sigmoid(d, Inner::inner(d, z)));
  }
  template <class D, class V>
  static HWY_INLINE Point<V> point(D d, V z) {
    const V s = sigmoid(d, Inner::inner(d, z));
    const V one = hn::Set(d, 1.0F);
    return {hn::Mul(z, s), hn::Mul(s, hn::MulAdd(Inner::slope(d, z), hn::Sub(one, s), one))};
  }
};
struct SiluInner {
  template <class D, class V>
  static HWY_INLINE V inner(D /*d*/, V z) {
    return z;
  }
  // z dv/dz
  template <class D, class V>
  static HWY_INLINE V slope(D /*d*/, V z) {
    return z;
  }
};
struct GeluTanhInner {
  template <class D, class V>
  static HWY_INLINE V inner(D d, V z) {
    const V cubic = hn::MulAdd(hn::Mul(z, z), hn::Set(d, kGeluRate * kGeluCubic), hn::Set(d, kGeluRate));
    return hn::Mul(z, cubic);
  }
  template <class D, class V>
  static HWY_INLINE V slope(D d, V z) {
    const V cubic = hn::MulAdd(hn::Mul(z, z), hn::Set(d, 3 * kGeluRate * kGeluCubic), hn::Set(d, kGeluRate));
    return hn::Mul(z, cubic);
  }
};
// z P(Z < z). P(Z < -|z|) = e^(-z^2 / 2) p(t) / 2 with t = 1 / (1 + 0.3275911 |z| / sqrt(2)), off by 7.5e-8 at most
// (Abramowitz & Stegun, 7.1.26, for erfc).
struct Gelu {
  template <class D, class V>
  static HWY_INLINE V value(D d, V z) {
    return point(d, z).value;
  }
  template <class D, class V>
  static HWY_INLINE Point<V> point(D d, V z) {
    const V one = hn::Set(d, 1.0F);
    const V t = hn::Div(one, hn::MulAdd(hn::Abs(z), hn::Set(d, 0.231641888F), one));
    V p = hn::MulAdd(t, hn::Set(d, 0.5F * 1.061405429F), hn::Set(d, 0.5F * -1.453152027F));
    p = hn::MulAdd(t, p, hn::Set(d, 0.5F * 1.421413741F));
    p = hn::MulAdd(t, p, hn::Set(d, 0.5F * -0.284496736F));
    p = hn::MulAdd(t, p, hn::Set(d, 0.5F * 0.254829592F));
    const V bell = exp(d, hn::Mul(hn::Mul(z, z), hn::Set(d, -0.5F)));
    const V tail = hn::Mul(hn::Mul(t, p), bell);
    const V below = hn::IfThenElse(hn::Lt(z, hn::Zero(d)), tail, hn::Sub(one, tail));
    constexpr float kDensity = 0.3989422804F;  // 1 / sqrt(2 pi)
    return {hn::Mul(z, below), hn::MulAdd(hn::Mul(z, hn::Set(d, kDensity)), bell, below)};
  }
};
struct Relu {
  template <class D, class V>
  static HWY_INLINE V value(D d, V z) {
    return hn::IfThenElse(hn::Lt(z, hn::Zero(d)), hn::Zero(d), z);  // NaN stays
  }
  template <class D, class V>
  static HWY_INLINE Point<V> point(D d, V z) {
    const V zero = hn::Zero(d);
    return {value(d, z), hn::IfThenElse(hn::Gt(z, zero), hn::Set(d, 1.0F), zero)};
  }
};
struct Tanh {
  template <class D, class V>
  static HWY_INLINE V value(D d, V z) {
    return hn::Tanh(d, z);
  }
  template <class D, class V>
  static HWY_INLINE Point<V> point(D d, V z) {
    const V y = value(d, z);
    return {y, hn::NegMulAdd(y, y, hn::Set(d, 1.0F))};
  }
};
// Calls body with what computes the activation.
template <class Body>
HWY_INLINE void visit_activation(Activation activation, const Body& body) {
  switch (activation) {
    case Activation::kSilu:
      return body(OfSigmoid<SiluInner>());
    case Activation::kGelu:
      return body(Gelu());
    case Activation::kGeluTanh:
      return body(OfSigmoid<GeluTanhInner>());
    case Activation::kRelu:
      return body(Relu());
    case Activation::kTanh:
      return body(Tanh());
  }
}

void activate_all(Stream& stream, Activation activation, const Tensor& x, Tensor& y) {
  visit_activation(activation, [&](auto of) HWY_ATTR {
    map_one(stream, x, y, [of](auto d, auto z) HWY_ATTR { return of.value(d, z); });
  });
}

void activate_backward_all(Stream& stream, Activation activation, const Tensor& x, const Tensor& dy, Tensor& dx) {
  visit_activation(activation, [&](auto of) HWY_ATTR {
    map_two(stream, x, dy, dx,
            [of](auto d, auto z, auto gradient) HWY_ATTR { return hn::Mul(gradient, of.point(d, z).slope); });
  });
}

void gate_all(Stream& stream, Activation activation, const Tensor& gate, const Tensor& up, Tensor& y) {
  visit_activation(activation, [&](auto of) HWY_ATTR {
    map_two(stream, gate, up, y, [of](auto d, auto z, auto u) HWY_ATTR { return hn::Mul(of.value(d, z), u); });
  });
}

// dup = dy f(z), dgate = dy u f'(z).
template <class Of, class X>
void gate_backward_run(Of of, const X* gate, const X* up, const X* dy, X* dgate, X* dup, std::int64_t size) {
  for_lanes(size, [&](auto d, std::int64_t i) HWY_ATTR {
    const auto point = of.point(d, load(d, gate + i));
    const auto u = load(d, up + i);
    const auto gradient = load(d, dy + i);
    store(d, hn::Mul(hn::Mul(gradient, u), point.slope), dgate + i);
    store(d, hn::Mul(gradient, point.value), dup + i);
  });
}

void gate_backward_all(Stream& stream, Activation activation, const Tensor& gate, const Tensor& up, const Tensor& dy,
                       Tensor& dgate, Tensor& dup) {
  visit_dtype(dy.dtype(), [&](auto type) HWY_ATTR {
    using X = decltype(type);
    const X* z = gate.data<X>();
    const X* u = up.data<X>();
    const X* d = dy.data<X>();
    X* dz = dgate.data<X>();
    X* du = dup.data<X>();
    visit_activation(activation, [&](auto of) HWY_ATTR {
      for_runs(stream, {&gate, &up, &dy, &dgate, &dup}, [&](const Run& run) HWY_ATTR {
        gate_backward_run(of, z + run.at[0], u + run.at[1], d + run.at[2], dz + run.at[3], du + run.at[4], run.size);
      });
    });
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
HWY_EXPORT(activate_all);
HWY_EXPORT(activate_backward_all);
HWY_EXPORT(gate_all);
HWY_EXPORT(gate_backward_all);
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

void activate(Stream& stream, Activation activation, const Tensor& x, Tensor& y) {
  HWY_DYNAMIC_DISPATCH(activate_all)(stream, activation, x, y);
}

void activate_backward(Stream& stream, Activation activation, const Tensor& x, const Tensor& dy, Tensor& dx) {
  HWY_DYNAMIC_DISPATCH(activate_backward_all)(stream, activation, x, dy, dx);
}

void gate(Stream& stream, Activation activation, const Tensor& gate, const Tensor& up, Tensor& y) {
  HWY_DYNAMIC_DISPATCH(gate_all)(stream, activation, gate, up, y);
}

void gate_backward(Stream& stream, Activation activation, const Tensor& gate, const Tensor& up, const Tensor& dy,
                   Tensor& dgate, Tensor& dup) {
  HWY_DYNAMIC_DISPATCH(gate_backward_all)(stream, activation, gate, up, dy, dgate, dup);
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
