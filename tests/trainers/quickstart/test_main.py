from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from trainers.quickstart.__main__ import main


def test_one_folder_holds_one_seed(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (runs / "quickstart").mkdir(parents=True)
    (runs / "quickstart" / "options.json").write_text('{"seed": 0, "config": "configs/laptop.yaml"}')
    with pytest.raises(SystemExit) as end:
        main(["--seed", "1"])
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert "was created with --seed 0, not 1" in error
    assert error.count("\n") == 1


def test_a_missing_recipe_is_refused_before_anything_is_made(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--config", "configs/desktop.yaml"])
    assert end.value.code == 2
    assert "configs/desktop.yaml" in capsys.readouterr().err
    assert not runs.exists()


def test_a_stop_reaches_the_part_that_runs(tmp_path: Path) -> None:
    (tmp_path / "part.py").write_text(
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit('told to stop'))\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    run = f"from configs.logs import configure; configure('trainers.quickstart'); from pathlib import Path; from trainers.quickstart.parts import Ledger; Ledger(Path({str(tmp_path / 'l')!r})).run('p', 'part')"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    with subprocess.Popen(
        [sys.executable, "-c", run], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        while process.stdout.readline() not in ("ready\n", ""):
            pass
        process.send_signal(signal.SIGTERM)
        output, error = process.communicate(timeout=60)
    assert process.returncode == 75
    assert output == ""
    assert re.fullmatch(
        r"told to stop\n\S+ INFO trainers.quickstart: stopped; run the same command to continue\n", error
    )
