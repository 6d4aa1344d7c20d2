from __future__ import annotations

from pathlib import Path

import pytest

from trainers.quickstart import main


def test_one_folder_holds_one_seed(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (runs / "quickstart").mkdir(parents=True)
    (runs / "quickstart" / "options.json").write_text('{"seed": 0, "config": "configs/laptop.yaml"}')
    with pytest.raises(SystemExit) as end:
        main(["--seed", "1"])
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert "was made with --seed 0, not 1" in error
    assert error.count("\n") == 1


def test_a_missing_recipe_is_refused_before_anything_is_made(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--config", "configs/desktop.yaml"])
    assert end.value.code == 2
    assert "configs/desktop.yaml" in capsys.readouterr().err
    assert not runs.exists()
