// Chooses the kernel for what a matrix is and for the number of tokens.
#pragma once

#include "wide256/bf16.h"
#include "wide256/panel.h"
#include "wide256/picked4.h"
#include "wide256/picked8.h"

namespace subllm {

namespace {

inline int64_t most(int64_t a, int64_t b) { return a < b ? b : a; }

// Enough for a matrix of this geometry, whatever its mask.
inline int64_t scratch_bytes(const Geometry& g, int64_t tokens) {
  if (g.type == ValueType::bf16) return bf16_scratch_bytes(g, true);
  if (g.type == ValueType::int4) {
    const int64_t laned = tokens <= kFew ? 0
                                         : laned_tiles<ValueType::int4>(g, tokens) *
                                               laned_tile_bytes<ValueType::int4>(g);
    return may_be_picked(g) ? most(laned, picked_scratch_bytes(g, tokens)) : laned;
  }
  if (tokens <= kFew) return 0;
  return most(laned_tiles<ValueType::int8>(g, tokens) * laned_tile_bytes<ValueType::int8>(g),
              halved_scratch_bytes(g, tokens));
}

template <typename Dot>
void multiply(const PackedView& view, const Activations& x, int64_t begin, int64_t end,
              const Target& target, uint8_t* scratch) {
  const ValueType type = view.geometry.type;
  if (type == ValueType::bf16) return multiply_bf16(view, x, begin, end, target, scratch);
  if (view.relaid) return multiply_picked(view, x, begin, end, target, scratch);
  if (is_halved(view)) return multiply_halved<Dot>(view, x, begin, end, target, scratch);
  const int64_t laned_tokens = x.tokens <= kFew ? 0 : x.laned;
  if (laned_tokens > 0) {
    const bool int4 = type == ValueType::int4;
    const auto laned = view.mask ? (int4 ? multiply_laned<Dot, ValueType::int4, true>
                                         : multiply_laned<Dot, ValueType::int8, true>)
                                 : (int4 ? multiply_laned<Dot, ValueType::int4, false>
                                         : multiply_laned<Dot, ValueType::int8, false>);
    laned(view, x, begin, end, target, scratch);
  }
  for (int64_t t = laned_tokens; t < x.tokens; t += kFew) {
    Activations rest = from_token(x, t);
    rest.tokens = least(rest.tokens, kFew);
    multiply_few<Dot>(view, rest, begin, end, from_token(target, t));
  }
}

}  // namespace

}  // namespace subllm
