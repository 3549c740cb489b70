// AMX's bf16 instructions in software, so that what is written for them is tested on processors that lack them.
#pragma once

#include <cstdint>

namespace instruct::kernels::testing {

// Makes AMX's instructions executable and returns true; false where that is not possible (not Linux on x86-64).
//
// On a processor without AMX they raise SIGILL from then on handled here: LDTILECFG, TILERELEASE, TILEZERO, TILELOADD,
// TILELOADDT1, TILESTORED and TDPBF16PS do to 8 tiles of each thread what Intel's manual says ("Instruction Set
// Reference", volume 2), sums in its order. A use that the processor would fault on (no configuration, shapes that do
// not fit) ends the program with a message. Denormals, which AMX takes as zeros, are kept. Any other illegal
// instruction ends the program as it would have.
bool emulate_amx();

// Instructions executed in software so far, in all threads; 0 on processors with AMX.
std::int64_t emulated_amx_instructions();

}  // namespace instruct::kernels::testing
