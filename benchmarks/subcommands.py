"""Runs another command of a benchmark in a separate process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence

from configs.errors import RunError


def run_python(arguments: Sequence[str], timeout_s: float, environment: Mapping[str, str] | None = None) -> None:
    """Runs this Python with `arguments` and waits for its end; its output goes to stderr.

    Args:
        arguments: the arguments, such as `["-m", "trainers.ppo", "--config", "configs/laptop.yaml"]`.
        timeout_s: time limit in seconds, after which the process is killed.
        environment: its environment variables; default: those of this process.

    Raises:
        RunError: it ended with another status than 0, or exceeded the limit. The message names its module or file.
    """
    name = next(argument for argument in arguments if argument != "-m")
    try:
        done = subprocess.run([sys.executable, *arguments], env=environment, stdout=sys.stderr, timeout=timeout_s)
    except subprocess.TimeoutExpired as error:
        raise RunError(f"{name} did not end within {timeout_s:g} s and was killed; its output is above") from error
    if done.returncode:
        raise RunError(f"{name} ended with status {done.returncode}; its output is above")
