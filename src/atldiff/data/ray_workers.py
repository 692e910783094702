"""Clips prepared on a Ray cluster: one task a clip, a bounded number of them at a time.

Every node needs atldiff and the same files at the same paths: the corpus to read and the prepared folder to write.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from atldiff.errors import DataError
from atldiff.interrupt import answers_kept

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from atldiff.data.clip import ClipRecord

    JobT = TypeVar("JobT")

TASKS_PER_CORE = 4
"""Tasks in flight for each core of the cluster: enough to keep it busy, few enough for any number of clips."""
MIN_TASKS = 16
RETRIES = 3
"""Times a task is given to another worker when its own died; Ray does so."""


def work_on_ray(work: Callable[[JobT], ClipRecord], jobs: Sequence[JobT]) -> Generator[tuple[JobT, ClipRecord | None]]:
    """Yield each job with its record as they finish; None for a job whose workers all died.

    work: a function of an importable module. Ray connects to the cluster of `RAY_ADDRESS` or of `ray start` on this
    machine and starts a local one where there is none; one that the caller has started is used and left running.

    Raises:
        DataError: Ray is not installed or its cluster cannot be reached.
    """
    if not jobs:
        return
    with connected() as ray:
        yield from _tasks(ray, work, jobs)


@contextmanager
def connected() -> Iterator[Any]:
    """Give the module `ray`, connected to a cluster; one that is started for it ends with the body.

    Raises:
        DataError: Ray is not installed or its cluster cannot be reached.
    """
    try:
        import ray
    except ImportError:
        raise DataError("workers: ray is not installed; run pip install 'atldiff[ray]' or give a number") from None

    started = not ray.is_initialized()
    if started:
        try:
            with answers_kept():  # Ray would have SIGTERM end this process without a word
                ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError) as error:
            cause = " ".join(str(error).split())
            raise DataError(f"workers: Ray does not start or answer ({cause}); check RAY_ADDRESS") from None
    try:
        yield ray
    finally:
        if started:
            with answers_kept():
                ray.shutdown()


def _tasks(
    ray: Any, work: Callable[[JobT], ClipRecord], jobs: Sequence[JobT]
) -> Generator[tuple[JobT, ClipRecord | None]]:
    from ray.exceptions import OutOfMemoryError, WorkerCrashedError

    running: dict[Any, JobT] = {}
    try:
        task = ray.remote(num_cpus=1, max_retries=RETRIES)(work)
        limit = max(MIN_TASKS, int(TASKS_PER_CORE * ray.cluster_resources().get("CPU", 1)))
        queue = iter(jobs)
        running = {task.remote(job): job for job in islice(queue, limit)}
        while running:
            done, _ = ray.wait(list(running), num_returns=1)
            for reference in done:
                job = running.pop(reference)
                try:
                    record = ray.get(reference)
                except (WorkerCrashedError, OutOfMemoryError):
                    record = None
                yield job, record
                running.update((task.remote(following), following) for following in islice(queue, 1))
    finally:  # also where the caller stops early: whatever is half done leaves no record
        for reference in running:
            ray.cancel(reference, force=True)
