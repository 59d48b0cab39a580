#include "isa/isa.h"

#include <cstdlib>
#include <stdexcept>
#include <string>

#if defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace subllm {

namespace {

struct Candidate {
  const Kernels* kernels;
  bool (*runs_here)();
};

#if defined(__x86_64__)
bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("f16c") &&
         __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("popcnt");
}
bool has_avx_vnni() { return has_avx2() && __builtin_cpu_supports("avxvnni"); }
bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vbmi2") &&
         __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bf16") &&
         __builtin_cpu_supports("gfni");
}
#elif defined(__aarch64__)
bool has_dot_product() {
#if defined(__linux__)
  return getauxval(AT_HWCAP) & HWCAP_ASIMDDP;
#else
  return true;  // every Apple processor that macOS runs on has it
#endif
}
#endif

const std::vector<Candidate>& candidates() {
  static const std::vector<Candidate> all = {
#if defined(__x86_64__)
      {&kAvx512Kernels, &has_avx512},
      {&kAvxVnniKernels, &has_avx_vnni},
      {&kAvx2Kernels, &has_avx2},
#elif defined(__aarch64__)
      {&kNeonKernels, &has_dot_product},
#endif
      {&kScalarKernels, [] { return true; }},
  };
  return all;
}

}  // namespace

std::vector<std::string_view> isas() {
  std::vector<std::string_view> names;
  for (const auto& [kernels, runs_here] : candidates())
    if (runs_here()) names.emplace_back(kernels->name);
  return names;
}

const Kernels& kernels(std::string_view name) {
  for (const auto& [kernels, runs_here] : candidates()) {
    if (name != kernels->name) continue;
    if (runs_here()) return *kernels;
    throw std::runtime_error("this CPU lacks what the " + std::string(name) + " kernels need");
  }
  throw std::runtime_error("there are no kernels named '" + std::string(name) + "' for this CPU");
}

const Kernels& kernels() {
  static const Kernels& chosen = [&]() -> const Kernels& {
    const char* forced = std::getenv("SUBLLM_ISA");
    if (!forced || !*forced) return kernels(isas().front());
    try {
      return kernels(forced);
    } catch (const std::runtime_error& error) {
      throw std::runtime_error("SUBLLM_ISA: " + std::string(error.what()) + "; unset it");
    }
  }();
  return chosen;
}

}  // namespace subllm
