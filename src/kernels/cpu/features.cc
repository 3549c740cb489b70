// Which instruction sets this processor has and the operating system lets programs use.
#include "kernels/stream.h"

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

namespace instruct::kernels {

#if defined(__x86_64__)
namespace {

struct Registers {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
};

// A leaf of the cpuid table; zeros when the processor does not have it.
Registers cpuid(unsigned leaf, unsigned subleaf) {
  Registers r;
  if (__get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx) == 0) return {};
  return r;
}

bool has_bit(std::uint64_t word, int bit) {
  return (word >> bit & 1U) != 0;
}

// XCR0: the register states the operating system saves. Only to be asked when cpuid says that xgetbv exists.
std::uint64_t saved_states() {
  std::uint32_t low = 0;
  std::uint32_t high = 0;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return static_cast<std::uint64_t>(high) << 32 | low;
}

// Linux hands out the 8 KB of AMX tile state on request only (arch_prctl, ARCH_REQ_XCOMP_PERM). Asking twice is fine.
bool request_tile_state() {
#if defined(__linux__)
  constexpr long kRequestPermission = 0x1023;
  constexpr long kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

}  // namespace

// Bit numbers are those of Intel's manual, volume 2A, "CPUID", and volume 1, "XCR0".
CpuFeatures detect_cpu_features() {
  CpuFeatures features;
  const Registers base = cpuid(1, 0);
  constexpr int kOsSavesStates = 27;
  if (!has_bit(base.ecx, kOsSavesStates)) return features;
  const std::uint64_t states = saved_states();
  constexpr std::uint64_t kYmm = 0x6;        // SSE and AVX state
  constexpr std::uint64_t kZmm = 0xe6;       // and the three parts of AVX-512 state
  constexpr std::uint64_t kTiles = 0x60000;  // tile configuration and data
  const Registers extended = cpuid(7, 0);
  const Registers more = extended.eax >= 1 ? cpuid(7, 1) : Registers{};
  const bool fma = has_bit(base.ecx, 12);
  const bool f16c = has_bit(base.ecx, 29);
  features.avx2 = (states & kYmm) == kYmm && fma && f16c && has_bit(extended.ebx, 5);
  const bool foundation = has_bit(extended.ebx, 16) && has_bit(extended.ebx, 17) && has_bit(extended.ebx, 28) &&
                          has_bit(extended.ebx, 30) && has_bit(extended.ebx, 31);  // F, DQ, CD, BW, VL
  features.avx512 = features.avx2 && (states & kZmm) == kZmm && foundation;
  features.avx512_vnni = features.avx512 && has_bit(extended.ecx, 11);
  features.avx512_bf16 = features.avx512 && has_bit(more.eax, 5);
  const bool tiles = has_bit(extended.edx, 22) && has_bit(extended.edx, 24);  // AMX-BF16, AMX-TILE
  features.amx_bf16 = features.avx512_bf16 && tiles && (states & kTiles) == kTiles && request_tile_state();
  return features;
}
#else
CpuFeatures detect_cpu_features() {
  return {};
}
#endif

}  // namespace instruct::kernels
