"""The waits between attempts; `tests/actors/rewards/test_http.py` has them against a server."""

from __future__ import annotations

import time
from email.utils import formatdate

import httpx
import pytest

from actors.http_retry import RequestFailed, RetryPolicy

POLICY = RetryPolicy(tries=9, statuses=(429, 503))


def test_waits_double_up_to_a_minute_and_end_with_the_last_try() -> None:
    failed = RequestFailed("no answer", again=True)
    waits = [POLICY.wait_s(failed, tried) for tried in range(1, 10)]
    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, None]


def test_what_a_retry_cannot_change_is_not_retried() -> None:
    assert POLICY.wait_s(RequestFailed("too large", again=False), 1) is None
    assert RetryPolicy(1, ()).wait_s(RequestFailed("no answer", again=True), 1) is None


@pytest.mark.parametrize(("status", "wait_s"), [(429, 0.5), (503, 0.5), (500, None), (400, None)])
def test_the_policy_says_which_statuses_are_retried(status: int, wait_s: float | None) -> None:
    failed = POLICY.failed(httpx.Response(status), "status")
    assert POLICY.wait_s(failed, 1) == wait_s


@pytest.mark.parametrize(("after", "wait_s"), [("7", 7.0), ("3600", 60.0), ("soon", 0.5), ("-1", 0.5), ("", 0.5)])
def test_retry_after_replaces_the_backoff_within_the_limit(after: str, wait_s: float) -> None:
    failed = POLICY.failed(httpx.Response(503, headers={"Retry-After": after}), "busy")
    assert POLICY.wait_s(failed, 1) == wait_s


def test_retry_after_may_be_a_date() -> None:
    date = formatdate(time.time() + 20, usegmt=True)
    wait_s = POLICY.wait_s(POLICY.failed(httpx.Response(429, headers={"Retry-After": date}), "busy"), 1)
    assert wait_s is not None
    assert 15 < wait_s <= 20
    past = POLICY.failed(httpx.Response(429, headers={"Retry-After": formatdate(0, usegmt=True)}), "busy")
    assert POLICY.wait_s(past, 1) == 0.0
