"""Requests of a vLLM engine: submitted together, finished one by one, and kept across in-flight weight updates."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from threading import Lock
from typing import TYPE_CHECKING, Any

from actors.config import InFlight
from actors.inference.fair_lock import FairLock

if TYPE_CHECKING:
    from vllm import RequestOutput, SamplingParams

SPARE = 4
"""Number of sequences in addition to `places`, so that the probe does not wait for responses to finish."""


@dataclass
class _Job:
    left: int  # requests that are not finished
    ready: deque[tuple[Request, RequestOutput]] = field(default_factory=deque)  # finished, but not yet fetched


@dataclass
class Request:
    """One prompt to generate a response for."""

    job: _Job
    index: int  # in its job
    prompt: Sequence[int]
    parameters: SamplingParams
    weights: int  # number of weight changes before it was submitted
    changes: tuple[int, ...] = ()  # tokens that its response had at every weight change since then
    internal: str = ""  # vLLM's request id


class Requests:
    """Submits requests to one engine and steps it. Several threads may submit; one of them steps the engine for all."""

    def __init__(self, engine: Any, in_flight: InFlight, places: int) -> None:
        """Creates an empty queue of requests; `outputs` submits to it.

        Args:
            engine: vLLM's `LLMEngine`.
            in_flight: what happens to running requests when weights change.
            places: maximum number of concurrent requests with in-flight weight updates; otherwise only vLLM limits
                their number.
        """
        self.lock = FairLock()
        self._engine, self._in_flight = engine, in_flight
        self._places = math.inf if in_flight == "none" else places
        self._collecting = Lock()
        self._names = count()
        self._queue: deque[Request] = deque()
        self._running: dict[str, Request] = {}
        self.weights = 0
        """Number of weight changes."""

    def outputs(
        self, prompts: Sequence[Sequence[int]], parameters: Sequence[SamplingParams], first: bool = False
    ) -> Iterator[tuple[Request, RequestOutput]]:
        """Submits one request per prompt; yields each with its output as it finishes.

        Closing the generator aborts the remaining requests.

        Args:
            prompts: token ids.
            parameters: sampling parameters, one per prompt.
            first: whether the requests bypass the queue and run to their end before any output is yielded.
        """
        job = _Job(len(prompts))
        try:
            with self.lock:
                pairs = enumerate(zip(prompts, parameters, strict=True))
                requests = [Request(job, index, prompt, each, self.weights) for index, (prompt, each) in pairs]
                if first:
                    self._at_once(job, requests)
                else:
                    self._queue.extend(requests)
            if first:
                yield from job.ready
                return
            with self._collecting:  # outputs of other jobs that finish meanwhile are kept in their `ready`
                while job.left or job.ready:
                    while job.ready:
                        yield job.ready.popleft()
                    if job.left:
                        with self.lock:
                            self._step()
        finally:
            if job.left:
                self._abort(job)

    def weights_changed(self) -> None:
        """Invalidates what the old weights computed, and records how many tokens every request has.

        New requests reuse no prefix of the old weights. Running requests keep their KV cache (`keep`) or have it
        recomputed (`recompute`). With `none`, no request may be running. If requests may be running, the caller
        must hold `lock`.

        Raises RuntimeError if requests are running with `none`.
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
        # Cached prefixes are reused for the same salt only; `keep` cannot drop those of the old weights.
        salt = f"weights {self.weights}" if self._in_flight == "keep" else None
        prompt = tokens_input(list(request.prompt), cache_salt=salt)
        request.internal = self._engine.add_request(name, prompt, request.parameters)
        self._running[name] = request

    def _abort(self, job: _Job) -> None:
        with self.lock:
            self._queue = deque(request for request in self._queue if request.job is not job)
            mine = {name: request for name, request in self._running.items() if request.job is job}
            self._engine.abort_request([request.internal for request in mine.values()], internal=True)
            for name in mine:
                del self._running[name]
