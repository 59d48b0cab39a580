#include "learning/adamw.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <numeric>
#include <stdexcept>
#include <string>

#include "decoder/ops.h"
#include "threads/pool.h"

namespace subllm {

extern const AdamwOps adamw_base;
#if defined(__x86_64__)
extern const AdamwOps adamw_avx2;
extern const AdamwOps adamw_avx512;
#endif

std::vector<std::string_view> adamw_isas() {
  std::vector<std::string_view> names;
  for (const Ops* candidate : all_ops()) names.emplace_back(candidate->name);
  return names;
}

const AdamwOps& adamw_ops(std::string_view name) {
  if (name.empty()) name = ops().name;
  const auto usable = adamw_isas();
  if (std::find(usable.begin(), usable.end(), name) == usable.end())
    throw std::invalid_argument("this CPU has no AdamW named '" + std::string(name) + "'");
#if defined(__x86_64__)
  if (name == adamw_avx512.name) return adamw_avx512;
  if (name == adamw_avx2.name) return adamw_avx2;
#endif
  return adamw_base;
}

double adamw(Pool& pool, const AdamwStep& step, const AdamwOps& ops) {
  const int64_t chunks = step.chunks();
  // Added in the order of the chunks, so that the sum is that of one thread.
  std::vector<double> sums(chunks);
  std::atomic<bool> inside{true};
  pool.run(chunks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t chunk = begin; chunk < end; ++chunk)
      if (!ops.squares(step, chunk, &sums[chunk])) inside.store(false, std::memory_order_relaxed);
  });
  if (!inside) throw std::invalid_argument("a kept value's place lies outside the tensor");
  const double norm = std::sqrt(std::accumulate(sums.begin(), sums.end(), 0.0));
  if (!std::isfinite(norm)) return norm;
  const auto scale = static_cast<float>(norm > step.clip ? step.clip / norm : 1.0);
  pool.run(chunks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t chunk = begin; chunk < end; ++chunk) ops.update(step, chunk, scale);
  });
  return norm;
}

}  // namespace subllm
