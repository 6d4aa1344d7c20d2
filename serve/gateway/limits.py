"""Rate limits: a bucket per key, refilled evenly over a minute. Tokens are reserved before they are used."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from serve.config import LimitsConfig
from serve.errors import ApiError
from serve.keys import Key


class Bucket:
    """Holds `per_minute` units at most, refilled at `per_minute / 60` a second. May go into debt."""

    def __init__(self, per_minute: int, now: float) -> None:
        self.capacity = per_minute
        self._level, self._time = float(per_minute), now

    def wait_s(self, units: float, now: float) -> float:
        """Seconds until `units` are there; 0 if they are."""
        self._refill(now)
        return max(0.0, (units - self._level) * 60.0 / self.capacity)

    def take(self, units: float, now: float) -> None:
        """Takes `units`, into debt if need be. Negative units are given back."""
        self._refill(now)
        self._level = min(float(self.capacity), self._level - units)

    def _refill(self, now: float) -> None:
        self._level = min(float(self.capacity), self._level + (now - self._time) * self.capacity / 60.0)
        self._time = now


class Reservation:
    """Tokens that one request has taken from its key's bucket: at first what it may use at most, at the end what it used."""

    def __init__(self, bucket: Bucket | None, tokens: int, clock: Callable[[], float]) -> None:
        self._bucket, self._clock = bucket, clock
        self.tokens = 0
        self.change(tokens)

    def change(self, tokens: int) -> None:
        """Takes or gives back the difference to `tokens`."""
        if self._bucket is not None and tokens != self.tokens:
            self._bucket.take(tokens - self.tokens, self._clock())
        self.tokens = tokens


class RateLimits:
    """Requests and tokens per minute of each key."""

    def __init__(self, config: LimitsConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self._config, self._clock = config, clock
        self._buckets: dict[tuple[str, str], Bucket] = {}  # as many as there are keys

    def admit(self, key: Key) -> None:
        """Counts a request.

        Raises:
            ApiError: 429 with the seconds to wait, if the key has used up its requests.
        """
        bucket = self._bucket(key, "requests")
        if bucket is None:
            return
        if (wait := bucket.wait_s(1.0, self._clock())) > 0:
            raise _used_up(f"This key may use {bucket.capacity} requests a minute and has used them", wait)
        bucket.take(1.0, self._clock())

    def reserve(self, key: Key, least: int, most: int) -> Reservation:
        """Takes the tokens that a request may use before it starts.

        Args:
            least: tokens that it surely may use: a request for more than the whole limit can never be admitted.
            most: an upper bound. One above the limit takes the whole limit, and so needs a full bucket.

        Raises:
            ApiError: 400 if `least` is above the limit; 429 with the seconds until the tokens are there.
        """
        bucket = self._bucket(key, "tokens")
        if bucket is None:
            return Reservation(None, most, self._clock)
        if least > bucket.capacity:
            raise ApiError(
                400,
                f"This request may use {least} tokens, and this key may use {bucket.capacity} tokens a minute: "
                "shorten the prompt, or set max_tokens or n lower.",
                code="request_exceeds_rate_limit",
            )
        most = min(most, bucket.capacity)
        if (wait := bucket.wait_s(most, self._clock())) > 0:
            raise _used_up(
                f"This key may use {bucket.capacity} tokens a minute, and this request needs up to {most}, "
                "more than are left",
                wait,
            )
        return Reservation(bucket, most, self._clock)

    def _bucket(self, key: Key, kind: str) -> Bucket | None:
        """The bucket of a key; None where it has no limit. A limit that was changed starts a new one."""
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
