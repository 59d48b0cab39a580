#include "learning/between.h"

#include <string>

#include "threads/pool.h"

namespace subllm {

extern const BetweenOps between_base;
#if defined(__x86_64__)
extern const BetweenOps between_avx2;
extern const BetweenOps between_avx512;
#endif

namespace {

constexpr int64_t kValues = 1 << 14;  // that a thread takes at a time, at least

}  // namespace

const BetweenOps& between_ops(std::string_view name) {
  const std::string_view found = adamw_ops(name).name;
#if defined(__x86_64__)
  if (found == between_avx512.name) return between_avx512;
  if (found == between_avx2.name) return between_avx2;
#endif
  (void)found;
  return between_base;
}

void gated(Pool& pool, const Gated& call, const BetweenOps& ops) {
  pool.run(call.count, kValues,
           [&](int64_t begin, int64_t end) { ops.gated(call, begin, end); });
}

void normed(Pool& pool, const Normed& call, const BetweenOps& ops) {
  pool.run(call.rows, kValues / (call.columns + 1) + 1,
           [&](int64_t begin, int64_t end) { ops.normed(call, begin, end); });
}

}  // namespace subllm
