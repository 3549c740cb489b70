#include "kernels/amx_emulation.h"

#include <atomic>

#include "kernels/stream.h"

#if defined(__x86_64__) && defined(__linux__)
#include <signal.h>
#include <ucontext.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <string_view>

namespace instruct::kernels::testing {
namespace {

constexpr std::size_t kTiles = 8;
constexpr std::size_t kRows = 16;
constexpr std::size_t kRowBytes = 64;

struct Tile {
  std::size_t rows = 0;
  std::size_t bytes = 0;  // of a row
  std::array<std::array<std::uint8_t, kRowBytes>, kRows> data{};
};

// What the operand of LDTILECFG holds.
struct Config {
  std::uint8_t palette;
  std::uint8_t start_row;
  std::uint8_t reserved[14];
  std::uint16_t bytes[16];
  std::uint8_t rows[16];
};
static_assert(sizeof(Config) == 64);

struct Tiles {
  bool configured = false;
  std::array<Tile, kTiles> tiles;
};

thread_local Tiles state;
std::atomic<std::int64_t> executed = 0;

void require(bool holds, std::string_view what) {
  if (holds) return;
  constexpr std::string_view kStart = "AMX would fault: ";
  for (const std::string_view part : {kStart, what, std::string_view("\n")}) {
    if (write(STDERR_FILENO, part.data(), part.size()) < 0) break;
  }
  std::abort();
}

Tile& tile(unsigned number) {
  require(state.configured, "tiles are not configured");
  require(number < kTiles && state.tiles[number].rows > 0, "a tile of no size");
  return state.tiles[number];
}

void load_config(const std::uint8_t* from) {
  Config config{};
  std::memcpy(&config, from, sizeof(config));
  require(config.palette == 1 && config.start_row == 0, "palette 1 from row 0 is expected");
  for (const std::uint8_t byte : config.reserved) require(byte == 0, "reserved bytes of the configuration");
  state = {};
  for (std::size_t t = 0; t < 16; ++t) {
    const bool fits = t < kTiles ? config.rows[t] <= kRows && config.bytes[t] <= kRowBytes &&
                                       (config.rows[t] == 0) == (config.bytes[t] == 0)
                                 : config.rows[t] == 0 && config.bytes[t] == 0;
    require(fits, "the configuration of a tile");
    if (t < kTiles) {
      state.tiles[t].rows = config.rows[t];
      state.tiles[t].bytes = config.bytes[t];
    }
  }
  state.configured = true;
}

void load_tile(Tile& to, const std::uint8_t* from, std::int64_t stride) {
  to.data = {};
  for (std::size_t r = 0; r < to.rows; ++r, from += stride) std::memcpy(to.data[r].data(), from, to.bytes);
}

void store_tile(const Tile& from, std::uint8_t* to, std::int64_t stride) {
  for (std::size_t r = 0; r < from.rows; ++r, to += stride) std::memcpy(to, from.data[r].data(), from.bytes);
}

// The f32 values of the first or second bf16 of each pair in a row.
std::array<float, 16> halves(const std::array<std::uint8_t, kRowBytes>& row, std::size_t which) {
  std::array<float, 16> values{};
  for (std::size_t i = 0; i < values.size(); ++i)
    std::memcpy(reinterpret_cast<char*>(&values[i]) + 2, &row[4 * i + 2 * which], 2);
  return values;
}

// A product of two bf16 is exact in f32, so adding it rounds once, as the processor's fused operation does.
void multiply(Tile& c, const Tile& a, const Tile& b) {
  require(a.rows == c.rows && b.bytes == c.bytes && a.bytes == 4 * b.rows && c.bytes % 4 == 0, "shapes of a product");
  std::array<std::array<float, 16>, kRows> right[2];
  for (std::size_t k = 0; k < b.rows; ++k) {
    for (const std::size_t which : {0U, 1U}) right[which][k] = halves(b.data[k], which);
  }
  for (std::size_t m = 0; m < c.rows; ++m) {
    std::array<float, 16> sums[2] = {};
    for (const std::size_t which : {0U, 1U}) {
      const std::array<float, 16> left = halves(a.data[m], which);
      for (std::size_t k = 0; k < b.rows; ++k) {
        for (std::size_t n = 0; n < 16; ++n) sums[which][n] += left[k] * right[which][k][n];
      }
    }
    for (std::size_t n = 0; n < c.bytes / 4; ++n) {
      float value = 0;
      std::memcpy(&value, &c.data[m][4 * n], 4);
      value += sums[0][n] + sums[1][n];
      std::memcpy(&c.data[m][4 * n], &value, 4);
    }
  }
}

// An instruction with a VEX prefix of three bytes, in the map 0F 38, 128 bits, W0.
struct Instruction {
  unsigned prefix = 0;  // 0: none, 1: 66, 2: F3, 3: F2
  unsigned opcode = 0;
  bool memory = false;
  unsigned reg = 0, rm = 0, third = 0;  // registers
  std::uint64_t address = 0;            // of the memory operand, without its index
  std::int64_t index = 0;               // scaled
  std::int64_t length = 0;
};

using Registers = greg_t[NGREG];

std::int64_t value_of(const Registers& registers, unsigned number) {
  constexpr std::array kOrder = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                 REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
  return registers[kOrder[number]];
}

template <typename T>
std::int64_t displacement(const std::uint8_t* at) {
  T value = 0;
  std::memcpy(&value, at, sizeof(value));
  return value;
}

// False for what is no such instruction.
bool decode(const std::uint8_t* code, const Registers& registers, Instruction& found) {
  if (code[0] != 0xC4 || (code[1] & 0x1F) != 2 || (code[2] & 0x84) != 0) return false;
  const unsigned high_reg = (~unsigned{code[1]} & 0x80U) >> 4;
  const unsigned high_index = (~unsigned{code[1]} & 0x40U) >> 3;
  const unsigned high_base = (~unsigned{code[1]} & 0x20U) >> 2;
  found.prefix = code[2] & 3U;
  found.third = (~unsigned{code[2]} >> 3) & 0xFU;
  found.opcode = code[3];
  const std::uint8_t* next = code + 4;
  const unsigned mode = *next >> 6;
  const unsigned low = *next & 7U;
  found.reg = (*next >> 3 & 7U) | high_reg;
  found.rm = low | high_base;
  found.memory = mode != 3;
  ++next;
  if (found.memory) {
    unsigned base = low;
    if (low == 4) {
      base = *next & 7U;
      const unsigned index = (*next >> 3 & 7U) | high_index;
      if (index != 4) found.index = value_of(registers, index) << (*next >> 6);
      ++next;
    }
    const bool no_base = mode == 0 && base == 5;
    std::int64_t address = no_base ? 0 : value_of(registers, base | high_base);
    if (mode == 1) {
      address += displacement<std::int8_t>(next);
      next += 1;
    } else if (mode == 2 || no_base) {
      address += displacement<std::int32_t>(next);
      next += 4;
    }
    if (no_base && low == 5) address += reinterpret_cast<std::intptr_t>(next);  // relative to the next instruction
    found.address = static_cast<std::uint64_t>(address);
  }
  found.length = next - code;
  return true;
}

// False for instructions that are not AMX's.
bool execute(const Instruction& what) {
  auto* memory = reinterpret_cast<std::uint8_t*>(what.address);
  switch (what.opcode) {
    case 0x49:
      if (what.prefix == 0 && what.memory) {
        load_config(memory + what.index);
      } else if (what.prefix == 0 && what.reg == 0 && what.rm == 0) {
        state = {};
      } else if (what.prefix == 3 && !what.memory) {
        tile(what.reg).data = {};
      } else {
        return false;
      }
      return true;
    case 0x4B:
      if (!what.memory || what.prefix == 0) return false;
      if (what.prefix == 2) {
        store_tile(tile(what.reg), memory, what.index);
      } else {
        load_tile(tile(what.reg), memory, what.index);
      }
      return true;
    case 0x5C:
      if (what.memory || what.prefix != 2) return false;
      require(what.reg != what.rm && what.reg != what.third && what.rm != what.third, "a product with a tile twice");
      multiply(tile(what.reg), tile(what.rm), tile(what.third));
      return true;
    default:
      return false;
  }
}

void on_illegal_instruction(int signal, siginfo_t* /*info*/, void* context) {
  Registers& registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  Instruction found;
  if (decode(reinterpret_cast<const std::uint8_t*>(registers[REG_RIP]), registers, found) && execute(found)) {
    registers[REG_RIP] += found.length;
    ++executed;
  } else {
    ::signal(signal, SIG_DFL);  // the instruction is tried again and ends the program
  }
}

}  // namespace

bool emulate_amx() {
  if (detect_cpu_features().amx_bf16) return true;
  static const bool installed = [] {
    struct sigaction action {};
    action.sa_sigaction = on_illegal_instruction;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    return sigaction(SIGILL, &action, nullptr) == 0;
  }();
  return installed;
}

std::int64_t emulated_amx_instructions() {
  return executed;
}

}  // namespace instruct::kernels::testing
#else
namespace instruct::kernels::testing {
bool emulate_amx() {
  return false;
}
std::int64_t emulated_amx_instructions() {
  return 0;
}
}  // namespace instruct::kernels::testing
#endif
