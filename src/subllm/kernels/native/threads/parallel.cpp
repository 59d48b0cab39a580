#include "threads/parallel.h"

#include <algorithm>
#include <exception>
#include <system_error>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sched.h>
#endif

namespace subllm {

int usable_cpus() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return std::max(1, CPU_COUNT(&set));
#endif
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

void parallel_for(int64_t count, int64_t grain, int threads,
                  const std::function<void(int64_t, int64_t)>& body) {
  if (count <= 0) return;
  const int64_t limit = threads > 0 ? threads : usable_cpus();
  const int64_t pieces = std::clamp<int64_t>(count / std::max<int64_t>(grain, 1), 1, limit);
  const auto edge = [&](int64_t piece) { return count * piece / pieces; };

  std::vector<std::exception_ptr> errors(pieces);
  const auto run = [&](int64_t piece) {
    try {
      body(edge(piece), edge(piece + 1));
    } catch (...) {
      errors[piece] = std::current_exception();
    }
  };
  std::vector<std::thread> workers;
  workers.reserve(pieces - 1);
  int64_t started = 1;
  try {
    for (; started < pieces; ++started) workers.emplace_back(run, started);
  } catch (const std::system_error&) {
    // No thread to be had (a process limit): the caller's thread does the rest.
  }
  run(0);
  for (int64_t piece = started; piece < pieces; ++piece) run(piece);
  for (auto& worker : workers) worker.join();
  for (const auto& error : errors)
    if (error) std::rethrow_exception(error);
}

}  // namespace subllm
