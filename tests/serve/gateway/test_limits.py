from __future__ import annotations

import pytest

from serve.config import LimitsConfig
from serve.errors import ApiError
from serve.gateway.limits import Bucket, RateLimits
from serve.keys import Key

A, B = Key("a"), Key("b")


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
    limits.admit(A)
    limits.admit(A)
    limits.admit(B)
    with pytest.raises(
        ApiError, match=r"This key may use 2 requests per minute and has used all of them: try again in 30 s\."
    ) as refused:
        limits.admit(A)
    assert (refused.value.status, refused.value.retry_after_s) == (429, pytest.approx(30.0))
    clock.now += 30
    limits.admit(A)


def test_tokens_are_reserved_and_then_settled() -> None:
    clock = Clock()
    limits = RateLimits(LimitsConfig(tokens_per_minute=600), clock)
    reservation = limits.reserve(A, 100, 400)
    with pytest.raises(ApiError, match=r"needs up to 300, more than are left: try again in 10 s\.") as refused:
        limits.reserve(A, 100, 300)
    assert (refused.value.status, refused.value.retry_after_s) == (429, pytest.approx(10.0))
    reservation.change(250)
    limits.reserve(A, 100, 300).change(350)
    limits.reserve(B, 600, 600)
    with pytest.raises(ApiError, match=r"try again in 1 s") as refused:
        limits.reserve(A, 1, 1)
    assert refused.value.retry_after_s == pytest.approx(0.1)


def test_more_than_the_whole_limit_is_never_admitted_and_a_bound_above_it_needs_a_full_bucket() -> None:
    clock = Clock()
    limits = RateLimits(LimitsConfig(tokens_per_minute=600), clock)
    with pytest.raises(ApiError, match=r"may use 601 tokens, and this key may use 600 tokens per minute") as refused:
        limits.reserve(A, 601, 700)
    assert (refused.value.status, refused.value.retry_after_s) == (400, None)
    limits.reserve(A, 10, 5000).change(60)
    with pytest.raises(ApiError, match=r"needs up to 600"):
        limits.reserve(A, 10, 5000)
    clock.now += 6.1
    limits.reserve(A, 10, 5000)


def test_a_key_s_own_limits_come_first_and_may_change() -> None:
    limits = RateLimits(LimitsConfig(requests_per_minute=1), Clock())
    wide = Key("a", requests_per_minute=3)
    for _ in range(3):
        limits.admit(wide)
    with pytest.raises(ApiError, match=r"3 requests per minute"):
        limits.admit(wide)
    limits.admit(Key("a", requests_per_minute=4))
    for _ in range(100):
        limits.admit(Key("free", requests_per_minute=0))


def test_no_limits_by_default() -> None:
    limits = RateLimits(LimitsConfig(), Clock())
    for _ in range(1000):
        limits.admit(A)
        limits.reserve(A, 10_000, 10_000)
