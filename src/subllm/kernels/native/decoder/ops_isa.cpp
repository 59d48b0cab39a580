// Row operations for one instruction set: compiled once for each, with SUBLLM_ISA its name.

#include <cmath>

#include "decoder/attend_isa.h"
#include "decoder/lanes.h"
#include "decoder/ops.h"

namespace subllm {

namespace {

float square_sum(const float* x, int64_t n) {
  Floats a{}, b{};
  int64_t i = 0;
  for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
    const Floats first = load(x + i), second = load(x + i + kLanes);
    a += first * first;
    b += second * second;
  }
  each_lanes(n - i, [&](int64_t j, auto count) {
    const Floats value = take(x + i + j, count);
    a += value * value;
  });
  return sum_of(a + b);
}

void rms_norm(const float* x, const float* weight, int64_t n, float eps, float* out) {
  const float mean = square_sum(x, n) / static_cast<float>(n);
  const Floats factor = splat(1.0f / __builtin_sqrtf(mean + eps));
  each_lanes(n, [&](int64_t i, auto count) {
    put(out + i, take(x + i, count) * factor * take(weight + i, count), count);
  });
}

void layer_norm(const float* x, const float* weight, const float* bias, int64_t n, float eps,
                float* out) {
  Floats total{};
  each_lanes(n, [&](int64_t i, auto count) { total += take(x + i, count); });
  const Floats mean = splat(sum_of(total) / static_cast<float>(n));
  each_lanes(n, [&](int64_t i, auto count) { put(out + i, take(x + i, count) - mean, count); });
  const float variance = square_sum(out, n) / static_cast<float>(n);
  const Floats factor = splat(1.0f / __builtin_sqrtf(variance + eps));
  each_lanes(n, [&](int64_t i, auto count) {
    put(out + i, take(out + i, count) * factor * take(weight + i, count) + take(bias + i, count),
        count);
  });
}

void add(const float* x, int64_t n, float* sum) {
  each_lanes(n, [&](int64_t i, auto count) {
    put(sum + i, take(sum + i, count) + take(x + i, count), count);
  });
}

void add_squares(const float* x, int64_t n, float* sums) {
  each_lanes(n, [&](int64_t i, auto count) {
    const Floats value = take(x + i, count);
    put(sums + i, take(sums + i, count) + value * value, count);
  });
}

void scale(float factor, int64_t n, float* x) {
  each_lanes(n, [&](int64_t i, auto count) {
    put(x + i, take(x + i, count) * splat(factor), count);
  });
}

template <class Function>
SUBLLM_INLINE void activate_with(Function function, const float* gate, const float* up, int64_t n,
                                 float* out) {
  if (up) {
    each_lanes(n, [&](int64_t i, auto count) {
      put(out + i, function(take(gate + i, count)) * take(up + i, count), count);
    });
  } else {
    each_lanes(n, [&](int64_t i, auto count) {
      put(out + i, function(take(gate + i, count)), count);
    });
  }
}

void activate(Activation kind, const float* gate, const float* up, int64_t n, float* out) {
  switch (kind) {
    case Activation::silu:
      return activate_with([](Floats x) { return x / (splat(1.0f) + exp_of(-x)); }, gate, up, n,
                           out);
    case Activation::gelu_tanh:
      // 0.5 * (1 + tanh(u)) = 1 / (1 + exp(-2 u))
      return activate_with(
          [](Floats x) {
            const Floats u = x * splat(1.5957691216f) * (splat(1.0f) + splat(0.044715f) * x * x);
            return x / (splat(1.0f) + exp_of(-u));
          },
          gate, up, n, out);
    case Activation::gelu:
      for (int64_t i = 0; i < n; ++i) {
        const float half = 0.5f * gate[i] * (1.0f + ::erff(gate[i] * 0.70710678118f));
        out[i] = up ? half * up[i] : half;
      }
  }
}

void rotate(const float* cos, const float* sin, int64_t half, float* head) {
  each_lanes(half, [&](int64_t i, auto count) {
    const Floats a = take(head + i, count), b = take(head + half + i, count);
    const Floats c = take(cos + i, count), s = take(sin + i, count);
    put(head + i, a * c - b * s, count);
    put(head + half + i, b * c + a * s, count);
  });
}

void softcap(float cap, int64_t n, float* x) {
  each_lanes(n, [&](int64_t i, auto count) {
    put(x + i, splat(cap) * tanh_of(take(x + i, count) * splat(1.0f / cap)), count);
  });
}

int64_t argmax(const float* x, int64_t n) {
  const Floats lowest = splat(-__builtin_inff());
  Floats best[4] = {lowest, lowest, lowest, lowest};
  int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes)
    for (int j = 0; j < 4; ++j) best[j] = larger(load(x + i + j * kLanes), best[j]);
  float peak = max_of(larger(larger(best[0], best[1]), larger(best[2], best[3])));
  for (; i < n; ++i) peak = x[i] > peak ? x[i] : peak;
  for (i = 0; i + kLanes <= n; i += kLanes) {
    if (any_of(load(x + i) == splat(peak))) break;
  }
  for (; i < n; ++i)
    if (x[i] == peak) return i;
  return 0;
}

double exp_sum(const float* x, int64_t n, double peak, double temperature) {
  Doubles a{}, b{};
  const Doubles top = Doubles{} + peak, divisor = Doubles{} + temperature;
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const auto low = *reinterpret_cast<const HalfFloatsAt*>(x + i);
    const auto high = *reinterpret_cast<const HalfFloatsAt*>(x + i + kLanes / 2);
    a += exp_of((__builtin_convertvector(low, Doubles) - top) / divisor);
    b += exp_of((__builtin_convertvector(high, Doubles) - top) / divisor);
  }
  a += b;
  double total = 0.0;
  for (int j = 0; j < kLanes / 2; ++j) total += a[j];
  for (; i < n; ++i) total += ::exp((static_cast<double>(x[i]) - peak) / temperature);
  return total;
}

int64_t at_least(const float* x, int64_t n, float threshold, int32_t* out, int64_t limit) {
  int64_t found = 0;
  const auto look = [&](int64_t i) {
    if (x[i] >= threshold) {
      if (found < limit) out[found] = static_cast<int32_t>(i);
      ++found;
    }
  };
  int64_t i = 0;
  for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
    if (any_of((load(x + i) >= splat(threshold)) | (load(x + i + kLanes) >= splat(threshold))))
      for (int64_t j = i; j < i + 2 * kLanes; ++j) look(j);
  }
  for (; i < n; ++i) look(i);
  return found;
}

}  // namespace

extern const Ops SUBLLM_FOR_ISA(ops);
const Ops SUBLLM_FOR_ISA(ops) = {
    SUBLLM_TEXT(SUBLLM_ISA), rms_norm, layer_norm, add,    add_squares,
    scale,                   activate, rotate,     softcap, SUBLLM_FOR_ISA(attend),
    argmax,                  exp_sum,  at_least,
};

}  // namespace subllm
