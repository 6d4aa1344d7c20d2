"""Checks of `benchmarks.gpu_check` that end in every way a check can."""

from __future__ import annotations

import os
import time
from typing import Any

from benchmarks.gpu_check.checks import SkippedError


def right(gpu: bool) -> dict[str, Any]:
    return {"gpu": gpu}


def wrong(gpu: bool) -> dict[str, Any]:
    raise AssertionError("2 is not 3")


def skipped(gpu: bool) -> dict[str, Any]:
    raise SkippedError("nothing to check")


def hangs(gpu: bool) -> dict[str, Any]:
    time.sleep(600)
    return {}


def dies(gpu: bool) -> dict[str, Any]:
    os._exit(7)
