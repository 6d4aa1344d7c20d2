"""Errors that end a command with a one-line message, and the context manager that prints them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class RunError(RuntimeError):
    """A run failed although its settings are valid. The message says where it failed and why."""


class ConfigError(ValueError):
    """Invalid user input. The message is one line: where, what is wrong, and what to do."""

    def __init__(self, text: str) -> None:
        super().__init__(" ".join(text.split()))


class DataError(ConfigError):
    """Unusable data. The message says where, what is wrong, and what to do."""


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message, or the error's type if it has no message."""
    return next(iter(str(error).splitlines()), type(error).__name__)


@contextmanager
def one_line_errors(prog: str) -> Iterator[None]:
    """Prints a `ConfigError` or `RunError` that is raised inside the block as one line on stderr, and exits.

    Raises:
        SystemExit: replaces the error, with status 2 for a `ConfigError` and 1 for a `RunError`.
    """
    try:
        yield
    except (ConfigError, RunError) as error:
        print(f"{prog}: error: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2 if isinstance(error, ConfigError) else 1) from error
