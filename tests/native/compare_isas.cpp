// Compares every instruction set of this CPU with the scalar kernels on random matrices;
// prints what differs. Needs no Python, so it also runs under an emulator.

#include <cmath>
#include <cstdio>
#include <random>
#include <string>
#include <vector>

#include "core.h"
#include "product/product.h"
#include "product/relay.h"
#include "screen/screen.h"

using namespace subllm;

namespace {

struct Sample {
  std::vector<uint64_t> mask;
  std::vector<uint32_t> offsets;
  std::vector<uint8_t> values;
  std::vector<uint16_t> scales;
  std::vector<uint8_t> subscales;
  PackedView view;
  Planes relaid;
};

// `kept` of every `span` columns survive; span 0 is dense, span 1 unstructured with a share of
// `kept` percent.
Sample make(Pool& pool, std::mt19937& random, int64_t rows, int64_t cols, ValueType type, int kept, int span) {
  std::normal_distribution<float> normal;
  std::vector<float> weights(rows * cols), scores(rows * cols);
  for (auto& weight : weights) weight = normal(random);
  for (auto& score : scores) score = normal(random);
  Sample s;
  const int64_t slots = span == 0 ? 64 : span == 1 || span == 32 ? 0 : 64 * kept / span;
  const Geometry g{rows, cols, slots, type};
  if (span > 0) {
    const auto chosen = std::make_unique<bool[]>(rows * cols);
    if (span == 1)
      select_rows(scores.data(), rows, cols, cols - cols * kept / 100, chosen.get(), 1);
    else
      select_nm(scores.data(), rows, cols, kept, span, chosen.get(), 1);
    s.mask.resize(g.mask_words());
    pack_bits(chosen.get(), rows, cols, s.mask.data(), 1);
  }
  int64_t bytes = g.row_tiles() * g.col_blocks() * g.block_bytes();
  if (slots == 0) {
    s.offsets.resize(g.row_tiles() + 1);
    tile_offsets(g, s.mask.data(), s.offsets.data());
    bytes = s.offsets.back() * kAlign;
  }
  s.values.resize(ceil_div(bytes, kAlign) * kAlign + kAlign);
  s.scales.resize(g.row_tiles() * g.tile_scales());
  s.subscales.resize(g.row_tiles() * g.tile_subscales());
  const auto or_null = [](auto& plane) { return plane.empty() ? nullptr : plane.data(); };
  pack(weights.data(), nullptr, g, or_null(s.mask), or_null(s.offsets), s.values.data(),
       {or_null(s.scales), or_null(s.subscales)}, 1);
  s.view = {g,
            or_null(s.mask),
            s.values.data(),
            or_null(s.scales),
            or_null(s.offsets),
            or_null(s.subscales)};
  s.view.balanced = check_masks(pool, s.view);
  return s;
}

std::vector<float> product(Pool& pool, Sample& s, const std::vector<float>& x, int64_t tokens,
                           const Kernels& with) {
  const Geometry& g = s.view.geometry;
  std::vector<float> out(tokens * g.rows);
  Input input;
  relay(pool, s.view, s.relaid, with);
  input.prepare(pool, x.data(), tokens, g.cols, g.cols, input_form(g.type), with);
  const Product one{&s.view, nullptr, out.data(), g.rows};
  multiply(pool, input, {&one, 1}, with);
  return out;
}

// How many products of the screening plane of a random head differ from the scalar ones.
int compare_screens(Pool& pool, std::mt19937& random, const Kernels& with) {
  std::normal_distribution<float> normal;
  int wrong = 0;
  for (const auto& [rows, cols] : {std::pair<int64_t, int64_t>{1, 64}, {37, 200}, {100, 896}}) {
    const Sample s = make(pool, random, rows, cols, ValueType::int8, 0, 0);
    ScreenView view{rows, cols};
    std::vector<uint8_t> codes(view.tiles() * view.units() * kScreenUnit);
    std::vector<float> steps(view.tiles() * kScreenRows);
    std::vector<int32_t> columns(kScreenCols);
    build_screen(s.view, codes.data(), steps.data(), columns.data(), 1);
    view.codes = codes.data(), view.steps = steps.data(), view.columns = columns.data();
    for (const int64_t tokens : {1, 3, 4, 16}) {
      std::vector<float> x(tokens * cols), got(tokens * rows), want(tokens * rows);
      for (auto& value : x) value = normal(random);
      ScreenInput input;
      input.prepare(pool, view, x.data(), tokens);
      screen(pool, view, input, got.data(), rows, with);
      screen(pool, view, input, want.data(), rows, kernels("scalar"));
      if (got == want) continue;
      ++wrong;
      std::printf("%s differs: screen of %d x %d, %d tokens\n", with.name, static_cast<int>(rows),
                  static_cast<int>(cols), static_cast<int>(tokens));
    }
  }
  return wrong;
}

}  // namespace

int main() {
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  Pool pool;
  int compared = 0, wrong = 0;
  struct Pattern { int kept, span; };
  for (const auto name : isas())
    for (const auto type : {ValueType::int4, ValueType::int8, ValueType::bf16})
      for (const auto [kept, span] : {Pattern{0, 0}, {8, 16}, {2, 4}, {31, 32}, {12, 16}, {1, 4}, {50, 1}, {97, 1}})
        for (const auto& [rows, cols] : {std::pair<int64_t, int64_t>{1, 64}, {13, 576}, {40, 896}})
          for (const int64_t tokens : {1, 2, 3, 7, 8, 21}) {
            Sample s = make(pool, random, rows, cols, type, kept, span);
            std::vector<float> x(tokens * cols);
            for (auto& value : x) value = normal(random);
            const auto got = product(pool, s, x, tokens, kernels(name));
            const auto want = product(pool, s, x, tokens, kernels("scalar"));
            const float room = type == ValueType::bf16 ? 1e-3f : 0.0f;
            bool same = true;
            for (size_t i = 0; i < got.size(); ++i) same &= std::fabs(got[i] - want[i]) <= room;
            ++compared;
            if (same) continue;
            ++wrong;
            std::printf("%s differs: type %d, %d of %d, %d x %d, %d tokens\n", std::string(name).c_str(),
                        static_cast<int>(type), kept, span, static_cast<int>(rows),
                        static_cast<int>(cols), static_cast<int>(tokens));
          }
  for (const auto name : isas()) wrong += compare_screens(pool, random, kernels(name));
  std::printf("%d products compared, %d differ; kernels:", compared, wrong);
  for (const auto name : isas()) std::printf(" %s", std::string(name).c_str());
  std::printf("\n");
  return wrong != 0;
}
