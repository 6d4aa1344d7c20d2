"""Documented and shipped ways of starting Ray ask for a token, or listen on loopback only."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
DEPLOYMENTS = sorted(
    path
    for pattern in ("*.yaml", "*.yml", "*.env", "*ockerfile*")
    for folder in ("cluster", "serve", "configs")
    for path in (ROOT / folder).rglob(pattern)
)
OPENED = re.compile(r"\b(?:RAY_AUTH_MODE|mode|auth\w*)\b\W+(?:\w+\W+)?disabled\b", re.IGNORECASE)
LOOPBACK = re.compile(r"127\.0\.0\.1|loopback")
BLOCK = re.compile(r"```bash\n(.*?)```", re.DOTALL)
SWITCH, ADDRESS = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0", "--node-ip-address=127.0.0.1"


def unsafe_lines(text: str) -> list[str]:
    """Lines that turn authentication off and do not speak of loopback."""
    return [line for line in text.splitlines() if OPENED.search(line) and not LOOPBACK.search(line)]


def unsafe_starts(text: str) -> list[str]:
    """Lines of shell blocks that start a head which neither asks for a token nor stays on loopback."""
    found = []
    for block in BLOCK.findall(text):
        closed = "RAY_AUTH_MODE=token" in block
        for line in block.splitlines():
            on_loopback = SWITCH in block and ADDRESS in line  # the option alone does not suffice, see docs/security.md
            if "ray start" in line and not closed and not on_loopback:
                found.append(line)
    return found


@pytest.mark.parametrize("path", [*DOCUMENTS, *DEPLOYMENTS], ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_text_opens_ray_to_the_network(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert unsafe_lines(text) == []
    assert unsafe_starts(text) == []


def test_the_scan_finds_what_it_looks_for() -> None:
    opened = "```bash\nexport RAY_AUTH_MODE=disabled\nray start --head\n```\n"
    assert unsafe_lines(opened) == ["export RAY_AUTH_MODE=disabled"]
    for line in ("authOptions: {mode: disabled}", "  mode: disabled", "authentication is disabled", "auth disabled"):
        assert unsafe_lines(line) == [line]
    assert unsafe_lines("its `eval` command is disabled") == []
    assert unsafe_starts(opened) == ["ray start --head"]
    assert unsafe_starts(f"```bash\nray start --head {ADDRESS}\n```\n") == [f"ray start --head {ADDRESS}"]
    assert unsafe_starts(f"```bash\nexport {SWITCH}\nray start --head {ADDRESS}\n```\n") == []
    assert unsafe_starts("```bash\nexport RAY_AUTH_MODE=token\nray start --head\n```\n") == []


def test_every_manifest_of_a_cluster_asks_for_a_token() -> None:
    clusters = [
        document
        for path in DEPLOYMENTS
        if path.suffix in (".yaml", ".yml")
        for document in yaml.safe_load_all(path.read_text(encoding="utf-8"))
        if isinstance(document, dict) and document.get("kind") == "RayCluster" and "headGroupSpec" in document["spec"]
    ]
    assert [cluster["spec"]["authOptions"] for cluster in clusters] == [{"mode": "token"}]


def test_only_clusters_on_loopback_are_started_without_a_token() -> None:
    packages = ("actors", "cluster", "configs", "data", "evals", "serve", "trainers")
    using = {
        path.relative_to(ROOT).as_posix()
        for package in packages
        for path in (ROOT / package).rglob("*.py")
        if re.search(r"RAY_AUTH_MODE\W+disabled", path.read_text(encoding="utf-8"))
    }
    assert using == {"cluster/environment.py"}  # LOOPBACK
