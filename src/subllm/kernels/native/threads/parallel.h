// Splits a range over threads made for the call. Nothing outlives it, so a process may
// fork, and an idle one has no threads of ours.
#pragma once

#include <cstdint>
#include <functional>

namespace subllm {

// CPUs that the process may run on (its affinity), at least 1.
int usable_cpus();

// Calls body(begin, end) on contiguous pieces that cover [0, count), each but the last of
// at least `grain` items. The first exception that a piece throws is rethrown here.
void parallel_for(int64_t count, int64_t grain, int threads,
                  const std::function<void(int64_t, int64_t)>& body);

}  // namespace subllm
