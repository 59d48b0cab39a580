"""The jobs that were submitted and have not ended. Used from any thread."""

from __future__ import annotations

import contextlib

from subllm.errors import EngineBusyError, ServerError
from subllm.serving.server.jobs import Failed, Generated, Job, JobEvent


class OpenJobs:
    """At most `most` of them."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._jobs: dict[str, Job] = {}

    def __len__(self) -> int:
        return len(self._jobs)

    def add(self, *jobs: Job) -> None:
        """All of them or none: raises EngineBusyError when that many more may not wait. One
        thread at a time."""
        if len(self._jobs) + len(jobs) > self._most:
            raise EngineBusyError(
                f"{len(self._jobs)} completions are running and waiting; try again in a moment"
            )
        self._jobs.update((job.id, job) for job in jobs)

    def forget(self, job: Job) -> None:
        self._jobs.pop(job.id, None)

    def deliver(self, job: Job, event: JobEvent) -> None:
        if not job.cancelled:
            job.sink(event)
        if not isinstance(event, Generated) or event.event.finish_reason is not None:
            self.forget(job)

    def fail_all(self, reason: str) -> None:
        for job in list(self._jobs.values()):
            with contextlib.suppress(Exception):  # nobody is left out because of another
                self.deliver(job, Failed(ServerError(reason)))
            job.cancelled = True
