// The adaptation layer in one include: input decoder, instruction decoder, output encoder.
#pragma once

#include "instructions/input_decoder.h"        // IWYU pragma: export
#include "instructions/instruction_decoder.h"  // IWYU pragma: export
#include "instructions/output_encoder.h"       // IWYU pragma: export
