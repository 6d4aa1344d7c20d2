from __future__ import annotations

import logging
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from configs.logs import configure, logging_context

ROOT = Path(__file__).resolve().parents[2]
LINE = r"\d\d:\d\d:\d\d {} {}: {}\n"


def test_a_record_is_one_line_with_stage_and_run(capsys: pytest.CaptureFixture[str]) -> None:
    configure("ppo", "demo")
    logging.getLogger("trainers.rlhf.recovery").warning("step %d: lost\nand replaced", 3)
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(LINE.format("WARNING", "ppo runs/demo", "step 3: lost and replaced"), err), err


def test_a_command_without_a_run_gives_its_stage_only(capsys: pytest.CaptureFixture[str]) -> None:
    configure("evals.run")
    logging.getLogger("evals.run").info("sft: loaded")
    logging.getLogger("evals.run").debug("not shown")
    assert re.fullmatch(LINE.format("INFO", "evals.run", "sft: loaded"), capsys.readouterr().err)


def test_a_second_call_changes_the_context_and_repeats_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure("ppo", "first")
    configure("sft", "second")
    logging.getLogger("data.hub").info("downloading")
    assert re.fullmatch(LINE.format("INFO", "sft runs/second", "downloading"), capsys.readouterr().err)


def test_a_stage_within_a_command_has_its_own_context_in_all_threads(capsys: pytest.CaptureFixture[str]) -> None:
    configure("rejection", "r")
    logger = logging.getLogger("trainers.supervised.metrics_channel")
    with logging_context("sft", "r/round-0/sft"):
        thread = threading.Thread(target=logger.warning, args=("workers were replaced",))
        thread.start()
        thread.join()
    logger.info("after")
    first, second = capsys.readouterr().err.splitlines()
    assert first.endswith(" WARNING sft runs/r/round-0/sft: workers were replaced")
    assert second.endswith(" INFO rejection runs/r: after")


def test_a_handler_of_the_root_logger_repeats_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    console = logging.StreamHandler(sys.stderr)  # such as Ray Train's in its workers
    root.addHandler(console)
    try:
        configure("sft-0", "t")
        logging.getLogger("actors.zero.loading").info("whole")
    finally:
        root.removeHandler(console)
    assert capsys.readouterr().err.count("whole") == 1


def test_other_libraries_and_the_root_logger_are_left_alone() -> None:
    root, other = logging.getLogger(), logging.getLogger("transformers")
    before = [(logger.level, list(logger.handlers), logger.propagate) for logger in (root, other)]
    configure("ppo", "demo")
    assert [(logger.level, list(logger.handlers), logger.propagate) for logger in (root, other)] == before


def test_caplog_has_the_records_of_a_function(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("storage.checksummed").info("put aside")
    assert caplog.messages == ["put aside"]


def test_a_command_logs_from_the_module_that_python_runs(tmp_path: Path) -> None:
    (tmp_path / "command.py").write_text(
        "import logging\nfrom configs.logs import configure\n"
        "configure('command')\nlogging.getLogger(__name__).info('started')\nprint('result')\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "command"],
        env={"PYTHONPATH": f"{tmp_path}:{ROOT}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "result\n"
    assert re.fullmatch(LINE.format("INFO", "command", "started"), done.stderr)
