"""Our engine as a model of the harness, against the harness's own transformers model on the
same random weights: the same tasks give the same numbers."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
import pytest
import tokenizers
import transformers
from lm_eval.api.instance import Instance
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from local_engines import local_engine
from oracles.packed_models import packed_oracle
from oracles.tiny_models import END, oracle, source, tokenizer

from subllm.engine.backends.native import NativeBackend
from subllm.engine.backends.torch import TorchBackend
from subllm.engine.engine import LocalEngine
from subllm.errors import BenchmarkError, ContextLengthError
from subllm.measuring.evaluation.lm_eval.answers import AnswerCache
from subllm.measuring.evaluation.lm_eval.model import EngineLM

TOKENIZER = tokenizer()
CONTEXT = 128
TEXT = "the cat sat on a mat and saw nine red birds fly over two old grey hills"
WORDS = TEXT.split()


def text_of(seed: int, words: int) -> str:
    """Without periods: the harness's own model mixes up windows of equal tokens."""
    return " ".join(random.Random(seed).choices(WORDS, k=words))


def harness_model(reference: Any, context: int = CONTEXT) -> Any:
    """The harness's own model; it may look at one token less than the context holds."""
    definition = json.loads(TOKENIZER.to_bundle())["tokenizer"]
    theirs = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer.from_str(definition),
        eos_token="<|end|>",
        pad_token="<|end|>",
    )
    return HFLM(pretrained=reference, tokenizer=theirs, max_length=context - 1, batch_size=4)


def torch_engine(reference: Any, context: int = CONTEXT) -> LocalEngine:
    backend = TorchBackend(source(reference), device="cpu", dtype="float32", threads=1)
    return local_engine(backend, TOKENIZER, context_length=context)


def native_engine(packed: Any, context: int = CONTEXT) -> LocalEngine:
    backend = NativeBackend(packed, threads=1, kv="float32", exact=True)
    return local_engine(backend, TOKENIZER, context_length=context)


def pair(kind: str, family: str = "qwen2") -> tuple[LocalEngine, Any]:
    """An engine, and the transformers model with the very same weights."""
    if kind == "torch":
        reference = oracle(family)
        return torch_engine(reference), reference
    packed, reference = packed_oracle(family, "int8", "8:16")
    return native_engine(packed), reference


@pytest.fixture(params=["native", "torch"])
def both(request: pytest.FixtureRequest) -> Iterator[tuple[EngineLM, Any]]:
    """Our model and the harness's."""
    engine, reference = pair(request.param)
    yield EngineLM(engine, TOKENIZER), harness_model(reference)
    engine.close()


def scored(*pairs: tuple[str, str]) -> list[Instance]:
    return [Instance("loglikelihood", {}, arguments, 0) for arguments in pairs]


def rolling(*texts: str) -> list[Instance]:
    return [Instance("loglikelihood_rolling", {}, (text,), 0) for text in texts]


def asked(options: dict[str, Any], *prompts: str) -> list[Instance]:
    return [Instance("generate_until", {}, (prompt, dict(options)), 0) for prompt in prompts]


def task(config: dict[str, Any], **splits: Sequence[dict[str, Any]]) -> Any:
    """A local task of the harness."""
    tables = {name: datasets.Dataset.from_list(list(rows)) for name, rows in splits.items()}
    whole = {"task": "local", "custom_dataset": lambda **_: tables, "num_fewshot": 0} | config
    return TaskManager(include_defaults=False).load(whole)["tasks"]["local"]


CHOICE = {
    "output_type": "multiple_choice",
    "test_split": "test",
    "doc_to_text": "Question: {{question}}\nAnswer:",
    "doc_to_choice": "{{choices}}",
    "doc_to_target": "{{label}}",
    "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
}
CHOICE_ROWS = [
    {
        "question": text_of(i, 6 + i % 5),
        "choices": [text_of(i + 50 + j, 1 + (i + j) % 4) for j in range(4)],
        "label": i % 4,
    }
    for i in range(12)
]
MATH = {
    "output_type": "generate_until",
    "test_split": "test",
    "fewshot_split": "train",
    "fewshot_config": {"sampler": "first_n"},
    "num_fewshot": 2,
    "doc_to_text": "Q: {{question}}\nA:",
    "doc_to_target": "{{answer}}",
    "metric_list": [{"metric": "exact_match", "ignore_case": True}],
    "filter_list": [
        {
            "name": "last",
            "filter": [
                {"function": "regex", "regex_pattern": "([0-9a-z])", "group_select": -1},
                {"function": "take_first"},
            ],
        }
    ],
    "generation_kwargs": {"until": ["Q:", "e"], "max_gen_toks": 24, "do_sample": False},
}
MATH_ROWS = [{"question": f"{i} + {i}?", "answer": "abcdefghij"[i]} for i in range(8)]
ROLLING = {
    "output_type": "loglikelihood_rolling",
    "test_split": "test",
    "doc_to_text": "",
    "doc_to_target": "{{text}}",
    "metric_list": [{"metric": "word_perplexity"}, {"metric": "bits_per_byte"}],
}
ROLLING_ROWS = [{"text": text_of(i, 20 * i + 1)} for i in range(8)]  # up to five windows


