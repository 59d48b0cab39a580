"""Answers in this process: what the server does with a request, without HTTP.

Takes the bodies and gives the events of `ServerClient`, through the server's own planner,
engine thread and replies, so that both say the same for the same request.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Generator
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from subllm.cli import console
from subllm.cli.local_router import router_of
from subllm.cli.server_client import Stream
from subllm.errors import UsageError
from subllm.serving.server.config import ServerConfig
from subllm.serving.server.convert import Planner
from subllm.serving.server.dialects.openai_reply import ChatReply, CompletionReply
from subllm.serving.server.dialects.openai_wire import ChatBody, CompletionBody
from subllm.serving.server.drafting import check_default
from subllm.serving.server.errors import ApiError
from subllm.serving.server.generation import Caller
from subllm.serving.server.jobs import Failed, Generated, Job, JobEvent
from subllm.serving.server.loading import StoreLoader
from subllm.serving.server.models import ModelSet
from subllm.serving.server.reply import Reply
from subllm.serving.server.worker import EngineWorker
from subllm.serving.server.worker_config import Bounds, Loading

if TYPE_CHECKING:
    from subllm.cli.context import Context

SESSION = "local"  # whoever asks here is one and the same
STOP_SECONDS = 2.0  # a step takes less; loading may take longer and is not waited for


class LocalClient:
    """The models of the store in this process, one request at a time; `close` frees them.
    An engine stays loaded for the next request."""

    def __init__(self, context: Context) -> None:
        settings = context.settings
        loader = StoreLoader(
            context.store,
            backend=settings.backend,
            device=settings.device,
            threads=settings.threads,
            context_length=settings.context_length,
            kv_type=settings.kv_type,
            screened_head=settings.screened_head,
            copy_weights=False,  # would take longer than it saves in a few replies
        )
        models = ModelSet.of_store(
            context.store, loader.engine, loader.draft, loader.footprint, loader.context_of
        )
        check_default(settings.speculation, models.models())
        config = ServerConfig(
            context_length=settings.context_length, speculation=settings.speculation
        )
        self._planner = Planner(models, router_of(models), config)
        self._worker = EngineWorker(
            Loading(loader.engine, loader.draft), Bounds(settings.max_loaded_models)
        )
        self._log = _OneLine(logging.WARNING)
        logging.getLogger("subllm").addHandler(self._log)
        self._worker.start()

    def stream(self, path: str, body: dict[str, Any]) -> Stream:
        """As `ServerClient.stream`; `path` is /v1/completions or /v1/chat/completions."""
        reply = self._plan(path, body)
        draft = reply.plan.drafting.draft
        return Stream(reply.plan.route.reason, self._events(reply), draft.name if draft else None)

    def close(self) -> None:
        self._worker.stop(STOP_SECONDS)
        logging.getLogger("subllm").removeHandler(self._log)

    def _plan(self, path: str, body: dict[str, Any]) -> Reply:
        caller = Caller(session=SESSION)
        try:
            if path == "/v1/chat/completions":
                chat = ChatBody.model_validate(body).generation()
                return ChatReply(self._planner.plan(chat, caller), include_usage=True)
            completion = CompletionBody.model_validate(body).generation()
            return CompletionReply(self._planner.plan(completion, caller), include_usage=True)
        except ApiError as error:
            raise UsageError(error.message) from error
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False)[0]
            raise UsageError(f"{first['loc'][0]}: {first['msg']}") from error

    def _events(self, reply: Reply) -> Generator[dict[str, Any], None, None]:
        work = reply.plan.generations[0]
        events: SimpleQueue[JobEvent] = SimpleQueue()
        plan = reply.plan
        job = Job("1", plan.model.ref, work.request("1"), events.put, plan.drafting.draft)
        self._worker.submit(job)
        try:
            with _Waiting(job.model.name):
                event = events.get()
            yield from reply.opening()
            while True:
                if isinstance(event, Failed):
                    raise event.error
                assert isinstance(event, Generated)
                yield from reply.feed(0, event.event)
                if event.event.finish_reason is not None:
                    break
                event = events.get()
            yield from reply.closing()
        finally:
            self._worker.cancel(job)


class _Waiting:
    """Says on a terminal what is being waited for, and wipes it off again."""

    def __init__(self, name: str) -> None:
        self._text = f"{name} ..."

    def __enter__(self) -> None:
        self._write(self._text)

    def __exit__(self, *_: object) -> None:
        self._write(f"\r{' ' * len(self._text)}\r")

    def _write(self, text: str) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(text)
            sys.stderr.flush()


class _OneLine(logging.Handler):
    """What the engine thread logs, a line each; SUBLLM_DEBUG shows where it came from."""

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            message += f": {type(error).__name__}: {' '.join(str(error).split())}"
        console.warn(message)
        if error is not None and console.debugging():
            traceback.print_exception(error)
