"""What ends a command in one line: errors of the user's and of the world's, and how a command says them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class RunError(RuntimeError):
    """What ended a run although it was asked for correctly. The text says where and what."""


class ConfigError(ValueError):
    """Something the user gave cannot work. The text is one line: where it stands, what is wrong, what to do."""

    def __init__(self, text: str) -> None:
        super().__init__(" ".join(text.split()))


class DataError(ConfigError):
    """Data that cannot be used: the message says where, what is wrong and what to do."""


@contextmanager
def one_line_errors(prog: str) -> Iterator[None]:
    """Turn a `ConfigError` into its one line on stderr and exit status 2, a `RunError` into its line and status 1.

    Raises SystemExit in their place.
    """
    try:
        yield
    except (ConfigError, RunError) as error:
        print(f"{prog}: error: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2 if isinstance(error, ConfigError) else 1) from error
