// Names of what is compiled once per instruction set.
#pragma once

#include "decoder/ops.h"
#include "isa/per_isa.h"

namespace subllm {

#ifdef SUBLLM_ISA
void SUBLLM_FOR_ISA(attend)(const AttendTile& tile);
#endif

}  // namespace subllm
