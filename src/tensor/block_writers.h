// How each block-quantised type is written: one block of f32 values to its bytes. Called through IntegerFormat::write.
#pragma once

#include <cstdint>
#include <cstring>

#include "tensor/dtype.h"

namespace instruct::tensor {

// 32 values; equal to ggml's reference quantiser bit for bit.
void write_q8_0(const float* x, std::uint8_t* block);
void write_q4_0(const float* x, std::uint8_t* block);
void write_q4_1(const float* x, std::uint8_t* block);
void write_q5_0(const float* x, std::uint8_t* block);
void write_q5_1(const float* x, std::uint8_t* block);

// 256 values; a search for scales (k_quant_writers.cc).
void write_q2_k(const float* x, std::uint8_t* block);
void write_q3_k(const float* x, std::uint8_t* block);
void write_q4_k(const float* x, std::uint8_t* block);
void write_q5_k(const float* x, std::uint8_t* block);
void write_q6_k(const float* x, std::uint8_t* block);

inline void put_half(std::uint8_t* block, std::size_t offset, float value) {
  const Half stored = to_half(value);
  std::memcpy(block + offset, &stored.bits, 2);
}

}  // namespace instruct::tensor
