"""Rate limits: a bucket a key, refilled evenly over a minute."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from serve.config import LimitsConfig
from serve.errors import ApiError


class Bucket:
    """`per_minute` units at most, refilled at `per_minute / 60` a second; debts are paid off before anything is given."""

    def __init__(self, per_minute: int, now: float) -> None:
        self._capacity = float(per_minute)
        self._level, self._time = float(per_minute), now

    def wait_s(self, units: float, now: float) -> float:
        """Seconds until `units` are there; 0 if they are."""
        self._refill(now)
        return max(0.0, (units - self._level) * 60.0 / self._capacity)

    def take(self, units: float, now: float) -> None:
        """Takes `units`, into debt if need be: what an answer costs is known only afterwards."""
        self._refill(now)
        self._level -= units

    def _refill(self, now: float) -> None:
        self._level = min(self._capacity, self._level + (now - self._time) * self._capacity / 60.0)
        self._time = now


class RateLimits:
    """Requests and tokens a minute of each holder of a key."""

    def __init__(self, config: LimitsConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self._config, self._clock = config, clock
        self._buckets: dict[tuple[str, str], Bucket] = {}  # as many as there are keys

    def admit(self, holder: str) -> None:
        """Counts a request.

        Raises:
            ApiError: 429 with the seconds to wait, if the holder has used up requests or tokens.
        """
        now = self._clock()
        for kind, per_minute, needed in (
            ("requests", self._config.requests_per_minute, 1.0),
            ("tokens", self._config.tokens_per_minute, 1.0),
        ):
            if per_minute and (wait := self._bucket(holder, kind, per_minute, now).wait_s(needed, now)) > 0:
                raise ApiError(
                    429,
                    f"This key may use {per_minute} {kind} a minute and has used them: try again in {math.ceil(wait)} s.",
                    code="rate_limit_exceeded",
                    retry_after_s=wait,
                )
        if self._config.requests_per_minute:
            self._bucket(holder, "requests", self._config.requests_per_minute, now).take(1.0, now)

    def charge(self, holder: str, tokens: int) -> None:
        """Counts the tokens of a request that was admitted."""
        now = self._clock()
        if self._config.tokens_per_minute:
            self._bucket(holder, "tokens", self._config.tokens_per_minute, now).take(tokens, now)

    def _bucket(self, holder: str, kind: str, per_minute: int, now: float) -> Bucket:
        key = (holder, kind)
        if key not in self._buckets:
            self._buckets[key] = Bucket(per_minute, now)
        return self._buckets[key]
