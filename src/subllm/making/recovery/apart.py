"""What learns in the processor's memory, while a device computes with it: a card needs room for
weights alone then (Ren et al., arXiv 2101.06840).

A gradient goes to the processor, whose step is the same as where it computes all, and the new
weight comes back: two bytes a weight each way, less than moving masters and moments would take.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from subllm.making.recovery.masters import AdamW, Learned

_CPU = torch.device("cpu")


class Apart(Learned):
    """As `Learned`, all of it on the processor but `shown`."""

    def __init__(
        self,
        name: str,
        start: npt.NDArray[np.float32],
        mask: npt.NDArray[np.bool_] | None,
        adamw: AdamW,
        device: torch.device,
        dtype: torch.dtype,
        *,
        across: bool = False,
    ) -> None:
        super().__init__(name, start, mask, adamw, _CPU, dtype, across=across)
        self._sent = self.weight.to(device)
        self._version = self.weight._version
        self._stepped = False

    @property
    def shown(self) -> torch.Tensor:
        """Sent again where the weight changed: by a step, which torch does not see, or otherwise,
        which it counts."""
        if self._stepped or self._version != self.weight._version:
            self._sent.copy_(self.weight)
            self._version, self._stepped = self.weight._version, False
        return self._sent

    def step(self, gradient: torch.Tensor) -> None:
        """See `Learned.step`."""
        super().step(gradient.to(_CPU))
        self._stepped = True
