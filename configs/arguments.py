"""Command lines with argparse: a parser whose errors are one line, and argument types."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Final, NoReturn

from configs.program import spelled
from configs.suggestions import did_you_mean

_UNKNOWN: Final = "unrecognized arguments: "
_CHOICE: Final = re.compile(r"invalid choice: '?(.*?)'? \(choose from (.*)\)")


class Parser(argparse.ArgumentParser):
    """A command's parser. An invalid argument ends the command with one line, which suggests the closest valid one.

    The description and the epilog name the command as it was started; see `configs.program`.
    """

    def __init__(self, *, description: str | None = None, epilog: str | None = None, **options: Any) -> None:
        super().__init__(description=spelled(description or ""), epilog=spelled(epilog or ""), **options)
        self._given: list[str] = []

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parses the arguments like `argparse.ArgumentParser`, and keeps them for the message of an error."""
        self._given = list(sys.argv[1:] if args is None else args)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Prints one line on stderr, without the usage that argparse prints above it, and exits with status 2."""
        if "required" in message and (unknown := self._unknown()):  # more likely misspelled than left out
            message = _UNKNOWN + unknown
        self.exit(2, f"{self.prog}: error: {message}{self._suggestion(message)}; --help lists the arguments\n")

    def options(self) -> Iterator[str]:
        """Yields every option, such as `--config`, also those of subcommands."""
        yield from self._option_string_actions
        for action in self._actions:
            for command in action.choices.values() if isinstance(action.choices, Mapping) else ():
                if isinstance(command, Parser):
                    yield from command.options()

    def _unknown(self) -> str:
        """Returns the first given option that begins no option of this parser; an empty string if there is none."""
        known = [*self.options()]
        given = (text.partition("=")[0] for text in self._given if text.startswith("--") and text != "--")
        return next((name for name in given if not any(option.startswith(name) for option in known)), "")

    def _suggestion(self, message: str) -> str:
        if message.startswith(_UNKNOWN):
            first = message.removeprefix(_UNKNOWN).split()[0].partition("=")[0]
            return did_you_mean(first, self.options()) if first.startswith("-") else ""
        if found := _CHOICE.search(message):
            return did_you_mean(found[1], re.findall(r"[^\s',]+", found[2]))
        return ""


def count(text: str) -> int:
    """Parses an integer of at least 1.

    Raises:
        argparse.ArgumentTypeError: the integer is smaller.
    """
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, found {number}")
    return number
