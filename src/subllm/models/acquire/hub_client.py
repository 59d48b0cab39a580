"""The Hugging Face hub: what a repository holds, and its files in the usual cache.

Everything goes through `huggingface_hub`, so HF_ENDPOINT, HF_TOKEN, HF_HOME and proxies
count as for any other tool. Large files are streamed here, because the library's own
download starts anew after an interruption; finished ones lie where the library looks.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from huggingface_hub import HfApi, constants, get_token
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from subllm.errors import AcquireError, GatedError, NetworkError, SubllmError
from subllm.models.store.files import disk_errors

RepoType = Literal["model", "dataset"]
PROBE_SECONDS = 3.0
# With the base of the HTTP library's errors, whichever library huggingface_hub uses.
UNREACHABLE: tuple[type[Exception], ...] = (
    OSError,
    *(base for base in HfHubHTTPError.__mro__ if base.__name__ == "HTTPError"),
)
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class HubFile:
    """`sha256` is known for large files (LFS) only; `git_sha1` for the others."""

    name: str
    size: int
    sha256: str | None
    git_sha1: str | None


@dataclass(frozen=True)
class Listing:
    """A repository at one commit; `from_cache` when the hub was not asked."""

    repo: str
    repo_type: RepoType
    commit: str
    files: Mapping[str, HubFile]
    from_cache: bool = False


class HubClient:
    """One endpoint with one token. `probe_seconds` bounds the wait for a first answer."""

    def __init__(
        self,
        endpoint: str | None = None,
        token: str | None = None,
        probe_seconds: float = PROBE_SECONDS,
    ) -> None:
        self.endpoint = (endpoint or constants.ENDPOINT).rstrip("/")
        self.token = token
        self._probe_seconds = probe_seconds
        self._api = HfApi(endpoint=self.endpoint, token=token)

    def list_files(
        self, repo: str, revision: str = "main", repo_type: RepoType = "model"
    ) -> Listing:
        """What `repo` holds. Raises NetworkError when the hub has not answered in
        `probe_seconds`, name look-up and connecting included; GatedError, AcquireError."""
        box: list[Listing | BaseException] = []

        def ask() -> None:
            try:
                box.append(self._list_files(repo, revision, repo_type))
            except BaseException as error:
                box.append(error)

        # A name look-up cannot be interrupted: the thread is left behind instead.
        thread = threading.Thread(target=ask, name="subllm-hub-probe", daemon=True)
        thread.start()
        thread.join(self._probe_seconds)
        if not box:
            raise NetworkError(
                f"{self.endpoint} did not answer within {self._probe_seconds:g} s; check the "
                "network, proxies and HF_ENDPOINT"
            )
        if isinstance(box[0], BaseException):
            raise box[0]
        return box[0]

    def _list_files(self, repo: str, revision: str, repo_type: RepoType) -> Listing:
        with self.errors(repo):
            ask = self._api.dataset_info if repo_type == "dataset" else self._api.model_info
            try:
                # Longer than whoever waits for this thread, whose message is the clearer one.
                timeout = self._probe_seconds + 1
                info = ask(repo, revision=revision, timeout=timeout, files_metadata=True)
            except HFValidationError:
                raise
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                # A captive portal, say: it answers 200 with a page of its own.
                raise NetworkError(
                    f"{self.endpoint} does not answer as a model hub; check the network, proxies "
                    "and HF_ENDPOINT"
                ) from error
        if not info.sha or not _COMMIT.fullmatch(info.sha):
            raise NetworkError(f"{self.endpoint} sent no commit for {repo}; is it a model hub?")
        files = {}
        for item in info.siblings or ():
            files[item.rfilename] = HubFile(
                name=item.rfilename,
                size=item.size or 0,
                sha256=item.lfs.sha256 if item.lfs else None,
                git_sha1=None if item.lfs else item.blob_id,
            )
        return Listing(repo, repo_type, info.sha, files)

    @contextmanager
    def errors(self, repo: str) -> Iterator[None]:
        """Turns what the library raises for `repo` into errors of ours."""
        try:
            yield
        except SubllmError:
            raise
        except GatedRepoError as error:
            raise GatedError(self._gated(repo)) from error
        except RepositoryNotFoundError as error:
            hint = "" if self._has_token() else ", or set HF_TOKEN if it is private"
            raise AcquireError(
                f"{self.endpoint} has no repository {repo}; check the spelling{hint}"
            ) from error
        except RevisionNotFoundError as error:
            raise AcquireError(f"{repo} has no such revision; name a branch or commit") from error
        except HFValidationError as error:
            raise AcquireError(f"{repo!r} is not a repository name; write org/name") from error
        except HfHubHTTPError as error:
            raise self._http_error(repo, error.response.status_code) from error
        except UNREACHABLE as error:
            if isinstance(error, OSError) and error.filename is not None:
                with disk_errors(Path(str(error.filename))):
                    raise
            reason = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
            raise NetworkError(
                f"{self.endpoint} could not be reached ({reason}); check the network, proxies "
                "and HF_ENDPOINT"
            ) from error

    def _http_error(self, repo: str, status: int) -> AcquireError:
        if status in (401, 403):
            return GatedError(
                f"{self.endpoint} refused access to {repo} ({status}); check HF_TOKEN"
            )
        if status == 404:
            return AcquireError(f"{self.endpoint} lacks a file of {repo} that it lists; try later")
        return NetworkError(f"{self.endpoint} answered {status} for {repo}; try again later")

    def _gated(self, repo: str) -> str:
        accept = f"accept its licence at {self.endpoint}/{repo}"
        if self._has_token():
            return f"{repo} is gated and your token has no access; {accept}, then pull again"
        return f"{repo} is gated; {accept} and set HF_TOKEN, then pull again"

    def _has_token(self) -> bool:
        return bool(self.token or get_token())
