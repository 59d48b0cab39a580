#include "decoder/attention.h"

#include <algorithm>
#include <cmath>

#include "core.h"
#include "decoder/ops.h"

namespace subllm {

namespace {

constexpr int64_t kRows = 64;          // query rows of a tile, unless one token has more
constexpr int64_t kFewTokens = 8;      // below that, parts of the keys are tasks of their own
// Keys are attended to in parts of so many positions, whose results are then joined. The parts
// are fixed, so that a token's result has the same bits whatever else is in the step and
// however many threads there are.
constexpr int64_t kPartKeys = 1024;
constexpr int64_t kSerialProducts = 1 << 15;  // less work than that is not worth a region

// Parts that hold some of the keys [begin, end).
int64_t parts_of(int64_t begin, int64_t end) { return ceil_div(end, kPartKeys) - begin / kPartKeys; }

int64_t tokens_of_tile(int64_t group) { return std::max<int64_t>(1, kRows / group); }

}  // namespace

Attention::Plan Attention::planned(std::span<const Span> spans, int64_t window) const {
  Plan plan;
  plan.window = window;
  for (const Span& span : spans) {
    const int64_t step = std::min(tokens_of_tile(spec_.group()), span.count);
    for (int64_t kv_head = 0; kv_head < spec_.kv_heads; ++kv_head) {
      for (int64_t first = 0; first < span.count; first += step) {
        const int64_t count = std::min(step, span.count - first);
        const int64_t end = span.start + first + count;
        int64_t begin = 0;
        if (window > 0) begin = std::max<int64_t>(0, span.start + first - window + 1);
        const int64_t parts = parts_of(begin, end);
        const bool split = span.count < kFewTokens && parts > 1;
        const int64_t tasks = split ? parts : 1;
        for (int64_t task = 0; task < tasks; ++task) {
          Tile tile{&span, kv_head, first, count, begin, end, tasks};
          if (split) {
            const int64_t origin = (begin / kPartKeys + task) * kPartKeys;
            tile.begin = std::max(begin, origin);
            tile.end = std::min(end, origin + kPartKeys);
          }
          plan.tiles.push_back(tile);
        }
        plan.split |= split;
        plan.products += count * spec_.group() * (end - begin) * spec_.head_dim;
      }
    }
  }
  return plan;
}

void Attention::plan(std::span<const Span> spans) {
  full_ = planned(spans, 0);
  if (spec_.window > 0) sliding_ = planned(spans, spec_.window);
}

int64_t Attention::partial_floats() const {
  const int64_t rows = std::max(kRows, spec_.group());
  return rows * (ceil_div(spec_.head_dim, 16) * 16 + 2);
}

float* Attention::out_of(const Tile& tile, int64_t row, float* out) const {
  const int64_t token = tile.span->row + tile.first + row / spec_.group();
  const int64_t head = tile.kv_head * spec_.group() + row % spec_.group();
  return out + (token * spec_.heads + head) * spec_.head_dim;
}

void Attention::run(Pool& pool, const KvCache& cache, int64_t layer, const float* queries,
                    int64_t query_stride, float* out) {
  const Plan& plan = spec_.sliding[layer] && spec_.window > 0 ? sliding_ : full_;
  const auto count = static_cast<int64_t>(plan.tiles.size());
  float* partials = plan.split ? partials_.reserve(count * partial_floats()) : nullptr;
  const int64_t grain = plan.products < kSerialProducts ? count : 1;
  pool.run(count, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      compute(cache, plan.tiles[i], plan.window, layer, queries, query_stride,
              partials ? partials + i * partial_floats() : nullptr, out);
  });
  if (!plan.split) return;
  for (int64_t i = 0; i < count; i += plan.tiles[i].tasks)
    if (plan.tiles[i].tasks > 1)
      join(plan.tiles[i], plan.tiles[i].tasks, partials + i * partial_floats(), out);
}

void Attention::compute(const KvCache& cache, const Tile& tile, int64_t window, int64_t layer,
                        const float* queries, int64_t query_stride, float* partial,
                        float* out) const {
  thread_local Buffer<float> scratch;
  const KvLayout& layout = cache.layout();
  const int64_t rows = rows_of(tile), dim = spec_.head_dim, group = spec_.group();
  const int64_t query_floats = ceil_div(rows * dim, 16) * 16;
  const int64_t score_floats = rows * kKvBlock;
  const int64_t key_floats = layout.type == KvType::int8 ? dim * kKvBlock : 0;
  const int64_t parts = parts_of(tile.begin, tile.end);
  float* gathered =
      scratch.reserve(query_floats + score_floats + key_floats + parts * partial_floats());
  if (tile.tasks == 1) partial = gathered + query_floats + score_floats + key_floats;
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t token = tile.span->row + tile.first + row / group;
    const float* query = queries + token * query_stride + (tile.kv_head * group + row % group) * dim;
    for (int64_t i = 0; i < dim; ++i) gathered[row * dim + i] = query[i] * spec_.attn_scale;
  }
  const int64_t head = layout.head(layer, tile.kv_head);
  AttendTile work{
      .type = layout.type,
      .dim = dim,
      .stride = layout.stride,
      .rows = rows,
      .group = group,
      .position = tile.span->start + tile.first,
      .window = window,
      .begin = tile.begin,
      .end = tile.end,
      .softcap = spec_.attn_softcap,
      .queries = gathered,
      .blocks = cache.blocks(tile.span->slab),
      .keys = head,
      .values = head + layout.values,
      .key_scales = head + layout.key_scales,
      .value_scales = head + layout.value_scales,
      .scores = gathered + query_floats,
      .widened = gathered + query_floats + score_floats,
      .out = nullptr,
      .peak = nullptr,
      .mass = nullptr,
  };
  for (int64_t part = 0; part < parts; ++part) {
    const int64_t origin = (tile.begin / kPartKeys + part) * kPartKeys;
    work.begin = std::max(tile.begin, origin);
    work.end = std::min(tile.end, origin + kPartKeys);
    work.out = partial + part * partial_floats();
    work.peak = work.out + rows * layout.stride;
    work.mass = work.peak + rows;
    ops().attend(work);
  }
  if (tile.tasks == 1) join(tile, parts, partial, out);
}

// Partials of a row that sees no key of a part have peak -infinity and mass 0.
void Attention::join(const Tile& tile, int64_t parts, const float* partials, float* out) const {
  const int64_t rows = rows_of(tile), dim = spec_.head_dim;
  const int64_t stride = ceil_div(dim, 16) * 16;
  for (int64_t row = 0; row < rows; ++row) {
    const auto peak = [&](int64_t p) { return partials[p * partial_floats() + rows * stride + row]; };
    const auto mass = [&](int64_t p) {
      return partials[p * partial_floats() + rows * (stride + 1) + row];
    };
    float top = peak(0);
    for (int64_t p = 1; p < parts; ++p) top = std::max(top, peak(p));
    float* target = out_of(tile, row, out);
    std::fill(target, target + dim, 0.0f);
    float total = 0.0f;
    for (int64_t p = 0; p < parts; ++p) {
      const float weight = std::exp(peak(p) - top);
      total += weight * mass(p);
      const float* sum = partials + p * partial_floats() + row * stride;
      for (int64_t i = 0; i < dim; ++i) target[i] += weight * sum[i];
    }
    const float inverse = 1.0f / total;
    for (int64_t i = 0; i < dim; ++i) target[i] *= inverse;
  }
}

}  // namespace subllm
