"""Rate limits: one token bucket per key and unit, refilled continuously. Tokens are reserved before they are used."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from serve.config import LimitsConfig
from serve.errors import ApiError
from serve.keys import Key


class Bucket:
    """A token bucket of capacity `per_minute`, refilled at `per_minute / 60` units per second.

    Its level may become negative.
    """

    def __init__(self, per_minute: int, now: float) -> None:
        self.capacity = per_minute
        self._level, self._time = float(per_minute), now

    def wait_s(self, units: float, now: float) -> float:
        """Returns the seconds until `units` are available; 0 if they are now. `now` is in seconds."""
        self._refill(now)
        return max(0.0, (units - self._level) * 60.0 / self.capacity)

    def take(self, units: float, now: float) -> None:
        """Removes `units`, below zero if necessary. Negative `units` are returned to the bucket."""
        self._refill(now)
        self._level = min(float(self.capacity), self._level - units)

    def _refill(self, now: float) -> None:
        self._level = min(float(self.capacity), self._level + (now - self._time) * self.capacity / 60.0)
        self._time = now


class Reservation:
    """Tokens that one request has taken from its key's bucket: first its upper bound, finally the tokens it used."""

    def __init__(self, bucket: Bucket | None, tokens: int, clock: Callable[[], float]) -> None:
        self._bucket, self._clock = bucket, clock
        self.tokens = 0
        self.change(tokens)

    def change(self, tokens: int) -> None:
        """Sets the reservation to `tokens`; takes or returns the difference."""
        if self._bucket is not None and tokens != self.tokens:
            self._bucket.take(tokens - self.tokens, self._clock())
        self.tokens = tokens


class RateLimits:
    """Limits on the requests and tokens per minute of each key."""

    def __init__(self, config: LimitsConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self._config, self._clock = config, clock
        self._buckets: dict[tuple[str, str], Bucket] = {}  # bounded by the number of keys

    def admit(self, key: Key) -> None:
        """Counts a request.

        Raises:
            ApiError: 429 with the seconds to wait, if the key has no requests left.
        """
        bucket = self._bucket(key, "requests")
        if bucket is None:
            return
        if (wait := bucket.wait_s(1.0, self._clock())) > 0:
            raise _used_up(f"This key may use {bucket.capacity} requests per minute and has used all of them", wait)
        bucket.take(1.0, self._clock())

    def reserve(self, key: Key, least: int, most: int) -> Reservation:
        """Takes the tokens that a request may use from its key's bucket, before the request starts.

        Args:
            key: the key of the request.
            least: lower bound on the tokens that the request may use. A request whose lower bound exceeds the limit can
                never be admitted.
            most: upper bound on these tokens. If it exceeds the limit, the whole limit is taken, which needs a full
                bucket.

        Raises:
            ApiError: 400 if `least` exceeds the limit; 429 with the seconds until enough tokens are available.
        """
        bucket = self._bucket(key, "tokens")
        if bucket is None:
            return Reservation(None, most, self._clock)
        if least > bucket.capacity:
            raise ApiError(
                400,
                f"This request may use {least} tokens, and this key may use {bucket.capacity} tokens per minute: "
                "shorten the prompt, or lower max_tokens or n.",
                code="request_exceeds_rate_limit",
            )
        most = min(most, bucket.capacity)
        if (wait := bucket.wait_s(most, self._clock())) > 0:
            raise _used_up(
                f"This key may use {bucket.capacity} tokens per minute, and this request needs up to {most}, "
                "more than are left",
                wait,
            )
        return Reservation(bucket, most, self._clock)

    def _bucket(self, key: Key, kind: str) -> Bucket | None:
        """Returns a key's bucket; None if the key has no limit. A changed limit starts a new, full bucket."""
        own, everyones = (
            (key.requests_per_minute, self._config.requests_per_minute)
            if kind == "requests"
            else (key.tokens_per_minute, self._config.tokens_per_minute)
        )
        per_minute = everyones if own is None else own
        if not per_minute:
            return None
        bucket = self._buckets.get((key.name, kind))
        if bucket is None or bucket.capacity != per_minute:
            bucket = self._buckets[key.name, kind] = Bucket(per_minute, self._clock())
        return bucket


def _used_up(what: str, wait_s: float) -> ApiError:
    return ApiError(
        429,
        f"{what}: try again in {math.ceil(wait_s)} s.",
        code="rate_limit_exceeded",
        retry_after_s=wait_s,
    )
