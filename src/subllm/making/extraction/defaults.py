"""How much calibration there is where nobody says. Light: the command line reads it."""

from __future__ import annotations

from typing import Final

DEFAULT_SAMPLES = 32
"""Calibration sequences of an extraction. The paper takes 128; from 16 on, nothing that was
measured tells them apart (docs/LOG.md, 2026-11-27)."""

DENSE_VALUES = "int4"
"""How a dense base is stored: rounded by calibration, as good as int8 in all that was measured
(docs/LOG.md, 2026-11-27)."""

DENSE_SAMPLES = 16
"""Calibration sequences by which a dense base is rounded to int4."""

DEFAULT_RECOVERY = "30m"
"""What `subllm extract` recovers for where nobody says, as `--recover` takes it. Without any, by
SparseGPT, a 0.5B keeps 77 % of its pass@1 and 71 % of what it fills in; half an hour on two cores
makes that 85 and 95 %. Its likeness to the dense base hardly grows after ten minutes
(docs/recovery)."""

PLAIN_METHOD, RECOVERED_METHOD = "wanda", "sparsegpt"
"""How weights are chosen where nobody says, without a recovery and with one: SparseGPT's update
loses a third less to begin with, in three times Wanda's time (docs/LOG.md, 2026-11-27)."""

DEFAULT_VALUES: Final = "int4"
"""How kept weights are stored where nobody says: rounding to int4 costs a plain sub-model 3 % of
perplexity, a recovered one 1 %, and in int8 half of the weights are slower and worse than all of
them in int4."""

DEFAULT_PATTERN = "11:16"
"""What is kept where nobody says: as many bytes as this pattern everywhere, laid out by what the
base's matrices are worth where that comes with subllm, else the pattern itself."""

HELDOUT_SEQUENCES = 8
"""Held-out sequences that tell what was lost. The same with `--fast`, though they take as long as
its calibration: figures of half of them are not comparable."""

_FAST_COUNTS = (16, 32, 64, 128)
FAST_SECONDS = 120
"""What `--fast` lets an extraction take, unless the fewest sequences take longer."""


def fast_counts() -> tuple[int, ...]:
    """Numbers of sequences that `--fast` chooses from, ascending. A few steps instead of any
    number, so that two measurements of one machine mostly mean the same plan."""
    return tuple(n for n in _FAST_COUNTS if n <= DEFAULT_SAMPLES) or (DEFAULT_SAMPLES,)
