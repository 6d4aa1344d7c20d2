"""Every command of this project in README and docs is one that it takes: known, and with valid settings."""

from __future__ import annotations

import argparse
import importlib.util
import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chimed.commands import COMMANDS
from configs import base

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    path for path in (*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))) if path.stem != "CHANGELOG"
]
PACKAGES = {path.parent.name for path in ROOT.glob("*/__init__.py")}
BLOCK = re.compile(r"^```(?:bash)?\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`((?:python -m|chimed) [\w.]+ [^`\n]+)`")
STARTS = re.compile(rf"(?:^|\s)(?:python -m ((?:{'|'.join(sorted(PACKAGES))})[\w.]*)|chimed)(?=\s|$)")
SETTINGS_LATER = ("serve", "cluster.preflight", "benchmarks.soak")
"""Modules that check settings after they have parsed their options."""
MADE_BY_READERS = "runs/"  # recipes below it are written by hand, as their page describes


class Parsed(BaseException):
    """Raised where a command would begin, after all of its arguments have been checked."""


def commands(page: Path) -> Iterator[str]:
    """The commands of a page: those in its blocks, without comments, and those in its sentences that have arguments."""
    text = page.read_text(encoding="utf-8")
    for block in BLOCK.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            yield re.sub(r"(^|\s)#.*", "", line).strip()
    yield from (command for command in INLINE.findall(text) if "…" not in command)


def arguments(command: str) -> tuple[str, list[str]] | None:
    """The module that a line starts, and its arguments; None if it starts none, or only names it.

    Of alternatives `a|b`, the first; without optional parts in brackets, and with a value for `…`.
    """
    found = STARTS.search(command)
    if not found:
        return None
    rest = re.sub(r"\s\[-[^\]]*\]", "", command[found.end() :])
    rest = re.sub(r"(?<=[\w=])\|[\w|]+", "", rest)
    rest = re.sub(r"\s…(?=\s|$)", "", rest).replace("…", "x")
    words = shlex.split(re.split(r"\s(?:[<>&|]|2>)", rest)[0])
    if found[1]:
        return found[1], words
    if not words:
        return None
    if words[0] not in COMMANDS:
        return (words[0], []) if words[0].islower() and words[0].isalpha() else None
    return COMMANDS[words[0]].module, words[1:]


FOUND = [
    pytest.param(*taken, id=f"{page.name}: {command}")
    for page in PAGES
    for command in dict.fromkeys(commands(page))
    if (taken := arguments(command)) is not None
]


def test_the_pages_have_commands() -> None:
    modules = {parameter.values[0] for parameter in FOUND}
    assert {"trainers.ppo", "trainers.sft", "evals.run", "serve", "data.prepare", "cluster.preflight"} <= modules
    assert len(FOUND) > 80


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize(("module", "words"), FOUND)
def test_a_command_is_taken(module: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert importlib.util.find_spec(module) is not None
    recipe = next((word for word in words if word.startswith(MADE_BY_READERS) and word.endswith("recipe.yaml")), None)
    if recipe is not None:
        words = [word.replace(recipe, "configs/qwen2.5-0.5b-cpu.yaml") for word in words]
    read, from_arguments, parse = base.read, base.from_arguments, argparse.ArgumentParser.parse_known_args

    def reading(*given: Any) -> None:
        read(*given)
        raise Parsed

    def converting(*given: Any) -> None:
        from_arguments(*given)
        raise Parsed

    def parsing(parser: argparse.ArgumentParser, *given: Any, **more: Any) -> Any:
        namespace, unknown = parse(parser, *given, **more)
        if module in SETTINGS_LATER:
            return namespace, unknown
        if unknown:
            parser.error(f"unrecognized arguments: {' '.join(unknown)}")
        raise Parsed

    for known in list(sys.modules.values()):  # other tests may have imported modules that hold these functions
        for name, original, checked in (("read", read, reading), ("from_arguments", from_arguments, converting)):
            if vars(known).get(name) is original:
                monkeypatch.setattr(known, name, checked)
    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", parsing)
    monkeypatch.setattr(sys, "argv", [module, *words])
    monkeypatch.chdir(ROOT)
    if "--help" in words:
        with pytest.raises(SystemExit, match="^0$"):
            runpy.run_module(module, run_name="__main__", alter_sys=True)
    else:
        with pytest.raises(Parsed):
            runpy.run_module(module, run_name="__main__", alter_sys=True)
