"""The pruned model while it learns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from subllm.errors import ExtractionError
from subllm.making.recovery.again import Kept, Run, again
from subllm.making.recovery.apart import Apart
from subllm.making.recovery.between import fuse
from subllm.making.recovery.masters import AdamW, Learned, Masters
from subllm.making.recovery.rounding import Products
from subllm.making.recovery.rows import RecoveryText
from subllm.making.recovery.skeleton import Skeleton, learned_states
from subllm.making.recovery.task import Task

_AT_ONCE = 4  # rows, where there is no gradient


class _Product(torch.autograd.Function):
    """x [..., in] times a learned matrix; in backward its gradient is used up on the spot."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, matrix: Learned) -> torch.Tensor:
        ctx.matrix = matrix
        ctx.save_for_backward(x)
        weight = matrix.shown
        return x @ (weight if matrix.across else weight.T)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, None]:
        (x,) = ctx.saved_tensors
        matrix: Learned = ctx.matrix
        by_input = None
        if ctx.needs_input_grad[0]:
            # Before the step: it changes the weight.
            by_input = gradient @ (matrix.shown.T if matrix.across else matrix.shown)
        inputs = x.reshape(-1, x.shape[-1])
        outputs = gradient.reshape(-1, gradient.shape[-1])
        # A transposed copy of the narrower side makes the product up to twice as fast.
        if matrix.across:
            matrix.step(inputs.T.contiguous() @ outputs)
        else:
            matrix.step(outputs.T.contiguous() @ inputs)
        return by_input, None


