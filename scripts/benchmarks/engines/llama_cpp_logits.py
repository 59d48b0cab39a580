"""Logits, ids of texts and greedy texts of a GGUF file by llama-cpp-python, in its environment.

Reads {"model", "prompts": [[id]], "texts": [str], "greedy": count, "threads"} from stdin; writes
to the .npz named by its argument: for each prompt logits [tokens, vocabulary] float32, greedy
ids and for each text its ids.
"""

from __future__ import annotations

import json
import sys

import llama_cpp
import numpy as np


def main() -> None:
    request = json.load(sys.stdin)
    model = llama_cpp.Llama(
        request["model"],
        n_ctx=512,
        n_threads=request["threads"],
        n_threads_batch=request["threads"],
        logits_all=True,
        verbose=False,
    )
    found = {}
    for number, prompt in enumerate(request["prompts"]):
        model.reset()
        model.eval(prompt)
        found[f"logits{number}"] = np.array(model.scores[: len(prompt)], np.float32)
        ids: list[int] = []
        for _ in range(request["greedy"]):
            token = int(np.argmax(model.scores[model.n_tokens - 1]))
            ids.append(token)
            model.eval([token])
        found[f"greedy{number}"] = np.array(ids, np.int64)
    for number, text in enumerate(request["texts"]):
        ids = model.tokenize(text.encode(), add_bos=False, special=True)
        found[f"ids{number}"] = np.array(ids, np.int64)
    metadata = json.dumps(model.metadata)
    np.savez(sys.argv[1], metadata=np.frombuffer(metadata.encode(), np.uint8), **found)


main()
