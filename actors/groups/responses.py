"""Collects the responses that engines stream back, and submits each chunk of rows for scoring once it is complete."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import ray

from actors.groups.batching import even_shares
from actors.groups.group import WorkerGroup
from actors.groups.scoring import Scoring
from actors.roles.rollout import Rollout
from actors.table import extended
from cluster.waiting import POLL_S, RoleDied, get


class ResponseCollector:
    """Collects the responses to a table of prompts in a background thread, and submits complete chunks for scoring."""

    def __init__(
        self,
        engines: WorkerGroup[Rollout],
        prompts: pa.Table,
        version: int,
        scoring: Scoring,
    ) -> None:
        """Starts generating responses to `prompts` with weights `version`, and scoring each chunk of `scoring`.

        Every engine gets an even share of consecutive rows, so a chunk may have parts from several engines.

        Args:
            engines: the rollout's processes.
            prompts: one row per response.
            version: weights version that the engines must hold.
            scoring: receives each complete chunk.
        """
        self.scoring = scoring
        self._engines, self._prompts, self._chunks = engines, prompts, scoring.chunks
        self._parts: list[dict[int, pa.Table]] = [{} for _ in self._chunks]  # chunk -> engine -> its rows' columns
        self._expected = [0 for _ in self._chunks]
        numbers, rows = [], []
        for share in map(set, even_shares(len(prompts), engines.ranks)):
            mine = {number: [row for row in chunk if row in share] for number, chunk in enumerate(self._chunks)}
            mine = {number: part for number, part in mine.items() if part}
            for number in mine:
                self._expected[number] += 1
            rows.append(list(mine.values()))
            if mine:  # `submit_streams` skips an engine without rows
                numbers.append(list(mine))
        streams = engines.submit_streams("stream", ray.put(prompts), rows, version)
        self._dropped = threading.Event()
        thread = ThreadPoolExecutor(1, "responses")
        self._all = thread.submit(self._collect, streams, numbers)
        thread.shutdown(wait=False)

    def join(self) -> pa.Table:
        """Waits for all responses and returns the prompts with the rollout's columns.

        Raises the error of a failed generation, or RoleDied if no engine sends a response for the call timeout.
        """
        return self._all.result()  # `_collect` limits the time between two responses

    def drop(self) -> None:
        """Stops collecting; the responses are no longer needed."""
        self._dropped.set()

    def _collect(self, streams: list[ray.ObjectRefGenerator], numbers: list[list[int]]) -> pa.Table:
        """Collects until all responses have arrived, an engine fails, hangs, or times out, or `drop` is called."""
        role, limit = self._engines.role, self._engines.timeout_s
        whole: dict[int, pa.Table] = {}
        engine_of = {stream: engine for engine, stream in enumerate(streams)}
        heard = time.monotonic()
        while engine_of and not self._dropped.is_set():
            ready, _ = ray.wait(list(engine_of), timeout=POLL_S)
            if ready:
                heard = time.monotonic()
            elif time.monotonic() - heard > limit:
                raise RoleDied(f"{role}: generate: no response after {limit:.0f} s")
            else:
                self._engines.poll()
            for stream in ready:
                engine = engine_of[stream]
                reference = next(stream, None)
                if reference is None:
                    del engine_of[stream]
                    continue
                part, columns = get(reference, f"{role}: generate", limit)
                number = numbers[engine][part]
                self._parts[number][engine] = columns
                if len(self._parts[number]) == self._expected[number]:
                    whole[number] = self._pass_on(number)
        if len(whole) != len(self._chunks):
            raise ValueError(f"{role}: generate returned {len(whole)} of {len(self._chunks)} chunks of rows")
        return pa.concat_tables([whole[number] for number in range(len(whole))]).combine_chunks()

    def _pass_on(self, number: int) -> pa.Table:
        parts = self._parts[number]
        answered = pa.concat_tables([parts[engine] for engine in sorted(parts)])
        chunk = extended(self._prompts.take(self._chunks[number]), answered, "rollout").combine_chunks()
        self.scoring.submit(number, chunk)
        return chunk
