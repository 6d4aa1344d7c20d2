"""Requests inside a vLLM engine: asked for together, finished one by one, kept through a change of the weights."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from threading import Lock
from typing import TYPE_CHECKING, Any

from actors.config import InFlight
from actors.inference.fair_lock import Turns

if TYPE_CHECKING:
    from vllm import RequestOutput, SamplingParams

SPARE = 4
"""Places in an engine beside those for answers, where weights change under these: the probe must not wait for one."""


@dataclass
class _Job:
    left: int  # requests that are not finished
    ready: deque[tuple[Request, RequestOutput]] = field(default_factory=deque)  # finished, but not yet fetched


@dataclass
class Request:
    """One prompt that is to be answered."""

    job: _Job
    index: int  # in its job
    prompt: Sequence[int]
    parameters: SamplingParams
    weights: int  # how often the weights had changed when it was asked for
    changes: tuple[int, ...] = ()  # how many tokens it had at every change since then
    internal: str = ""  # vLLM's name for it


class Requests:
    """Feeds one engine and steps it. Several threads may ask at a time; one of them steps, for all."""

    def __init__(self, engine: Any, in_flight: InFlight, places: int) -> None:
        """`engine`: vLLM's `LLMEngine`. Where weights change under running requests, `places` of them run at a time."""
        self.turns = Turns()
        self._engine, self._in_flight = engine, in_flight
        self._places = math.inf if in_flight == "none" else places
        self._collecting = Lock()
        self._names = count()
        self._queue: deque[Request] = deque()
        self._running: dict[str, Request] = {}
        self.weights = 0
        """How often the weights have changed."""

    def outputs(
        self, prompts: Sequence[Sequence[int]], parameters: Sequence[SamplingParams], first: bool = False
    ) -> Iterator[tuple[Request, RequestOutput]]:
        """Every request with its output as it finishes. With `first` they come before all others.

        Who stops asking for more ends the requests that are left.
        """
        job = _Job(len(prompts))
        try:
            with self.turns:
                pairs = enumerate(zip(prompts, parameters, strict=True))
                requests = [Request(job, index, prompt, each, self.weights) for index, (prompt, each) in pairs]
                if first:
                    self._at_once(job, requests)
                else:
                    self._queue.extend(requests)
            if first:
                yield from job.ready
                return
            with self._collecting:  # what is finished for others meanwhile lies ready in their jobs
                while job.left or job.ready:
                    while job.ready:
                        yield job.ready.popleft()
                    if job.left:
                        with self.turns:
                            self._step()
        finally:
            if job.left:
                self._abort(job)

    def weights_changed(self) -> None:
        """Forgets what the old weights left, and notes how far every request had come.

        Prefixes that they computed serve no request that starts from now on. Requests that run keep their own (`keep`)
        or have them computed anew (`recompute`); otherwise none may run, or it is a RuntimeError. The caller has the
        turn where any may run.
        """
        if self._in_flight == "none" and not self._engine.reset_prefix_cache():
            raise RuntimeError("vLLM kept prefixes of the old weights: requests were still running during the update")
        if self._in_flight == "recompute":
            self._engine.reset_prefix_cache(reset_running_requests=True)
        self.weights += 1
        states = self._engine.output_processor.request_states
        for request in self._running.values():
            request.changes += (states[request.internal].detokenizer.num_output_tokens(),)
        for request in self._queue:
            request.changes += (0,)

    def _at_once(self, job: _Job, requests: list[Request]) -> None:
        for request in requests:
            self._add(request)
        while job.left:
            self._step()

    def _step(self) -> None:
        while self._queue and len(self._running) < self._places:
            self._add(self._queue.popleft())
        for output in self._engine.step():
            request = self._running.pop(output.request_id)
            request.job.ready.append((request, output))
            request.job.left -= 1

    def _add(self, request: Request) -> None:
        from vllm.inputs.engine import tokens_input

        name = str(next(self._names))
        # Cached prefixes serve requests of the same salt only: `keep` cannot drop those of the old weights.
        salt = f"weights {self.weights}" if self._in_flight == "keep" else None
        prompt = tokens_input(list(request.prompt), cache_salt=salt)
        request.internal = self._engine.add_request(name, prompt, request.parameters)
        self._running[name] = request

    def _abort(self, job: _Job) -> None:
        with self.turns:
            self._queue = deque(request for request in self._queue if request.job is not job)
            mine = {name: request for name, request in self._running.items() if request.job is job}
            self._engine.abort_request([request.internal for request in mine.values()], internal=True)
            for name in mine:
                del self._running[name]
