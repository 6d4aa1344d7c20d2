from __future__ import annotations

import pytest

from serve.config import LimitsConfig
from serve.errors import ApiError
from serve.limits import Bucket, RateLimits


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_refills_evenly_and_pays_debts_first() -> None:
    bucket = Bucket(60, now=0.0)
    assert bucket.wait_s(60, 0.0) == 0
    bucket.take(70, 0.0)
    assert bucket.wait_s(1, 0.0) == pytest.approx(11.0)
    assert bucket.wait_s(1, 10.0) == pytest.approx(1.0)
    assert bucket.wait_s(1, 11.0) == 0
    assert bucket.wait_s(60, 1000.0) == 0
    assert bucket.wait_s(61, 1000.0) == pytest.approx(1.0)  # never more than a minute's worth


def test_requests_of_one_key_do_not_count_for_another() -> None:
    clock = Clock()
    limits = RateLimits(LimitsConfig(requests_per_minute=2), clock)
    limits.admit("a")
    limits.admit("a")
    limits.admit("b")
    with pytest.raises(
        ApiError, match=r"This key may use 2 requests a minute and has used them: try again in 30 s\."
    ) as refused:
        limits.admit("a")
    assert (refused.value.status, refused.value.retry_after_s) == (429, pytest.approx(30.0))
    clock.now += 30
    limits.admit("a")


def test_tokens_are_charged_afterwards() -> None:
    clock = Clock()
    limits = RateLimits(LimitsConfig(tokens_per_minute=600), clock)
    limits.admit("a")
    limits.charge("a", 900)
    with pytest.raises(ApiError, match=r"600 tokens a minute"):
        limits.admit("a")
    clock.now += 30.2  # 300 in debt at 10 a second, and one to begin with
    limits.admit("a")


def test_no_limits_by_default() -> None:
    limits = RateLimits(LimitsConfig(), Clock())
    for _ in range(1000):
        limits.admit("a")
        limits.charge("a", 10_000)
