// Activations and gates with Highway. The functions are long, so each is compiled for f32 alone, over pieces
// that stay in the first cache; other types are converted on the way.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/activation.cc"
#include <hwy/foreach_target.h>  // compiles this file once per instruction set

#include "hwy/contrib/math/math-inl.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/vectors-inl.h"
#include "kernels/kernels.h"

HWY_BEFORE_NAMESPACE();
namespace instruct::kernels::cpu::HWY_NAMESPACE {

constexpr std::int64_t kPiece = 512;
using Piece = std::array<float, kPiece>;

// The values as floats: themselves, or a copy in `room`.
inline const float* read_piece(const float* x, std::int64_t /*size*/, Piece& /*room*/) {
  return x;
}
inline const float* read_piece(const BFloat16* x, std::int64_t size, Piece& room) {
  for_lanes(size, [&](auto d, std::int64_t i) HWY_ATTR { store(d, load(d, x + i), room.data() + i); });
  return room.data();
}
// Where the floats are computed that write_piece then brings to y.
inline float* piece_of(float* y, Piece& /*room*/) {
  return y;
}
inline float* piece_of(BFloat16* /*y*/, Piece& room) {
  return room.data();
}
inline void write_piece(const float* /*from*/, std::int64_t /*size*/, float* /*y*/) {}
inline void write_piece(const float* from, std::int64_t size, BFloat16* y) {
  for_lanes(size, [&](auto d, std::int64_t i) HWY_ATTR { store(d, load(d, from + i), y + i); });
}

// Calls function(in, out, size) for pieces of a run, with pointers to floats: in to those read, out to those written.
// An output may be the same memory as an input.
template <class X, std::size_t In, std::size_t Out, class Function>
void for_pieces(std::int64_t run, const std::array<const X*, In>& x, const std::array<X*, Out>& y, Function function) {
  std::array<Piece, In> in_rooms;
  std::array<Piece, Out> out_rooms;
  std::array<const float*, In> in;
  std::array<float*, Out> out;
  for (std::int64_t at = 0; at < run; at += kPiece) {
    const std::int64_t size = std::min(kPiece, run - at);
    for (std::size_t k = 0; k < In; ++k) in[k] = read_piece(x[k] + at, size, in_rooms[k]);
    for (std::size_t k = 0; k < Out; ++k) out[k] = piece_of(y[k] + at, out_rooms[k]);
    function(in, out, size);
    for (std::size_t k = 0; k < Out; ++k) write_piece(out[k], size, y[k] + at);
  }
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
// The four functions of one activation over a piece.
template <class Of>
HWY_NOINLINE void activate_piece(const float* x, float* y, std::int64_t size) {
  for_lanes(size, [&](auto d, std::int64_t i) HWY_ATTR { store(d, Of::value(d, load(d, x + i)), y + i); });
}
template <class Of>
HWY_NOINLINE void activate_backward_piece(const float* x, const float* dy, float* dx, std::int64_t size) {
  for_lanes(size, [&](auto d, std::int64_t i)
                      HWY_ATTR { store(d, hn::Mul(load(d, dy + i), Of::point(d, load(d, x + i)).slope), dx + i); });
}
template <class Of>
HWY_NOINLINE void gate_piece(const float* gate, const float* up, float* y, std::int64_t size) {
  for_lanes(size, [&](auto d, std::int64_t i)
                      HWY_ATTR { store(d, hn::Mul(Of::value(d, load(d, gate + i)), load(d, up + i)), y + i); });
}
// dup = dy f(z), dgate = dy u f'(z).
template <class Of>
HWY_NOINLINE void gate_backward_piece(const float* gate, const float* up, const float* dy, float* dgate, float* dup,
                                      std::int64_t size) {
  for_lanes(size, [&](auto d, std::int64_t i) HWY_ATTR {
    const auto point = Of::point(d, load(d, gate + i));
    const auto u = load(d, up + i);
    const auto gradient = load(d, dy + i);
    store(d, hn::Mul(hn::Mul(gradient, u), point.slope), dgate + i);
    store(d, hn::Mul(gradient, point.value), dup + i);
  });
}

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
  visit_dtype(y.dtype(), [&](auto type) HWY_ATTR {
    using X = decltype(type);
    for_runs(stream, {&x, &y}, [&](const Run& run) HWY_ATTR {
      for_pieces<X, 1, 1>(run.size, {x.data<X>() + run.at[0]}, {y.data<X>() + run.at[1]},
                          [&](const auto& in, const auto& out, std::int64_t size) HWY_ATTR {
                            visit_activation(activation,
                                             [&](auto of) { activate_piece<decltype(of)>(in[0], out[0], size); });
                          });
    });
  });
}

void activate_backward_all(Stream& stream, Activation activation, const Tensor& x, const Tensor& dy, Tensor& dx) {
  visit_dtype(dx.dtype(), [&](auto type) HWY_ATTR {
    using X = decltype(type);
    for_runs(stream, {&x, &dy, &dx}, [&](const Run& run) HWY_ATTR {
      for_pieces<X, 2, 1>(run.size, {x.data<X>() + run.at[0], dy.data<X>() + run.at[1]}, {dx.data<X>() + run.at[2]},
                          [&](const auto& in, const auto& out, std::int64_t size) HWY_ATTR {
                            visit_activation(activation, [&](auto of) {
                              activate_backward_piece<decltype(of)>(in[0], in[1], out[0], size);
                            });
                          });
    });
  });
}

void gate_all(Stream& stream, Activation activation, const Tensor& gate, const Tensor& up, Tensor& y) {
  visit_dtype(y.dtype(), [&](auto type) HWY_ATTR {
    using X = decltype(type);
    for_runs(stream, {&gate, &up, &y}, [&](const Run& run) HWY_ATTR {
      for_pieces<X, 2, 1>(run.size, {gate.data<X>() + run.at[0], up.data<X>() + run.at[1]}, {y.data<X>() + run.at[2]},
                          [&](const auto& in, const auto& out, std::int64_t size) HWY_ATTR {
                            visit_activation(activation,
                                             [&](auto of) { gate_piece<decltype(of)>(in[0], in[1], out[0], size); });
                          });
    });
  });
}

void gate_backward_all(Stream& stream, Activation activation, const Tensor& gate, const Tensor& up, const Tensor& dy,
                       Tensor& dgate, Tensor& dup) {
  visit_dtype(dy.dtype(), [&](auto type) HWY_ATTR {
    using X = decltype(type);
    for_runs(stream, {&gate, &up, &dy, &dgate, &dup}, [&](const Run& run) HWY_ATTR {
      for_pieces<X, 3, 2>(run.size, {gate.data<X>() + run.at[0], up.data<X>() + run.at[1], dy.data<X>() + run.at[2]},
                          {dgate.data<X>() + run.at[3], dup.data<X>() + run.at[4]},
                          [&](const auto& in, const auto& out, std::int64_t size) HWY_ATTR {
                            visit_activation(activation, [&](auto of) {
                              gate_backward_piece<decltype(of)>(in[0], in[1], in[2], out[0], out[1], size);
                            });
                          });
    });
  });
}

}  // namespace instruct::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace instruct::kernels::cpu {

HWY_EXPORT(activate_all);
HWY_EXPORT(activate_backward_all);
HWY_EXPORT(gate_all);
HWY_EXPORT(gate_backward_all);

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

}  // namespace instruct::kernels::cpu
#endif  // HWY_ONCE
