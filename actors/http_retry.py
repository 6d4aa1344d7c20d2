"""The retry policy of HTTP requests: which failures are retried, how often, and how long to wait before each retry."""

from __future__ import annotations

import re
import time
from collections.abc import Collection
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

import httpx

FIRST_WAIT_S = 0.5  # before the first retry; doubled before each further one
LONGEST_WAIT_S = 60.0  # limit of a wait, even if Retry-After is longer


class RequestFailed(Exception):
    """An attempt that got no usable response.

    Attributes:
        again: whether a retry can succeed.
        wait_s: seconds to wait before a retry, as requested by the endpoint; None if it requested no wait.
    """

    def __init__(self, text: str, *, again: bool, wait_s: float | None = None) -> None:
        super().__init__(text)
        self.again, self.wait_s = again, wait_s


@dataclass(frozen=True)
class RetryPolicy:
    """Exponential backoff that respects Retry-After."""

    tries: int
    """Maximum number of attempts, including the first."""
    statuses: Collection[int]
    """HTTP statuses that are retried."""

    def wait_s(self, failed: RequestFailed, tried: int) -> float | None:
        """Returns the seconds to wait before the next attempt; None if there should be no further attempt.

        Args:
            failed: the last attempt's failure.
            tried: number of attempts so far, including the last one.
        """
        if not failed.again or tried >= self.tries:
            return None
        wait_s = FIRST_WAIT_S * 2 ** (tried - 1) if failed.wait_s is None else failed.wait_s
        return min(wait_s, LONGEST_WAIT_S)

    def failed(self, response: httpx.Response, text: str) -> RequestFailed:
        """Returns the failure of an attempt that got a response without a 2xx status; `text` describes it."""
        again = response.status_code in self.statuses
        return RequestFailed(text, again=again, wait_s=_retry_after_s(response.headers.get("Retry-After", "")))


def _retry_after_s(value: str) -> float | None:
    """Returns the seconds to wait that a Retry-After header requests; None if its value is not valid.

    The value is a number of seconds or a date (RFC 9110, section 10.2.3).
    """
    if re.fullmatch(r"\d{1,9}", value):
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None
