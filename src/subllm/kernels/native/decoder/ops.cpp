#include "decoder/ops.h"

#include <cstdlib>
#include <string_view>

namespace subllm {

extern const Ops ops_base;
#if defined(__x86_64__)
extern const Ops ops_avx2;
extern const Ops ops_avx512;
#endif

std::vector<const Ops*> all_ops() {
  std::vector<const Ops*> found;
#if defined(__x86_64__)
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
    found.push_back(&ops_avx512);
  if (avx2) found.push_back(&ops_avx2);
#endif
  found.push_back(&ops_base);
  return found;
}

const Ops& ops() {
  static const Ops& chosen = []() -> const Ops& {
    const char* forced = std::getenv("SUBLLM_ISA");
    std::string_view name = forced ? forced : "";
    if (name == "avx_vnni") name = "avx2";  // has nothing more for these
    const auto usable = all_ops();
    for (const Ops* candidate : usable)
      if (name == candidate->name) return *candidate;
    return name == "scalar" ? *usable.back() : *usable.front();
  }();
  return chosen;
}

}  // namespace subllm
