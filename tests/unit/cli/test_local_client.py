"""Answers in this process, where the store changes under them."""

from __future__ import annotations

from pathlib import Path

from subllm.cli.ask import COMPLETIONS
from subllm.cli.context import open_context
from subllm.cli.local_client import LocalClient
from subllm.cli.server_client import Stream
from subllm.models.store.store import Store

from .tiny_store import BASE, build, greedy, write_checkpoint

NAME = f"{BASE}-python"


def test_a_name_that_moves_after_routing_answers_as_it_was_routed(
    tiny: Store, tmp_path: Path
) -> None:
    """Each version with its own weights, also where another one is loaded."""
    other = build(tmp_path / "other", write_checkpoint(tmp_path / "checkpoint", seed=1))
    before, after = (greedy(store, b"def f(", 8) for store in (tiny, other))
    assert before != after
    old, new = tiny.resolve(NAME), copy_model(other, tiny)
    client = LocalClient(open_context())

    def ask() -> Stream:
        """Routed now; the work begins when the first event is asked for."""
        body = {"model": NAME, "prompt": "def f(", "max_tokens": 8, "stream": True}
        return client.stream(COMPLETIONS, body)

    def text(asked: Stream) -> str:
        return "".join(choice["text"] for event in asked.events for choice in event["choices"])

    try:
        first = ask()
        tiny.set_ref(NAME, new)
        assert text(first) == before
        second = ask()
        tiny.set_ref(NAME, old)
        assert text(second) == after
        assert text(ask()) == before
    finally:
        client.close()


def copy_model(source: Store, target: Store) -> str:
    """The dense model of `source` as another version of NAME; its digest in `target`."""
    model = source.model(f"{BASE}-dense").model_copy(update={"name": NAME, "language": "python"})
    for digest in (model.blobs.own, model.blobs.shared, model.blobs.tokenizer):
        assert target.blobs.put(source.blobs.read_bytes(digest)) == digest
    return target.put_manifest(model)
