"""When memory is given back, on a real event loop."""

from __future__ import annotations

import asyncio
from typing import Any

from subllm.serving.server.tidying import Tidying

QUIET = 0.05


async def _app(scope: Any, receive: Any, send: Any) -> None:
    if scope.get("fails"):
        raise RuntimeError("broken")


def _given_back(requests: list[dict[str, Any]], *, busy: list[bool], wait: float) -> int:
    """How often it was, when `requests` came at once."""
    count = 0

    def give_back() -> None:
        nonlocal count
        count += 1

    async def run() -> None:
        tidying = Tidying(_app, busy.pop, give_back, QUIET)
        for request in requests:
            await asyncio.gather(
                tidying({"type": "http", "method": "POST", **request}, None, None),  # type: ignore[arg-type]
                return_exceptions=True,
            )
        await asyncio.sleep(wait)

    asyncio.run(run())
    return count


def test_once_after_the_last_of_many_requests() -> None:
    assert _given_back([{}] * 5, busy=[False] * 5, wait=10 * QUIET) == 1


def test_after_one_that_failed() -> None:
    assert _given_back([{"fails": True}], busy=[False], wait=10 * QUIET) == 1


def test_not_before_it_is_quiet_nor_while_anything_runs_nor_for_looking() -> None:
    assert _given_back([{}], busy=[False], wait=0) == 0
    assert _given_back([{}], busy=[True], wait=10 * QUIET) == 0
    assert _given_back([{"method": "GET"}, {"type": "lifespan"}], busy=[], wait=10 * QUIET) == 0
