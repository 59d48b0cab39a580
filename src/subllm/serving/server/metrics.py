"""Counts since the start, in the text format of Prometheus, under llama.cpp's names."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from prometheus_client import CONTENT_TYPE_LATEST as CONTENT_TYPE
from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry

from subllm.serving.server.reply import Reply
from subllm.serving.server.worker import EngineWorker

__all__ = ["CONTENT_TYPE", "Metrics"]


class Metrics:
    """Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._prompt = self._cached = self._predicted = 0
        self._prompt_seconds = self._predicted_seconds = 0.0
        self._replies = 0

    def count(self, reply: Reply) -> None:
        """Add a reply that has been given, whole or not."""
        timings = reply.timings
        with self._lock:
            self._replies += 1
            self._prompt += reply.usage.prompt - reply.usage.cached
            self._cached += reply.usage.cached
            self._predicted += reply.usage.completion
            self._prompt_seconds += timings.prompt
            self._predicted_seconds += timings.completion

    def exposition(self, worker: EngineWorker) -> bytes:
        """What CONTENT_TYPE says."""
        registry = CollectorRegistry()
        registry.register(_Once(self._families(worker)))
        return generate_latest(registry)

    def _families(self, worker: EngineWorker) -> list[Metric]:
        with self._lock:
            counters = [
                ("prompt_tokens", "Prompt tokens computed", self._prompt),
                ("prompt_cached_tokens", "Prompt tokens that were kept", self._cached),
                ("prompt_seconds", "Seconds until first tokens", self._prompt_seconds),
                ("tokens_predicted", "Tokens generated", self._predicted),
                ("tokens_predicted_seconds", "Seconds of generating", self._predicted_seconds),
                ("replies", "Replies given", self._replies),
            ]
        loaded = worker.loaded
        active = sum(model.active for model in loaded)
        gauges = [
            ("requests_processing", "Completions that run", active),
            ("requests_deferred", "Completions that wait", max(worker.open - active, 0)),
            ("models_loaded", "Models in memory", len(loaded)),
            ("resident_bytes", "Memory of their weights", sum(m.resident_bytes for m in loaded)),
        ]
        return [
            *(CounterMetricFamily(f"llamacpp:{n}", text, value) for n, text, value in counters),
            *(GaugeMetricFamily(f"llamacpp:{n}", text, value) for n, text, value in gauges),
        ]


class _Once(Collector):
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        yield from self._families
