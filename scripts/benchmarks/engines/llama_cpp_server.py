"""llama.cpp's own server, as the package xllamacpp has it compiled:

    llama_cpp_server.py GGUF THREADS CONTEXT --port PORT

One slot, its cache of prompts on, and parts of a prompt that moved are used again from 256 tokens
on, as llama.vim's settings have it (`--cache-reuse 256`). Runs in an environment of its own, until
it is ended.
"""

from __future__ import annotations

import argparse
import threading

import xllamacpp


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("gguf")
    parser.add_argument("threads", type=int)
    parser.add_argument("context", type=int)
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    params = xllamacpp.CommonParams()
    params.model.path = arguments.gguf
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = arguments.threads
    params.n_ctx = arguments.context
    params.n_parallel = 1
    params.n_gpu_layers = 0
    params.n_cache_reuse = 256
    params.hostnames = ["127.0.0.1"]
    params.port = arguments.port
    server = xllamacpp.Server(params)
    print(server.listening_address, xllamacpp.get_system_info(), flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
