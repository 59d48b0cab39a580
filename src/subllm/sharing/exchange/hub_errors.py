"""What may go wrong in a push to the hub, in one line each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub.errors import HfHubHTTPError

from subllm.errors import AcquireError, GatedError, NetworkError, SubllmError
from subllm.models.acquire.hub_client import UNREACHABLE, HubClient

_FULL = re.compile(r"(?i)storage|quota|payment|limit reached|exceeded")
_FULL_STATUS = (402, 413, 507)
_STATUS = re.compile(r"HTTP status \w+ error \((\d{3})\b")


@contextmanager
def push_errors(client: HubClient, repo: str) -> Iterator[None]:
    """Turns what the library raises while it pushes to `repo` into errors of ours."""
    try:
        yield
    except SubllmError:
        raise
    except Exception as error:
        cause = _cause(error)
        if isinstance(cause, SubllmError):
            raise cause from error
        if isinstance(cause, HfHubHTTPError):
            raise _refused(client, repo, cause) from error
        # The chunk store's client has its own words for what a hub answers.
        if status := _STATUS.search(str(cause)):
            raise _of_status(client, repo, int(status[1]), "") from error
        if isinstance(cause, UNREACHABLE):
            with client.errors(repo):
                raise cause from error
        # Of the LFS interface, of the chunk store, and of answers that are no hub's.
        said = _line(str(cause)) or type(cause).__name__
        if _FULL.search(said):
            raise AcquireError(_full(client, repo, said)) from error
        raise NetworkError(
            f"the push to {repo} failed ({said}); the same command goes on where it was"
        ) from error


def _cause(error: BaseException) -> BaseException:
    """The library wraps what goes wrong in its threads."""
    while isinstance(error, RuntimeError) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _refused(client: HubClient, repo: str, error: HfHubHTTPError) -> AcquireError:
    told = error.response.headers.get("X-Error-Message") or error.server_message or ""
    return _of_status(client, repo, error.response.status_code, _line(told))


def _of_status(client: HubClient, repo: str, status: int, said: str) -> AcquireError:
    where, owner = client.endpoint, repo.partition("/")[0]
    if status in _FULL_STATUS or (status == 403 and _FULL.search(said)):
        return AcquireError(_full(client, repo, said or str(status)))
    if status == 401:
        return GatedError(
            f"{where} does not know the token (401); set HF_TOKEN, or log in with 'hf auth login'"
        )
    if status == 403:
        return GatedError(
            f"{where} refused the push to {repo} (403{': ' + said if said else ''}); use a token "
            f"that may write to {owner}"
        )
    if status in (409, 412):
        return AcquireError(f"{repo} changed while models were pushed to it; push again")
    if status == 404:
        return AcquireError(f"{where} has no {owner}, or not for this token; check the spelling")
    if status == 400:
        return AcquireError(f"{where} does not take the push to {repo} ({said or status})")
    return NetworkError(
        f"{where} answered {status} while models were pushed to {repo}; try again later, the same "
        "command goes on where it was"
    )


def _full(client: HubClient, repo: str, said: str) -> str:
    owner = repo.partition("/")[0]
    return f"{client.endpoint} has no room for the push to {repo} ({said}); free some of {owner}'s"


def _line(text: str) -> str:
    """One, of what a server said."""
    line = " ".join(text.split())[:200]
    return "".join(letter for letter in line if letter.isprintable())
