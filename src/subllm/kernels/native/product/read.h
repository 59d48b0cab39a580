// Reading memory as fast as it comes, to know what the machine can do.
#pragma once

#include <cstdint>

#include "threads/pool.h"

namespace subllm {

// Sum of all words, modulo 2^64. Asks for memory ahead as the kernels do, so that their
// speed can be held against it.
uint64_t sum_words(Pool& pool, const uint64_t* words, int64_t count);

}  // namespace subllm
