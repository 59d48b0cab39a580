#include "screen/screen.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <string_view>
#include <vector>

#include "threads/parallel.h"

namespace subllm {

namespace {

constexpr int64_t kTileGrain = 16;
constexpr int kFits = 16;

constexpr int64_t kSampleTiles = 1024;

// Half the distance of the levels that suit a normal distribution, in mean magnitudes.
constexpr double kNormalStep = 0.624;

// `wide[c]`: the column does not take part.
float fit_step(const float* row, const std::vector<uint8_t>& wide) {
  double total = 0;
  int64_t count = 0;
  for (size_t c = 0; c < wide.size(); ++c) {
    if (wide[c]) continue;
    total += static_cast<double>(std::fabs(row[c]));
    ++count;
  }
  if (count == 0) return 0.0f;
  auto step = static_cast<float>(kNormalStep * (total / static_cast<double>(count)));
  for (int fit = 0; fit < kFits; ++fit) {
    const float edge = 2 * step;
    double low = 0, high = 0;
    int64_t large = 0;
    for (size_t c = 0; c < wide.size(); ++c) {
      if (wide[c]) continue;
      const float magnitude = std::fabs(row[c]);
      (magnitude > edge ? high : low) += static_cast<double>(magnitude);
      large += magnitude > edge;
    }
    const auto next =
        static_cast<float>((low + 3 * high) / static_cast<double>(count + 8 * large));
    if (next == step) break;
    step = next;
  }
  return step;
}

// The code nearest to a weight, which becomes what is left of it.
int take_code(float& weight, float step) {
  const float edge = 2 * step;
  const int code = weight < 0 ? (weight < -edge ? 0 : 1) : (weight > edge ? 3 : 2);
  weight -= static_cast<float>(2 * code - 3) * step;
  return code;
}

// The rows of a tile of 16 in `weights` [16][cols].
void unpack_rows_of(const PackedView& head, int64_t tile, float* weights) {
  const int64_t cols = head.geometry.cols;
  for (int64_t half = 0; half < kScreenRows / kTileRows; ++half) {
    const int64_t packed = tile * kScreenRows / kTileRows + half;
    if (packed * kTileRows >= head.geometry.rows) break;
    float* at[kTileRows];
    for (int64_t r = 0; r < kTileRows; ++r) at[r] = weights + (half * kTileRows + r) * cols;
    unpack_tile(head, packed, at);
  }
}

// The columns that 2 bits fit worst, the worst first.
void find_wide(const PackedView& head, int32_t* columns, int threads) {
  const int64_t rows = head.geometry.rows, cols = head.geometry.cols;
  const int64_t tiles = ceil_div(rows, kScreenRows);
  const int64_t every = std::max<int64_t>(1, tiles / kSampleTiles);
  const int64_t parts = ceil_div(tiles, every);
  const std::vector<uint8_t> none(static_cast<size_t>(cols), 0);
  std::vector<double> errors(static_cast<size_t>(parts * cols), 0.0);
  parallel_for(parts, kTileGrain, threads, [&](int64_t begin, int64_t end) {
    std::vector<float> weights(static_cast<size_t>(kScreenRows * cols));
    for (int64_t part = begin; part < end; ++part) {
      const int64_t first = part * every * kScreenRows;
      unpack_rows_of(head, part * every, weights.data());
      double* sums = errors.data() + part * cols;
      for (int64_t r = 0; r < std::min(kScreenRows, rows - first); ++r) {
        float* row = weights.data() + r * cols;
        const float step = fit_step(row, none);
        if (step == 0.0f) continue;
        for (int64_t c = 0; c < cols; ++c) {
          take_code(row[c], step);
          const double error = static_cast<double>(row[c]) / static_cast<double>(step);
          sums[c] += error * error;
        }
      }
    }
  });
  for (int64_t part = 1; part < parts; ++part)
    for (int64_t c = 0; c < cols; ++c) errors[c] += errors[part * cols + c];
  std::vector<int32_t> order(static_cast<size_t>(cols));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return errors[a] > errors[b]; });
  for (int64_t i = 0; i < kScreenCols; ++i) columns[i] = i < cols ? order[i] : -1;
}

}  // namespace

