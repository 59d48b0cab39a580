// Names of what is compiled once per instruction set.
#pragma once

#include "decoder/ops.h"

#define SUBLLM_JOIN_(a, b) a##_##b
#define SUBLLM_JOIN(a, b) SUBLLM_JOIN_(a, b)
#define SUBLLM_FOR_ISA(name) SUBLLM_JOIN(name, SUBLLM_ISA)

namespace subllm {

#ifdef SUBLLM_ISA
void SUBLLM_FOR_ISA(attend)(const AttendTile& tile);
#endif

}  // namespace subllm
