"""Forward KL divergence from the teacher's next-token distribution to the student's, and the
cross entropy of the true next token beside it.

With z the student's logits, q = softmax(z) and p the teacher's distribution,

    KL = sum_i p_i (log p_i - log q_i)        dKL/dz_i = q_i - p_i

and where the teacher tells k outcomes K apart from one "rest" of probability r,

    KL = sum_K p_i (log p_i - log q_i) + r (log r - log q_R),  q_R = sum of q outside K
    dKL/dz_i = q_i - p_i  in K,   q_i (1 - r / q_R)  outside.

Where the true next token y is known and has the share a, what is learned is the mixture of p and
of y alone: up to a constant

    L = (1 - a) KL - a log q_y       dL/dz_i = (1 - a) dKL/dz_i + a (q_i - [i = y])

so of TopK no outcome needs to make room for y; the rest may be y.

Logits of a 150,000-token vocabulary never exist for all tokens: they are made for CHUNK
tokens, turned into their gradient where they lie, and multiplied back through the head.
Logits in bfloat16 are as coarse as 0.1; those of K are computed again in float32.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from subllm.making.recovery.heap import apart

# Tokens whose logits exist at once; fewer make the head's products slow.
CHUNK = 512
# Elements of logits that are worked on at a time in float32: they stay in the cache.
_ELEMENTS = 1 << 19
ROWS = 128  # instead, on a GPU
_SUMS = 6  # of a loss
_LEAST = 1e-30  # in place of a probability of 0 whose logarithm is asked for


@dataclass(frozen=True)
class Head:
    """weight [vocabulary, hidden]; softcap as in `ArchSpec.final_softcap`."""

    weight: torch.Tensor
    softcap: float | None = None

    def logits(self, states: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        """Before the cap, of states [n, hidden], in the first n rows of `out`."""
        return torch.mm(states, self.weight.T, out=out[: len(states)])

    def exact(self, states: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """Logits of ids [n, k] only, with the cap, in float32 (float64 of float64)."""
        wide = _wide(states.dtype)
        rows = self.weight[ids.flatten()].view(*ids.shape, -1).to(wide)
        return self.cap((rows @ states.to(wide).unsqueeze(-1)).squeeze(-1))

    def cap(self, logits: torch.Tensor) -> torch.Tensor:
        """In place."""
        if self.softcap is None:
            return logits
        return logits.div_(self.softcap).tanh_().mul_(self.softcap)


@dataclass(frozen=True)
class TopK:
    """A teacher's distributions as k outcomes and a rest.

    ids     int64 [n, k], the first choice first
    chances float32 [n, k]
    rest    float32 [n]; chances.sum(1) + rest is 1
    """

    ids: torch.Tensor
    chances: torch.Tensor
    rest: torch.Tensor


Target = TopK | torch.Tensor
"""What is learned of n tokens: TopK, or the teacher's states before the head [n, hidden]."""


@dataclass(frozen=True)
class Loss:
    """Sums over the tokens: of the divergence from the teacher in nats, of their weights and
    weighted losses (the divergence, mixed with next tokens where these have a share), of how
    often the first choices are the same; and over the `labelled` tokens whose next one is known
    the negative log-likelihood of that. gradient [n, hidden] is that of weighted / weight by the
    student's states, or None."""

    divergence: float
    weighted: float
    weight: float
    agreed: int
    nll: float
    tokens: int
    labelled: int
    gradient: torch.Tensor | None


@dataclass(frozen=True)
class _True:
    """The true next tokens, all [n, 1]: their ids (any where they are not `known`), their exact
    logits by temperature, and the share that they have in what is learned."""

    ids: torch.Tensor
    exact: torch.Tensor
    known: torch.Tensor
    share: torch.Tensor

    def of(self, part: slice) -> _True:
        return _True(self.ids[part], self.exact[part], self.known[part], self.share[part])


