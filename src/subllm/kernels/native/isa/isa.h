// Instruction sets, one kernels_*.cpp each; the best one is chosen when first asked.
#pragma once

#include <string_view>
#include <vector>

#include "isa/kernels.h"

namespace subllm {

// Names of the kernels that this CPU can run, best first; "scalar" is always among them.
std::vector<std::string_view> isas();

// Kernels by name. Throws std::runtime_error for a name that is unknown or beyond this CPU.
const Kernels& kernels(std::string_view name);

// The kernels to use: those that the variable SUBLLM_ISA names, else the best.
const Kernels& kernels();

}  // namespace subllm
