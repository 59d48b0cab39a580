"""The harness's model interface, answered by one of our engines.

Text becomes tokens by the harness's own rules (`TemplateLM`: where context ends and
continuation begins, what stands before an empty context), so that our numbers are its own
models' numbers. This module imports the harness; see `require`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from subllm.engine.request import Engine, SamplingParams
from subllm.errors import ContextLengthError, EngineError
from subllm.measuring.evaluation.generate import Ask, generate
from subllm.measuring.evaluation.lm_eval.answers import AnswerCache, Effort
from subllm.measuring.evaluation.lm_eval.options import sampling
from subllm.models.store.manifest import canonical_json
from subllm.models.tables.seeded import key
from subllm.models.text.tokenizer import Tokenizer
from subllm.progress import NullProgress, Progress, Unit, bar

_SEEDS = 2**63


@dataclass(frozen=True)
class Continuation:
    """`rest` is scored, given `context`, which has at least one token."""

    context: tuple[int, ...]
    rest: tuple[int, ...]


class EngineLM(TemplateLM):  # type: ignore[misc]  # the harness has no types
    """Answers one call of the harness after the other, on an engine that is otherwise idle.

    Prompts that do not fit lose tokens on their left, as the harness's models do it;
    `effort.truncated` counts them. Raises what the engine raises, BenchmarkError for a
    generation option that it has not.
    """

    def __init__(
        self,
        engine: Engine,
        tokenizer: Tokenizer,
        *,
        seed: int = 0,
        together: int = 8,
        cache: AnswerCache | None = None,
        progress: Progress | None = None,
        title: str = "harness",
    ) -> None:
        """seed      with prompt, options and number of the answer, decides what is sampled
        together  answers that are generated at once
        title     of the progress bars
        """
        super().__init__()
        self.effort = Effort()
        self._engine = engine
        self._tokens = tokenizer
        self._seed = seed
        self._together = together
        self._cache = cache
        self._progress = progress or NullProgress()
        self._title = title

    @property
    def eot_token_id(self) -> int:
        """Raises EngineError for a tokenizer without one."""
        if not self._tokens.eos_ids:
            raise EngineError("this model has no token that ends a text; choose another")
        return self._tokens.eos_ids[0]

    @property
    def prefix_token_id(self) -> int:
        """Stands before a text that has no context: bos, or else the end of another text."""
        return self.eot_token_id if self._tokens.bos_id is None else self._tokens.bos_id

    @property
    def max_length(self) -> int:
        """Tokens that may stand before the last one that is predicted."""
        return self._engine.context_length - 1

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **_: Any
    ) -> list[int]:
        """bos as the model was trained, unless `add_special_tokens` is False."""
        return self._tokens.encode(string, bos=False if add_special_tokens is False else None)

    def loglikelihood(
        self, requests: list[Any], disable_tqdm: bool = True
    ) -> list[tuple[float, bool]]:
        found: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=True)
        return found

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = True) -> list[float]:
        """Each text alone, in windows that do not overlap."""
        counts: list[int] = []
        windows: list[Continuation] = []
        for request in requests:
            rolling = get_rolling_token_windows(
                token_list=self.tok_encode(request.args[0]),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
            parts = [self._fit(*make_disjoint_window(pair)) for pair in rolling]
            counts.append(len(parts))
            windows += parts
        scores = iter(self._score(windows))
        return [sum(next(scores)[0] for _ in range(count)) for count in counts]

    def generate_until(self, requests: list[Any], disable_tqdm: bool = True) -> list[str]:
        """Greedy answers to the same prompt are one answer; each sampled one is new."""
        before: Counter[bytes] = Counter()
        asked: list[tuple[tuple[int, ...], SamplingParams]] = []
        for request in requests:
            context, options = request.args
            which = canonical_json([context, options])
            seed = key(self._seed, which.decode(), before[which]) % _SEEDS
            before[which] += 1
            params = sampling(options, seed)
            asked.append((self._prompt(context, params), params))
        return self._answers(asked)

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        return self._score([self._fit(context, rest) for _, context, rest in requests])

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """As the harness, but a continuation that melts into the context's last token is
        encoded alone: the harness has no answer for it."""
        before, rest = super()._encode_pair(context, continuation)
        return before, rest or self.tok_encode(continuation, add_special_tokens=False)

    def _fit(self, context: Sequence[int], rest: Sequence[int]) -> Continuation:
        tokens = (*context, *rest)
        room = self.max_length + 1
        if len(rest) >= room:
            raise ContextLengthError(
                f"a continuation has {len(rest)} tokens, but {self._engine.name} has a context "
                f"of {self._engine.context_length}; choose another model"
            )
        self.effort.truncated += len(tokens) > room
        cut = len(tokens) - len(rest)
        return Continuation(tokens[max(0, len(tokens) - room) : cut], tokens[cut:])

    def _prompt(self, context: str, params: SamplingParams) -> tuple[int, ...]:
        room = self.max_length - params.max_tokens
        if room <= 0:
            raise ContextLengthError(
                f"the task wants {params.max_tokens} tokens generated, but {self._engine.name} "
                f"has a context of {self._engine.context_length}; choose another model"
            )
        tokens = tuple(self.tok_encode(context))
        self.effort.truncated += len(tokens) > room
        return tokens[-room:]

    def _score(self, wanted: Sequence[Continuation]) -> list[tuple[float, bool]]:
        """(sum of log-probabilities, whether greedy decoding writes it) of each; a context
        that several share is computed once."""
        found: dict[Continuation, tuple[float, bool]] = {}
        groups: dict[tuple[int, ...], list[Continuation]] = {}
        for item in dict.fromkeys(wanted):
            answer = self._known(vars(item))
            if answer is None:
                groups.setdefault(item.context, []).append(item)
            else:
                found[item] = (float(answer[0]), bool(answer[1]))
        work = {
            context: len(context) + sum(len(item.rest) for item in items)
            for context, items in groups.items()
        }
        with self._bar("scoring", sum(work.values()), "tokens") as advance:
            for context, items in groups.items():
                scores = self._engine.score_after(context, [item.rest for item in items], top=1)
                for item, entries in zip(items, scores, strict=True):
                    greedy = all(entry.top[0][0] == entry.token for entry in entries)
                    found[item] = (sum(entry.logprob for entry in entries), greedy)
                    self._keep(vars(item), found[item])
                self.effort.scored += work[context]
                advance(work[context])
        return [found[item] for item in wanted]

    def _answers(self, asked: Sequence[tuple[tuple[int, ...], SamplingParams]]) -> list[str]:
        texts: dict[str, str] = {}
        names: list[str] = []
        new: dict[str, tuple[Ask, dict[str, Any]]] = {}
        for prompt, params in asked:
            question = _question(prompt, params)
            name = canonical_json(question).decode()
            names.append(name)
            if name in texts or name in new:
                continue
            answer = self._known(question)
            if answer is None:
                new[name] = (Ask(f"harness-{len(new)}", prompt, params), question)
            else:
                texts[name] = str(answer)
        by_id = {ask.id: (name, question) for name, (ask, question) in new.items()}
        with self._bar("generating", len(new), "items") as advance:
            asks = [ask for ask, _ in new.values()]
            for answer in generate(self._engine, asks, self._together):
                name, question = by_id[answer.id]
                texts[name] = answer.raw
                self.effort.generated += answer.tokens
                self._keep(question, answer.raw)
                advance(1)
        return [texts[name] for name in names]

    def _known(self, question: Mapping[str, Any]) -> Any:
        answer = None if self._cache is None else self._cache.get(question)
        self.effort.cached += answer is not None
        return answer

    def _keep(self, question: Mapping[str, Any], answer: Any) -> None:
        if self._cache is not None:
            self._cache.put(question, answer)

    @contextmanager
    def _bar(self, doing: str, total: float, unit: Unit) -> Iterator[Any]:
        key = f"harness:{doing}"
        with bar(self._progress, key, f"{self._title}: {doing}", total, unit):
            yield lambda amount: self._progress.advance(key, amount)


def _question(prompt: tuple[int, ...], params: SamplingParams) -> dict[str, Any]:
    """All that decides an answer; the seed of a greedy one does not."""
    facts: dict[str, Any] = dict(vars(params))
    if params.temperature == 0:
        facts.pop("seed")
    return {"prompt": prompt, "params": facts}
