"""Errors that end a command with a one-line message, and the context manager that prints them."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from configs.program import spelled

_STDOUT: Final = 1


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
    """Prints a `ConfigError` or `RunError`, or that Ctrl-C was pressed, as one line on stderr, and exits.

    If what reads stdout has ended, as `head` does, the command ends too, without a message.

    Raises:
        SystemExit: in place of the error; status 2 for a `ConfigError`, 1 for a `RunError`, 130 for Ctrl-C, 141 if
            nothing reads stdout.
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        if not _nothing_reads_stdout():
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), _STDOUT)  # where Python flushes what is left
        raise SystemExit(141) from None  # 128 + SIGPIPE, as of a program that this signal ends
    except KeyboardInterrupt:
        print(f"{prog}: interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    except (ConfigError, RunError) as error:
        print(f"{prog}: error: {spelled(' '.join(str(error).split()))}", file=sys.stderr)
        raise SystemExit(2 if isinstance(error, ConfigError) else 1) from error


def _nothing_reads_stdout() -> bool:
    poll = select.poll()
    poll.register(_STDOUT, select.POLLOUT)
    return any(event & select.POLLERR for _, event in poll.poll(0))
