"""What a command says on stderr, apart from its log lines."""

from __future__ import annotations

import re

_LOG_LINE = re.compile(r"\d\d:\d\d:\d\d (INFO|WARNING) ")


def errors_in(stderr: str) -> list[str]:
    """The lines that are not log lines of `configs.logs`."""
    return [line for line in stderr.splitlines() if not _LOG_LINE.match(line)]
