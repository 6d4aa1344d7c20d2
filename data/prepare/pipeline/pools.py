"""Where the tasks run: in this process, in processes of this machine, or on a Ray cluster. All give the same results.

Tasks are plain functions of picklable arguments. Their results come back in the order of the items, and only a bounded
number is under way, so that neither memory nor the order of anything depends on who was first.
"""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import chdir, contextmanager, nullcontext
from typing import Any, Final, Protocol, TypeVar

from configs.errors import ConfigError, RunError

Item = TypeVar("Item")
Result = TypeVar("Result")

_AHEAD: Final = 2  # tasks under way for each worker: one that runs and one that waits for it


class Pool(Protocol):
    """Runs a function over items; `map` yields the results in the order of the items."""

    def map(self, work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """The results of `work` for each of `items`, in order."""
        ...


class Here:
    """One item after another, in this process."""

    def map(self, work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """See `Pool`."""
        return map(work, items)


class Processes:
    """`workers` processes of this machine."""

    def __init__(self, executor: ProcessPoolExecutor, workers: int) -> None:
        self._executor, self._workers = executor, workers

    def map(self, work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Raises `RunError` if a worker is killed; what the work raises is raised here."""
        try:
            yield from _bounded(
                lambda item: self._executor.submit(work, item),
                lambda future: future.result(),
                items,
                _AHEAD * self._workers,
            )
        except BrokenProcessPool as error:
            raise RunError("a worker was killed, perhaps for its memory; ask for fewer --workers") from error


class OnRay:
    """Every CPU of the Ray cluster that this process is connected to; inputs and output lie on storage that all share."""

    def map(self, work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Raises `RunError` if a task is lost for good; what the work raises is raised here."""
        import ray
        from ray.exceptions import RayError, RayTaskError

        task = ray.remote(_from_here(work)).options(num_cpus=1, scheduling_strategy="SPREAD")
        cpus = int(ray.cluster_resources().get("CPU", 1))
        try:
            yield from _bounded(task.remote, ray.get, items, _AHEAD * max(cpus, 1))
        except RayTaskError as error:
            if isinstance(error.cause, OSError | ConfigError | RunError):
                raise error.cause from error
            raise
        except RayError as error:
            raise RunError(
                f"the Ray cluster lost a task ({' '.join(str(error).split())[:200]}); run it again"
            ) from error


def _from_here(work: Callable[[Item], Result]) -> Callable[[Item], Result]:
    """The work, done in this process's working folder where a node has it: paths may be relative to it."""
    here = os.getcwd()

    def done_there(item: Item) -> Result:
        with chdir(here) if os.path.isdir(here) else nullcontext():
            return work(item)

    return done_there


@contextmanager
def open_pool(workers: int | None, size: int) -> Iterator[Pool]:
    """The pool of this machine for an input of `size` bytes.

    Args:
        workers: processes; by default as many as CPUs, and none for an input that is read sooner than processes start.
    """
    count = workers or (len(os.sched_getaffinity(0)) if size > _WORTH_PROCESSES else 1)
    if count == 1:
        yield Here()
        return
    context = multiprocessing.get_context("forkserver")  # imports once; fork alone is unsafe beside Arrow's threads
    context.set_forkserver_preload(["data.prepare.pipeline.piece"])
    with ProcessPoolExecutor(count, context) as executor:
        try:
            yield Processes(executor, count)
        except BaseException:
            executor.shutdown(wait=True, cancel_futures=True)
            raise


_WORTH_PROCESSES: Final = 4 * 1024 * 1024


def _bounded(
    start: Callable[[Any], Any], finish: Callable[[Any], Any], items: Iterable[Any], most: int
) -> Iterator[Any]:
    waiting: deque[Any] = deque()
    for item in items:
        waiting.append(start(item))
        if len(waiting) >= most:
            yield finish(waiting.popleft())
    while waiting:
        yield finish(waiting.popleft())