class Distillation:
    """The loss with one head. Logits exist while it is computed."""

    def __init__(
        self,
        head: Head,
        *,
        temperature: float = 1.0,
        disagreement: float = 1.0,
        next_token: float = 0.0,
        chunk: int = CHUNK,
    ) -> None:
        """See `Recipe` for the terms."""
        self.head = head
        self.temperature = temperature
        self.disagreement = disagreement
        self.next_token = next_token
        self._chunk = chunk
        vocabulary = len(head.weight)
        self._rows = max(1, _ELEMENTS // vocabulary)
        if head.weight.device.type != "cpu":
            self._rows = ROWS

    def __call__(
        self,
        states: torch.Tensor,
        target: Target,
        following: torch.Tensor | None = None,
        *,
        gradient: bool = True,
    ) -> Loss:
        """states [n, hidden] of the student, before the head; following: the true next tokens,
        int64 [n], -1 where there is none."""
        result = torch.empty_like(states) if gradient else None
        sums = torch.zeros(_SUMS, dtype=torch.float64)
        room = self._room()
        others = None if isinstance(target, TopK) else self._room()  # the teacher's
        for start in range(0, len(states), self._chunk):
            part = slice(start, start + self._chunk)
            logits = self.head.logits(states[part], room)
            true = None if following is None else self._true(states[part], following[part])
            if isinstance(target, TopK):
                piece = TopK(target.ids[part], target.chances[part], target.rest[part])
                sums += self._topk(states[part], logits, piece, true, gradient)
            else:
                assert others is not None
                theirs = self.head.logits(target[part], others)
                sums += self._whole(logits, theirs, true, gradient)
            if result is not None:
                torch.mm(logits, self.head.weight, out=result[part])
        divergence, weighted, weight, agreed, nll, labelled = sums.tolist()
        if result is not None:
            result.mul_(self.temperature / weight)
        return Loss(
            divergence, weighted, weight, int(agreed), nll, len(states), int(labelled), result
        )

    def _room(self) -> torch.Tensor:
        """For logits of a chunk."""
        return apart((self._chunk, len(self.head.weight)), self.head.weight)

    def _true(self, states: torch.Tensor, following: torch.Tensor) -> _True:
        known = (following >= 0)[:, None]
        ids = following.clamp_min(0)[:, None]
        exact = self.head.exact(states, ids).div_(self.temperature)
        return _True(ids, exact, known, known.to(exact.dtype) * self.next_token)

    def _topk(
        self,
        states: torch.Tensor,
        logits: torch.Tensor,
        target: TopK,
        true: _True | None,
        gradient: bool,
    ) -> torch.Tensor:
        """The sums of one chunk; its logits become their gradient."""
        sums = torch.zeros(_SUMS, dtype=torch.float64)
        wide = _wide(logits.dtype)
        for start in range(0, len(logits), self._rows):
            part = slice(start, start + self._rows)
            ids, p = target.ids[part], target.chances[part].to(wide)
            r = target.rest[part, None].to(wide)
            known = self.head.exact(states[part], ids).div_(self.temperature)
            z = self.head.cap(logits[part].to(wide, copy=True)).div_(self.temperature)
            following = None if true is None else true.of(part)
            if following is not None:
                z.scatter_(1, following.ids, following.exact)
            z.scatter_(1, ids, -math.inf)
            others = z.amax(1, keepdim=True)
            highest = torch.maximum(others, known.amax(1, keepdim=True))
            e = z.sub_(highest).exp_()
            outside = e.sum(1, keepdim=True)
            inside = (known - highest).exp_()
            total = outside + inside.sum(1, keepdim=True)
            q, q_rest = inside / total, (outside / total).clamp_min_(_LEAST)
            # log q as a difference: q itself may be 0 where p is not.
            log_q = known - highest - total.log()
            kl = (torch.xlogy(p, p) - p * log_q).sum(1, keepdim=True)
            kl += torch.xlogy(r, r) - r * q_rest.log()
            agreed = known[:, :1] >= torch.maximum(others, known.amax(1, keepdim=True))
            weight = self._weights(agreed, wide)
            nll = None if following is None else total.log() + highest - following.exact
            sums += self._sums(kl, weight, agreed, following, nll)
            if gradient:
                if following is not None:
                    p, r = p * (1 - following.share), r * (1 - following.share)
                e.mul_((1 - r / q_rest) / total * weight)
                e.scatter_(1, ids, (q - p) * weight)
                if following is not None:
                    e.scatter_add_(1, following.ids, -following.share * weight)
                self._store(e, logits[part])
        return sums

    def _whole(
        self, logits: torch.Tensor, theirs: torch.Tensor, true: _True | None, gradient: bool
    ) -> torch.Tensor:
        """As `_topk`, from the teacher's logits."""
        sums = torch.zeros(_SUMS, dtype=torch.float64)
        wide = _wide(logits.dtype)
        for start in range(0, len(logits), self._rows):
            part = slice(start, start + self._rows)
            log_q, first = self._log_softmax(logits[part].to(wide, copy=True))
            log_p, wanted = self._log_softmax(theirs[part].to(wide, copy=True))
            p = log_p.exp()
            kl = log_p.sub_(log_q).mul_(p).sum(1, keepdim=True)
            agreed = first == wanted
            weight = self._weights(agreed, wide)
            following = None if true is None else true.of(part)
            nll = None if following is None else -log_q.gather(1, following.ids)
            sums += self._sums(kl, weight, agreed, following, nll)
            if gradient:
                if following is not None:
                    p.mul_(1 - following.share).scatter_add_(1, following.ids, following.share)
                self._store(log_q.exp_().sub_(p).mul_(weight), logits[part])
        return sums

    def _log_softmax(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """In place; and the first choice of each row. torch's own is several times slower
        on rows of this length."""
        z = self.head.cap(logits).div_(self.temperature)
        highest, first = z.max(1, keepdim=True)
        z.sub_(highest)
        return z.sub_(z.exp().sum(1, keepdim=True).log_()), first

    def _weights(self, agreed: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        return torch.where(agreed, 1.0, self.disagreement).to(dtype)

    def _sums(
        self,
        kl: torch.Tensor,
        weight: torch.Tensor,
        agreed: torch.Tensor,
        following: _True | None,
        nll: torch.Tensor | None,
    ) -> torch.Tensor:
        """In the order of `Loss`; kl and nll [n, 1]."""
        loss, told, labelled = kl, kl.new_zeros(()), 0
        if following is not None and nll is not None:
            loss = (1 - following.share) * kl + following.share * nll
            told = torch.where(following.known, nll, 0.0).sum(dtype=torch.float64)
            labelled = int(following.known.sum())
        scale = self.temperature**2
        return torch.stack(
            [
                kl.sum(dtype=torch.float64) * scale,
                (loss * weight).sum(dtype=torch.float64) * scale,
                weight.sum(dtype=torch.float64),
                agreed.sum(dtype=torch.float64),
                told.double(),
                torch.tensor(labelled, dtype=torch.float64, device=kl.device),
            ]
        ).cpu()

    def _store(self, gradient: torch.Tensor, logits: torch.Tensor) -> None:
        """The gradient by capped logits becomes that by plain ones, in their place."""
        if self.head.softcap is not None:
            slope = logits.to(gradient.dtype, copy=True).div_(self.head.softcap).tanh_().square_()
            gradient.mul_(slope.neg_().add_(1))
        logits.copy_(gradient)

    def top(self, states: torch.Tensor, k: int) -> TopK:
        """The distributions that states [n, hidden] of a teacher stand for, at this
        temperature, as their k likeliest outcomes."""
        k = min(k, len(self.head.weight))
        ids, chances, rest = [], [], []
        wide, room = _wide(states.dtype), self._room()
        for start in range(0, len(states), self._chunk):
            part = states[start : start + self._chunk]
            logits = self.head.logits(part, room)
            for first in range(0, len(part), self._rows):
                rows = slice(first, first + self._rows)
                z = self.head.cap(logits[rows].to(wide, copy=True)).div_(self.temperature)
                best = z.topk(k, 1).indices
                known = self.head.exact(part[rows], best).div_(self.temperature)
                known, order = known.sort(dim=1, descending=True, stable=True)
                best = best.gather(1, order)
                highest = known[:, :1]
                outside = z.scatter_(1, best, -math.inf).sub_(highest).exp_().sum(1)
                inside = (known - highest).exp_()
                total = outside + inside.sum(1)
                ids.append(best)
                chances.append(inside / total[:, None])
                rest.append(outside / total)
        return TopK(torch.cat(ids), torch.cat(chances), torch.cat(rest))


def hidden_error(states: torch.Tensor, wanted: torch.Tensor) -> tuple[float, torch.Tensor]:
    """SquareHead (Kurtic et al., arXiv 2310.06927) on states [n, hidden] before the head: the
    squared error of each token's, relative to the squared norm of the teacher's. The mean over
    the tokens, and its gradient by the student's states, in their type."""
    wide = _wide(states.dtype)
    difference = states.to(wide) - wanted.to(wide)
    share = wanted.to(wide).square().sum(1, keepdim=True).clamp_min_(_LEAST).mul_(len(states))
    error = float((difference.square().sum(1, keepdim=True) / share).sum(dtype=torch.float64))
    return error, difference.mul_(2 / share).to(states.dtype)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32
