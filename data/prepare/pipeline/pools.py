"""Runs tasks in this process, in processes of this machine, or on a Ray cluster, with the same results.

Tasks are plain functions of picklable arguments. Their results are yielded in the order of the items, and only a
bounded number of tasks is in flight, so that memory is bounded and nothing depends on which task finishes first.
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

_AHEAD: Final = 2  # tasks in flight per worker: one that runs and one that is queued


class Pool(Protocol):
    """The interface of pools, which apply a function to items and yield the results in the order of the items."""

    def map(self, work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yields the results of `work` for each of `items`, in order."""
        ...


class Here:
    """A pool that processes one item after another in this process."""

    def map(self, work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """See `Pool`."""
        return map(work, items)


class Processes:
    """A pool of `workers` processes on this machine."""

    def __init__(self, executor: ProcessPoolExecutor, workers: int) -> None:
        self._executor, self._workers = executor, workers

    def map(self, work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """See `Pool`. Exceptions of `work` are raised here.

        Raises:
            RunError: a worker process was killed.
        """
        try:
            yield from _bounded(
                lambda item: self._executor.submit(work, item),
                lambda future: future.result(),
                items,
                _AHEAD * self._workers,
            )
        except BrokenProcessPool as error:
            raise RunError("a worker was killed, possibly because memory ran out; lower --workers") from error


class OnRay:
    """A pool of all CPUs of the connected Ray cluster; inputs and output must be on shared storage."""

    def map(self, work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """See `Pool`. Exceptions of `work` are raised here.

        Raises:
            RunError: the Ray cluster lost a task.
        """
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
    """Wraps `work` to run in this process's working folder if a node has it, since paths may be relative to it."""
    here = os.getcwd()

    def done_there(item: Item) -> Result:
        with chdir(here) if os.path.isdir(here) else nullcontext():
            return work(item)

    return done_there


@contextmanager
def open_pool(workers: int | None, size: int) -> Iterator[Pool]:
    """Yields a pool on this machine for an input of `size` bytes.

    Args:
        workers: number of processes; by default one per CPU, or only this process if the input is so small that
            starting processes would take longer than reading it.
        size: total size of the input files, in bytes.
    """
    count = workers or (len(os.sched_getaffinity(0)) if size > _WORTH_PROCESSES else 1)
    if count == 1:
        yield Here()
        return
    context = multiprocessing.get_context("forkserver")  # imports once; fork alone is unsafe with Arrow's threads
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
