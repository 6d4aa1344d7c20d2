from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest

from cluster.preflight.versions import versions


def test_this_environment_is_the_locked_one() -> None:
    (finding,) = versions()
    assert finding.level == "fits"
    assert "ray, torch" in finding.text


def test_a_package_that_drifted_is_named(tmp_path: Path) -> None:
    lock = (Path(__file__).parents[3] / "locks" / "cpu.txt").read_text(encoding="utf-8")
    ray = metadata.version("ray")
    (tmp_path / "cpu.txt").write_text(lock.replace(f"ray=={ray}", "ray==1.0.0"), encoding="utf-8")
    (finding,) = versions(tmp_path)
    assert (finding.level, finding.text) == ("refused", f"ray {ray}, but locks/cpu.txt has 1.0.0; run make env")


def test_without_an_engine_nothing_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.preflight.versions.ENGINES", {"no-such-engine": "cpu.txt"})
    (finding,) = versions()
    assert finding.text == "no engine is installed (no-such-engine); run make env"