class _LearnedLinear(nn.Module):
    """In place of a block's linear module."""

    def __init__(self, matrix: Learned, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.__dict__["_matrix"] = matrix
        self.bias = nn.Parameter(bias, requires_grad=False) if bias is not None else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        matrix: Learned = self.__dict__["_matrix"]
        if matrix.watch is not None:
            matrix.watch(x)
        apply: Any = _Product.apply  # typed in some versions of torch only
        y: torch.Tensor = apply(x, matrix)
        return y if self.bias is None else y + self.bias


class Student:
    """Blocks with kept weights that learn, on a skeleton.

    kept    of each block, for the backward pass
    apart   of so many blocks, the first ones, what learns lies in the processor's memory
    """

    def __init__(
        self,
        skeleton: Skeleton,
        task: Task,
        adamw: AdamW,
        *,
        kept: Sequence[Kept],
        apart: int = 0,
    ) -> None:
        self.skeleton = skeleton
        self.masters = Masters()
        self._adamw = adamw
        self._kept, self._apart = kept, apart
        for layer, block in enumerate(skeleton.blocks):
            self._fill(layer, block, task)
            task.reader.release()
        for name, parameter in skeleton.norm.named_parameters():
            full = skeleton.spec.final_norm_name.removesuffix("weight") + name
            parameter.data.copy_(torch.from_numpy(task.start(full)))
            if task.recipe.vectors:
                self._learn_vector(full, parameter, task)

    def _fill(self, layer: int, block: nn.Module, task: Task) -> None:
        """Weights and learned modules of one block."""
        spec, device, dtype = self.skeleton.spec, self.skeleton.device, self.skeleton.dtype
        prefix = spec.block_prefix(layer)
        learned: dict[str, Learned] = {}
        kind = Apart if layer < self._apart else Learned
        for linear in spec.linears:
            name = f"{prefix}{linear.name}.weight"
            masked = name in task.masks
            if not masked and not task.recipe.dense:
                continue
            mask = np.asarray(task.masks[name]) if masked else None
            start = task.start(name)
            if mask is not None and mask.shape != start.shape:
                raise ExtractionError(f"the mask of {name} has another shape than the tensor")
            learned[linear.name] = self.masters.add(
                kind(
                    name, start, mask, self._adamw, device, dtype,
                    across=linear.out_features > linear.in_features,
                )
            )  # fmt: skip
        state = {}
        for name, _ in block.named_parameters():
            if name.removesuffix(".weight") not in learned:
                # Vectors may have learned before; what has no mask and does not learn is dense.
                vector = len(task.reader.shape(prefix + name)) == 1
                values = (task.start if vector else task.reader.read)(prefix + name)
                state[name] = torch.from_numpy(values).to(device, dtype)
        for linear_name, matrix in learned.items():
            bias = state.get(f"{linear_name}.bias")
            owner, _, last = linear_name.rpartition(".")
            setattr(block.get_submodule(owner), last, _LearnedLinear(matrix, bias))
        block.load_state_dict(state, strict=False, assign=True)
        block.requires_grad_(False)
        fuse(block, norms=not task.recipe.vectors)
        if task.recipe.vectors:
            for name, parameter in block.named_parameters():
                if parameter.ndim == 1:
                    self._learn_vector(prefix + name, parameter, task)

    def _learn_vector(self, name: str, parameter: nn.Parameter, task: Task) -> None:
        vector = self.masters.add(
            Learned(
                name, task.start(name), None, self._adamw, self.skeleton.device, parameter.dtype
            )
        )
        parameter.data = vector.weight
        parameter.requires_grad_(True)

        def use_up(of: torch.Tensor) -> None:
            assert of.grad is not None
            vector.step(of.grad)
            of.grad = None

        parameter.register_post_accumulate_grad_hook(use_up)  # type: ignore[no-untyped-call]

    def restart(self, task: Task) -> None:
        """Everything that learns as it was at first."""
        self.masters.set_rounding({})
        for tensor in self.masters:
            tensor.start(task.start(tensor.name))

    @torch.no_grad()
    def begin_rounding(self, patterns: Mapping[str, str], text: RecoveryText, rows: int) -> None:
        """From here on matrices of these names compute with int4's values, fitted block by block
        to what the first so many rows of the text make of their inputs, all earlier blocks
        rounded."""
        skeleton = self.skeleton
        every = range(min(rows, text.rows))
        batches = [list(every[i : i + _AT_ONCE]) for i in range(0, len(every), _AT_ONCE)]
        entered = [skeleton.enter(text, batch) for batch in batches]
        hidden = [states for states, _ in entered]
        for layer in range(len(skeleton.blocks)):
            inputs: dict[str, list[Learned]] = {}
            for linear in skeleton.spec.linears:
                name = f"{skeleton.spec.block_prefix(layer)}{linear.name}.weight"
                if name in patterns:
                    inputs.setdefault(linear.group, []).append(self.masters.tensors[name])
            if inputs:
                seen = {}
                for group, matrices in inputs.items():
                    seen[group] = Products(matrices[0].shape[1], skeleton.device)
                    matrices[0].watch = seen[group].add
                for states, (_, calls) in zip(hidden, entered, strict=True):
                    skeleton.run(layer, states, calls[layer])
                for group, matrices in inputs.items():
                    matrices[0].watch = None
                    for matrix in matrices:
                        matrix.begin_rounding(patterns[matrix.name], seen[group])
            for i, (_, calls) in enumerate(entered):
                hidden[i] = skeleton.run(layer, hidden[i], calls[layer])

    def states(self, text: RecoveryText, rows: list[int]) -> torch.Tensor:
        """What the head gets at the learned positions of some rows, [n, hidden]."""
        hidden, calls = self.skeleton.enter(text, rows)
        learning = torch.is_grad_enabled()
        if learning:
            hidden.requires_grad_()  # nothing before the first block learns, but it does
        added = not self.skeleton.spec.post_norms
        for layer, (call, kept) in enumerate(zip(calls, self._kept, strict=True)):
            run = _block(self.skeleton, layer, call)
            hidden = again(run, hidden, kept, last_is_added=added) if learning else run(hidden)
        states: torch.Tensor = self.skeleton.norm(learned_states(hidden, text, rows))
        return states


def _block(skeleton: Skeleton, layer: int, call: Any) -> Run:
    return lambda hidden: skeleton.run(layer, hidden, call)
