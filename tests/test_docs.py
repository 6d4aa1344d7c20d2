"""The docs name files that exist, and CI runs what they say it runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = "actors|benchmarks|chimed|cluster|configs|data|docs|evals|locks|reporting|serve|storage|tests|trainers"
NAMED = re.compile(rf"(?<![\w/.-])(?:\.\./)?((?:{PACKAGES})/[\w./-]+\.(?:py|md|ya?ml|jsonl?|jinja|sh|txt|svg))\b")
OF_USERS = {"data/rewards/jiuyi.py"}
"""Files of examples, which users write."""
OF_OTHERS = ROOT / "docs" / "comparison.md"
"""The page that names files of other projects."""
PAGES = [path for path in (*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))) if path != OF_OTHERS]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    named = set(NAMED.findall(page.read_text("utf-8"))) - OF_USERS
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_every_test_that_code_names_exists() -> None:
    missing = []
    for file in (path for package in PACKAGES.split("|") for path in (ROOT / package).rglob("*.py")):
        named = re.findall(r"\btests/[\w/]+\.py\b", file.read_text("utf-8"))
        missing += [f"{file.relative_to(ROOT)}: {name}" for name in named if not (ROOT / name).exists()]
    assert missing == []


def test_ci_lints_and_runs_all_tests() -> None:
    """An empty script passes, so CI itself would not notice that it runs nothing."""
    commands = [line for line in (ROOT / ".ci" / "run").read_text("utf-8").splitlines() if line.startswith("make ")]
    assert commands == ["make lint", "make test-all"]
