"""The replies of llama.cpp's /infill and /completion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from subllm.engine.request import TokenEvent
from subllm.serving.server.convert import Plan
from subllm.serving.server.reply import Chunk, Reply, Usage
from subllm.serving.server.timings import llamacpp_timings


class NativeReply(Reply):
    """One object for each choice: alone, or in a list where there are several."""

    def __init__(
        self, plan: Plan, *, fields: Sequence[str] | None = None, tokens: bool = False
    ) -> None:
        """fields  of the objects, as paths with slashes; None: all
        tokens  tell the token ids of a whole reply
        """
        super().__init__(plan)
        self._fields = fields
        self._with_tokens = tokens
        self._tokens: list[list[int]] = [[] for _ in range(plan.choices)]
        self._counts = [0] * plan.choices
        self._cached = [0] * plan.choices

    def chunks(self, index: int, event: TokenEvent) -> list[Chunk]:
        self._tokens[index] += event.tokens
        self._counts[index] = event.completion_tokens
        self._cached[index] = event.cached_tokens
        chunks = []
        if event.text:
            chunks.append(
                {
                    "index": index,
                    "content": event.text,
                    "tokens": list(event.tokens),
                    "stop": False,
                    "id_slot": -1,
                    "tokens_predicted": event.completion_tokens,
                    "tokens_evaluated": self._prompt_length(index),
                }
            )
        if event.finish_reason is not None:
            chunks.append(self._selected({**self._result(index), "content": "", "tokens": []}))
        return chunks

    def closing(self) -> list[Chunk]:
        return []

    def whole(self) -> Any:
        results = [self._selected(self._result(index)) for index in range(self.plan.choices)]
        return results[0] if len(results) == 1 else results

    def _prompt_length(self, index: int) -> int:
        return len(self.plan.prompts[index // self.plan.n])

    def _result(self, index: int) -> dict[str, Any]:
        params = self.plan.generations[index].params
        word = self.matched_stop[index]
        limited = self.finish[index] == "length"
        by_word = self.finish[index] == "stop" and word in params.stop
        text = self.text(index)
        usage = Usage(self._prompt_length(index), self._counts[index], self._cached[index])
        if self.plan.choices == 1:  # what was drafted is counted for all together
            usage = self.usage
        return {
            "index": index,
            "content": text,
            "tokens": self._tokens[index] if self._with_tokens else [],
            "id_slot": -1,
            "stop": True,
            "model": self.model,
            "tokens_predicted": self._counts[index],
            "tokens_evaluated": self._prompt_length(index),
            "generation_settings": {
                "n_predict": params.max_tokens,
                "seed": -1 if params.seed is None else params.seed,
                "temperature": params.temperature,
                "top_k": params.top_k,
                "top_p": params.top_p,
                "min_p": params.min_p,
                "repeat_penalty": params.repetition_penalty,
                "presence_penalty": params.presence_penalty,
                "frequency_penalty": params.frequency_penalty,
                "stop": list(params.stop),
                "ignore_eos": params.ignore_eos,
            },
            "has_new_line": "\n" in text,
            "truncated": False,
            "stop_type": "limit" if limited else "word" if by_word else "eos",
            "stopping_word": word if by_word else "",
            "tokens_cached": self._cached[index],
            "timings": llamacpp_timings(usage, self.timings),
        }

    def _selected(self, result: dict[str, Any]) -> dict[str, Any]:
        if self._fields is None:
            return result
        selected = {}
        for path in self._fields:
            value: Any = result
            for key in path.split("/"):
                value = value.get(key) if isinstance(value, dict) else None
            if value is not None:
                selected[path] = value
        return selected