@pytest.mark.parametrize(
    ("config", "splits"),
    [
        (CHOICE, {"test": CHOICE_ROWS}),
        (MATH, {"test": MATH_ROWS[2:], "train": MATH_ROWS[:2]}),
        (ROLLING, {"test": ROLLING_ROWS}),
    ],
    ids=["choice", "math", "rolling"],
)
def test_a_task_gives_the_harness_own_numbers(
    both: tuple[EngineLM, Any], config: dict[str, Any], splits: dict[str, Any]
) -> None:
    found = [
        evaluate(
            lm=model, task_dict={"tasks": {"local": task(config, **splits)}}, bootstrap_iters=0
        )
        for model in both
    ]
    ours, theirs = (
        {k: v for k, v in result["results"]["local"].items() if isinstance(v, float)}
        for result in found
    )
    assert ours == pytest.approx(theirs, rel=1e-4)
    assert len(ours) >= 1
    for one, other in zip(*(result["samples"]["local"] for result in found), strict=True):
        assert one["arguments"] == other["arguments"]
        if config is MATH:
            assert one["resps"] == other["resps"]


def test_log_likelihoods(both: tuple[EngineLM, Any]) -> None:
    """Contexts that are empty, end in spaces or are longer than the model's context."""
    pairs = [
        ("The cat", " sat"),
        ("The cat ", "sat"),
        ("", "alone"),
        ("", "<|end|>alone"),
        ("x", """ <|mark|>é"""),
        (text_of(1, 60), " end"),
        *((text_of(i, 5), " " + text_of(i + 9, 2)) for i in range(10)),
    ]
    ours, theirs = (model.loglikelihood(scored(*pairs)) for model in both)
    assert [one[0] for one in ours] == pytest.approx([one[0] for one in theirs], abs=2e-3)
    assert [one[1] for one in ours] == [one[1] for one in theirs]
    assert both[0].effort.truncated == 1


def test_what_greedy_decoding_writes_is_called_greedy(both: tuple[EngineLM, Any]) -> None:
    model = both[0]
    prompts = [text_of(i, 2 + i % 9) for i in range(40)]
    texts = model.generate_until(asked({"max_gen_toks": 2}, *prompts))
    # Two bytes that are text: others, and special tokens, cannot be asked for.
    plain = [len(t.strip().encode()) == 2 and "\ufffd" not in t for t in texts]
    pairs = [(p, t) for p, t, fits in zip(prompts, texts, plain, strict=True) if fits]
    assert len(pairs) >= 2
    assert all(greedy for _, greedy in model.loglikelihood(scored(*pairs)))
    others = model.loglikelihood(scored(*((p, t + "?!") for p, t in pairs)))
    assert not any(greedy for _, greedy in others)


def test_rolling_windows(both: tuple[EngineLM, Any]) -> None:
    texts = ["a", text_of(3, 20), text_of(4, 90), "é" * 200]
    ours, theirs = (model.loglikelihood_rolling(rolling(*texts)) for model in both)
    assert ours == pytest.approx(theirs, rel=1e-4)
    assert both[0].loglikelihood_rolling(rolling("")) == [0]


@pytest.mark.parametrize("until", [[], ["\n\n", "a"], "e", ["<|mark|>", "z"]])
def test_greedy_answers(both: tuple[EngineLM, Any], until: Any) -> None:
    """Prompts longer than the context lose the same tokens."""
    prompts = [text_of(i, 3 + 2 * i) for i in range(9)] + [text_of(9, 60)]
    options = {"until": until, "max_gen_toks": 20, "do_sample": False}
    ours, theirs = (model.generate_until(asked(options, *prompts)) for model in both)
    assert ours == theirs
    assert len(set(ours)) > 3
    assert both[0].effort.truncated == 1


