"""Workers that take one job after the other: processes here, or actors of a Ray cluster. One that dies is replaced.

Each keeps what it has loaded. A job whose worker dies is lost, and no other.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import connection, resource_tracker
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from atldiff.interrupt import follow_parent, hidden_from_children

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator
    from multiprocessing.connection import Connection

JobT = TypeVar("JobT")
ResultT = TypeVar("ResultT")

END_S = 5.0
"""Time for a process whose end is known to be gone."""


@dataclass(frozen=True, slots=True)
class Died:
    """What is left of a job whose worker died. reason: how."""

    reason: str


def in_this_process(work: Callable[[JobT], ResultT], jobs: Iterable[JobT]) -> Generator[tuple[JobT, ResultT | Died]]:
    """Yield each job with what `work` makes of it."""
    for job in jobs:
        yield job, work(job)


def in_processes(
    work: Callable[[JobT], ResultT], jobs: Iterable[JobT], *, count: int, threads: int
) -> Generator[tuple[JobT, ResultT | Died]]:
    """Yield each job with its result as they finish. Whoever closes the generator ends the processes at once.

    work: a function of an importable module, that raises nothing. count: processes. threads: that each computes with.
    """
    resource_tracker.ensure_running()  # with the first worker it would let signals through to it
    queue = deque(jobs)
    hands: list[_Hand[JobT]] = []
    try:
        while queue and len(hands) < count:
            hands.append(_Hand(work, threads))
            hands[-1].give(queue.popleft())
        while hands:
            ready = connection.wait([hand.pipe for hand in hands])
            for hand in [hand for hand in hands if hand.pipe in ready]:
                job, result = hand.take()
                hands.remove(hand)
                if queue:
                    following = _Hand(work, threads) if isinstance(result, Died) else hand
                    hands.append(following)
                    following.give(queue.popleft())
                elif not isinstance(result, Died):
                    hand.end()
                yield job, result
    finally:
        for hand in hands:
            hand.kill()


class _Hand(Generic[JobT]):
    """A process and the job that it has."""

    def __init__(self, work: Callable[[JobT], object], threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(work, theirs), daemon=True)
        self._job: JobT | None = None
        with _computing_with(threads), hidden_from_children():
            self._process.start()
        theirs.close()  # so that the end of the process ends the pipe

    def give(self, job: JobT) -> None:
        self._job = job
        with suppress(OSError):  # dead already, as `take` will see
            self.pipe.send(job)

    def take(self) -> tuple[JobT, Any]:
        """Return the job and its result, or how its worker died."""
        job, self._job = self._job, None
        assert job is not None  # noqa: S101 - for the type checker: only those that have one are waited for
        try:
            return job, self.pipe.recv()
        except (EOFError, OSError):
            self._process.join(END_S)
            died = Died(_told(self._process.exitcode))
            self.kill()
            return job, died

    def end(self) -> None:
        """Let the process go: it has nothing left to do."""
        with suppress(OSError):
            self.pipe.send(None)
        self._process.join(END_S)
        self.kill()

    def kill(self) -> None:
        self._process.kill()
        self._process.join(END_S)
        self.pipe.close()


def _serve(work: Callable[[Any], object], pipe: Connection) -> None:
    """Be a worker: take jobs until there are no more."""
    follow_parent()
    with suppress(EOFError, OSError):
        while (job := pipe.recv()) is not None:
            pipe.send(work(job))


def _told(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        memory = ", perhaps for lack of memory" if name == "SIGKILL" else ""
        return f"its worker was ended by {name}{memory}"
    return f"its worker ended with code {code}"


@contextmanager
def _computing_with(threads: int) -> Iterator[None]:
    """Have processes that are started meanwhile compute with so many threads each."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = str(threads)
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before


def on_ray(
    work: Callable[[JobT], ResultT], jobs: Iterable[JobT], *, count: int | None
) -> Generator[tuple[JobT, ResultT | Died]]:
    """Yield each job with its result as they finish, made by actors of a Ray cluster (`data.ray_workers.connected`).

    count: actors, which share the cluster's processors; None takes one for each four of them. Every node needs atldiff
    and the same files at the same paths.

    Raises:
        DataError: Ray is not installed or its cluster cannot be reached.
    """
    from atldiff.data.ray_workers import connected

    queue = deque(jobs)
    if not queue:
        return
    with connected() as ray:
        processors = ray.cluster_resources().get("CPU", 1)
        count = count or max(1, int(processors // 4))
        share = processors / count
        kind = ray.remote(num_cpus=int(share) if share >= 1 else share, max_restarts=0)(_Actor)
        actors: dict[Any, tuple[Any, JobT]] = {}

        def give(actor: Any) -> None:
            job = queue.popleft()
            actors[actor.work.remote(job)] = (actor, job)

        try:
            while queue and len(actors) < count:
                give(kind.remote(work))
            while actors:
                ready, _ = ray.wait(list(actors), num_returns=1)
                for reference in ready:
                    actor, job = actors.pop(reference)
                    try:
                        result = ray.get(reference)
                    except ray.exceptions.RayError as error:
                        result = Died(f"its worker on Ray died: {str(error).strip().splitlines()[0]}")
                        ray.kill(actor)
                        actor = kind.remote(work) if queue else None
                    if queue:
                        give(actor)
                    elif actor is not None:
                        ray.kill(actor)
                    yield job, result
        finally:
            for actor, _ in actors.values():
                ray.kill(actor)


class _Actor:
    """A worker of a Ray cluster."""

    def __init__(self, work: Callable[[Any], object]) -> None:
        self._work = work

    def work(self, job: object) -> object:
        return self._work(job)
