"""How int4 chooses codes, scales and minima, in plain numpy: what the native core is held to.

Per row and 32 columns a step and a minimum (none with a mask) with a small weighted squared
error: candidate codes from a few spans of the grid, each fitted in closed form, as ggml's
k-quants do it. Then integer parts of one binary16 for 256 columns, then codes once more.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from subllm.kernels.sparsity.layout import SUB, SUPER

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

AFFINE_SPANS = tuple(np.float32(tenths / 10) for tenths in range(140, 161))
SYMMETRIC_SPANS = tuple(
    np.float32(span)
    for span in (5.5, 6, 6.5, 7, 7.25, 7.5, 7.75, 8, 8.25, 8.5, 8.75, 9, 9.5, 10, 11)
)
_PARTS = np.float32(255)
_SUBS = SUPER // SUB


def quantize_int4(
    weights: Floats, mask: Bools | None, importance: Floats | None
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float16], npt.NDArray[np.uint8]]:
    """float32 [R, C], bool [R, C] or None (dense), float32 [C] or None -> codes uint8 [R, C],
    scales [R, supers, terms], their integer parts uint8 [R, supers, terms, 8]."""
    rows, cols = weights.shape
    kept = np.ones(weights.shape, np.bool_) if mask is None else mask
    one = np.ones(cols, np.float32) if importance is None else importance
    full = -(-cols // SUPER) * SUPER
    x, w = np.zeros((2, rows, full), np.float32)
    x[:, :cols][kept] = weights[kept]
    w[:, :cols][kept] = np.broadcast_to(one, weights.shape)[kept]
    x, w = (array.reshape(rows, -1, _SUBS, SUB) for array in (x, w))
    with np.errstate(all="ignore"):
        if mask is None:
            steps, minima = _fit_affine(x, w)
            fits = [_common_scale(steps), _common_scale(minima)]
        else:
            fits = [_fit_signed(x, w)]
        terms = [scale.astype(np.float32)[..., None] * parts for scale, parts in fits]
        step = terms[0].astype(np.float32)[..., None]
        if mask is None:
            codes = _encode((x + terms[1].astype(np.float32)[..., None]) / step, 0, 15)
        else:
            codes = _encode(x / step, -8, 7) + 8
        codes = np.where(step != 0, codes, 0 if mask is None else 8)
    flat = codes.reshape(rows, full)[:, :cols].astype(np.uint8)
    scales = np.stack([scale for scale, _ in fits], axis=2)
    parts = np.stack([parts for _, parts in fits], axis=2).astype(np.uint8)
    return np.ascontiguousarray(flat), scales, parts


def _sum(terms: Floats) -> Floats:
    """[..., 32] -> [..., 1] in the core's order: 16 lanes, then halves folded on each other."""
    while terms.shape[-1] > 1:
        half = terms.shape[-1] // 2
        terms = terms[..., :half] + terms[..., half:]
    return terms


def _encode(wanted: Floats, low: int, high: int) -> Floats:
    codes: Floats = np.rint(np.clip(wanted, np.float32(low), np.float32(high)))
    return codes


def _best_fit(
    first: Floats, least: Floats, fits: list[tuple[Floats, Floats, Bools]]
) -> tuple[Floats, Floats]:
    """The first of all with the least error, among the allowed ones; and that error."""
    best = first
    for fit, error, allowed in fits:
        better = allowed & (error < least)
        least = np.where(better, error, least)
        best = np.where(better, fit, best)
    return best, least


def _fit_affine(x: Floats, w: Floats) -> tuple[Floats, Floats]:
    """Steps and minima [..., subs] with x ~ step * code - minimum."""
    low: Floats = np.minimum(x.min(-1, keepdims=True), np.float32(0))
    span_of_x: Floats = np.maximum(x.max(-1, keepdims=True), np.float32(0)) - low
    weight, total = _sum(w), _sum(w * x)

    def error(fit: Floats, q: Floats) -> Floats:
        e = (fit[..., :1] * q - fit[..., 1:]) - x
        return _sum(w * (e * e))

    first = np.concatenate([span_of_x / np.float32(15), -low], axis=-1)
    q = _encode((x - low) * (np.float32(15) / span_of_x), 0, 15)
    fits = []
    for span in AFFINE_SPANS:
        candidate = _encode((x - low) * (span / span_of_x), 0, 15)
        sq, sqq = _sum(w * candidate), _sum(w * (candidate * candidate))
        sqx = _sum((w * x) * candidate)
        determinant = weight * sqq - sq * sq
        step = (weight * sqx - total * sq) / determinant
        minimum = (sq * sqx - sqq * total) / determinant
        below = minimum < 0
        step, minimum = np.where(below, sqx / sqq, step), np.where(below, 0, minimum)
        fit = np.concatenate([step, minimum], axis=-1).astype(np.float32)
        fits.append((fit, error(fit, candidate), (determinant > 0) & (step > 0)))
    best, _ = _best_fit(first, error(first, q), fits)
    best = np.where(span_of_x == 0, np.float32(0), best)
    return best[..., 0], best[..., 1]


def _fit_symmetric(x: Floats, w: Floats, sign: int) -> tuple[Floats, Floats]:
    """Steps [..., subs] with x ~ sign * step * code, codes -8 .. 7; errors alike."""
    largest: Floats = np.abs(x).max(-1, keepdims=True)
    one = np.float32(sign)

    def error(step: Floats, q: Floats) -> Floats:
        e = step * q - x
        return _sum(w * (e * e))

    first = largest / np.float32(7)
    q = _encode(x * (one * (np.float32(7) / largest)), -8, 7)
    fits = []
    for span in SYMMETRIC_SPANS:
        candidate = _encode(x * (one * (span / largest)), -8, 7)
        step = _sum((w * x) * candidate) / _sum(w * (candidate * candidate))
        fits.append((one * step, error(step, candidate), one * step > 0))
    best, least = _best_fit(first, error(one * first, q), fits)
    none = largest == 0
    return np.where(none, np.float32(0), best)[..., 0], np.where(none, 0, least)[..., 0]


def _fit_signed(x: Floats, w: Floats) -> tuple[npt.NDArray[np.float16], Floats]:
    """`_common_scale` of the steps of the sign that errs less over 256 columns."""
    plus, plus_error = _fit_symmetric(x, w, 1)
    minus, minus_error = _fit_symmetric(x, w, -1)
    total, negative_total = np.zeros((2, *plus_error.shape[:-1]), np.float32)
    for j in range(_SUBS):  # one after the other, as the core adds
        total = total + plus_error[..., j]
        negative_total = negative_total + minus_error[..., j]
    negative = negative_total < total
    scale, parts = _common_scale(np.where(negative[..., None], minus, plus))
    return np.where(negative & (scale != 0), -scale, scale), parts


def _common_scale(wanted: Floats) -> tuple[npt.NDArray[np.float16], Floats]:
    """[..., subs] -> a binary16 [...] of which the largest is about 255 times, not more, and
    how many times each is, integers 0 .. 255."""
    largest = np.maximum(wanted.max(-1), 0)
    scale = np.minimum(largest / _PARTS, np.float32(65504)).astype(np.float16)
    short = (scale.astype(np.float32) * np.float32(255.5) < largest) & (scale < np.float16(65504))
    scale = np.where(short, np.nextafter(scale, np.float16(np.inf)), scale)
    wide = scale.astype(np.float32)[..., None]
    parts = np.where(wide != 0, wanted / wide, 0)
    return scale, _encode(parts, 0, 255).astype(np.float32)