def greedy_of(model: EngineLM, prompt: str) -> str:
    return model.generate_until(asked({"max_gen_toks": 12}, prompt))[0]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., EngineLM]]:
    """Makes models over one engine; `cached` ones share a file of answers."""
    engine, _ = pair("native")
    caches: list[AnswerCache] = []

    def made(cached: str | None = None, **options: Any) -> EngineLM:
        cache = None
        if cached is not None:
            cache = AnswerCache(tmp_path / "answers.sqlite", cached)
            caches.append(cache)
        return EngineLM(engine, TOKENIZER, cache=cache, **options)

    yield made
    for cache in caches:
        cache.close()
    engine.close()


def test_sampled_answers_are_drawn_anew_and_repeat_by_seed(make: Callable[..., EngineLM]) -> None:
    options = {"do_sample": True, "temperature": 1.0, "max_gen_toks": 12}
    wanted = asked(options, *["same prompt"] * 5, "another")
    first = make(seed=1).generate_until(wanted)
    assert len(set(first)) == 6
    assert make(seed=1, together=2).generate_until(wanted) == first
    assert make(seed=1).generate_until(wanted[-1:] + wanted[:-1]) == first[-1:] + first[:-1]
    assert not set(make(seed=2).generate_until(wanted)) & set(first)


def test_answers_given_before_cost_nothing(make: Callable[..., EngineLM]) -> None:
    def run(model: EngineLM) -> list[Any]:
        return [
            model.loglikelihood(scored(("The cat", " sat"), ("The", " end"), ("The", " end"))),
            model.loglikelihood_rolling(rolling(text_of(1, 50))),
            model.generate_until(asked({"max_gen_toks": 5}, "a", "b", "a")),
            model.generate_until(asked({"max_gen_toks": 5, "temperature": 1}, "a", "a")),
        ]

    first, again, other = make("m1"), make("m1"), make("m2")
    results = run(first)
    assert first.effort.cached == 0
    assert first.effort.scored > 0 and first.effort.generated > 0
    assert run(again) == results
    assert (again.effort.scored, again.effort.generated) == (0, 0)
    assert again.effort.cached == 2 + 2 + 2 + 2  # the long text has two windows
    assert run(other) == results
    assert other.effort.cached == 0


def test_greedy_answers_do_not_depend_on_the_seed(make: Callable[..., EngineLM]) -> None:
    assert greedy_of(make("m", seed=1), "x") == greedy_of(make("m", seed=2), "x")
    again = make("m", seed=3)
    greedy_of(again, "x")
    assert again.effort.cached == 1


def test_what_cannot_be_done_is_said(make: Callable[..., EngineLM]) -> None:
    model = make()
    with pytest.raises(BenchmarkError, match="option 'num_beams' is unknown here"):
        model.generate_until(asked({"num_beams": 4}, "x"))
    with pytest.raises(ContextLengthError, match="wants 127 tokens generated, but tiny has a"):
        model.generate_until(asked({"max_gen_toks": 127}, "x"))
    with pytest.raises(ContextLengthError, match="a continuation has 128 tokens"):
        model.loglikelihood(scored(("x", "y" * 128)))
    model.loglikelihood(scored(("x", "y" * 127)))


def test_an_error_leaves_the_engine_empty(make: Callable[..., EngineLM]) -> None:
    class Stop(Exception):
        pass

    class Watcher:
        def start(self, *_: Any) -> None: ...
        def finish(self, *_: Any) -> None: ...
        def note(self, *_: Any) -> None: ...
        def advance(self, *_: Any) -> None:
            raise Stop

    model = make(progress=Watcher())
    with pytest.raises(Stop):
        model.generate_until(asked({"max_gen_toks": 9}, "a", "b", "c", "d"))
    assert greedy_of(make(), "a")
    assert not model._engine.has_work()


def test_end_of_text_stands_before_a_text_without_context(make: Callable[..., EngineLM]) -> None:
    model = make()
    assert (model.prefix_token_id, model.eot_token_id) == (END, END)
    alone = model.loglikelihood(scored(("", "ab")))
    assert alone == model.loglikelihood(scored(("<|end|>", "ab")))