void build_screen(const PackedView& head, uint8_t* codes, float* steps, int32_t* columns,
                  int threads) {
  const int64_t rows = head.geometry.rows, cols = head.geometry.cols;
  const ScreenView view{rows, cols};
  const int64_t unit_bytes = view.units() * kScreenUnit;
  find_wide(head, columns, threads);
  std::vector<uint8_t> wide(static_cast<size_t>(cols), 0);
  for (int64_t i = 0; i < kScreenCols; ++i)
    if (columns[i] >= 0) wide[columns[i]] = 1;
  parallel_for(view.tiles(), kTileGrain, threads, [&](int64_t begin, int64_t end) {
    std::vector<float> weights(static_cast<size_t>(kScreenRows * cols));
    for (int64_t tile = begin; tile < end; ++tile) {
      unpack_rows_of(head, tile, weights.data());
      uint8_t* out = codes + tile * unit_bytes;
      std::memset(out, 0, static_cast<size_t>(unit_bytes));
      for (int64_t r = 0; r < kScreenRows; ++r) {
        const bool present = tile * kScreenRows + r < rows;
        float* row = weights.data() + r * cols;
        const float step = present ? fit_step(row, wide) : 0.0f;
        steps[tile * kScreenRows + r] = step;
        if (step == 0.0f) continue;
        const auto put = [&](int64_t unit, int64_t c, int code) {
          out[unit * kScreenUnit + r % 4 * kScreenCols + c] |=
              static_cast<uint8_t>(code << r / 4 * 2);
        };
        const auto put_wide = [&](int64_t unit, float its_step) {
          for (int64_t i = 0; i < kScreenCols; ++i)
            if (columns[i] >= 0) put(unit, i, take_code(row[columns[i]], its_step));
        };
        put_wide(view.own_units(), 2.0f * step);
        for (int64_t c = 0; c < cols; ++c)
          put(c / kScreenCols, c % kScreenCols, take_code(row[c], step));
        put_wide(view.own_units() + 1, 0.5f * step);
      }
    }
  });
}

ScreenProduct screen_product(const Kernels& with) {
#if defined(__x86_64__)
  const std::string_view name = with.name;
  if (name == "avx512") return screen_avx512;
  if (name != "scalar") return screen_avx2;  // AVX-VNNI has all that AVX2 has
#else
  (void)with;
#endif
  return screen_scalar;
}

void ScreenInput::prepare(Pool& pool, const ScreenView& view, const float* x, int64_t tokens) {
  const int64_t cols = view.cols, stride = view.units() * kScreenCols;
  int8_t* codes = codes_.reserve(tokens * stride);
  float* scales = scales_.reserve(tokens);
  int32_t* sums = sums_.reserve(tokens);
  finite_ = finite_buffer_.reserve(tokens);
  pool.run(tokens, 1, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const float* row = x + t * cols;
      int8_t* to = codes + t * stride;
      float largest = 0;
      bool finite = true;
      for (int64_t c = 0; c < cols; ++c) {
        largest = std::max(largest, std::fabs(row[c]));
        finite &= std::isfinite(row[c]);
      }
      for (int64_t i = 0; i < kScreenCols; ++i)
        if (view.columns[i] >= 0) largest = std::max(largest, 2.0f * std::fabs(row[view.columns[i]]));
      finite &= std::isfinite(largest);
      const bool zero = !finite || largest < kSmallestInput;
      const float inverse = zero ? 0.0f : 127.0f / largest;
      std::memset(to, 0, static_cast<size_t>(stride));
      int32_t sum = 0;
      const auto put = [&](int64_t at, float value) {
        to[at] = static_cast<int8_t>(std::nearbyint(std::min(value * inverse, 127.0f)));
        sum += to[at];
      };
      if (!zero) {
        for (int64_t c = 0; c < cols; ++c) put(c, row[c]);
        const int64_t wide = view.own_units() * kScreenCols;
        for (int64_t i = 0; i < kScreenCols; ++i) {
          if (view.columns[i] < 0) continue;
          put(wide + i, 2.0f * row[view.columns[i]]);
          put(wide + kScreenCols + i, 0.5f * row[view.columns[i]]);
        }
      }
      scales[t] = zero ? 0.0f : largest / 127.0f;
      sums[t] = sum;
      finite_[t] = finite;
    }
  });
  states_ = {tokens, stride, codes, scales, sums};
}

void screen(Pool& pool, const ScreenView& view, const ScreenInput& input, float* out,
            int64_t out_stride, const Kernels& with) {
  const ScreenProduct product = screen_product(with);
  pool.run(view.tiles(), kTileGrain, [&](int64_t begin, int64_t end) {
    product(view, input.states(), begin, end, out, out_stride);
  });
}

}  // namespace subllm
