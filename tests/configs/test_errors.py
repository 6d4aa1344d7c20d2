"""How a command ends that was asked for something impossible, and what this costs those who only need that."""

from __future__ import annotations

import subprocess
import sys

import pytest

from configs.errors import ConfigError, RunError, first_line, one_line_errors


@pytest.mark.parametrize(
    ("error", "line", "status"),
    [
        (ConfigError("steps:\n  is 0;\tgive at least 1"), "prog: error: steps: is 0; give at least 1\n", 2),
        (RunError("Ray said:\nthe disk is full"), "prog: error: Ray said: the disk is full\n", 1),
    ],
)
def test_a_command_ends_in_one_line(error, line, status, capsys):
    with pytest.raises(SystemExit) as ended, one_line_errors("prog"):
        raise error
    assert ended.value.code == status
    assert capsys.readouterr() == ("", line)


def test_the_first_line_of_an_error_is_its_type_if_it_says_nothing():
    assert first_line(ValueError("no such file\nTraceback")) == "no such file"
    assert first_line(TimeoutError()) == "TimeoutError"


def test_other_errors_keep_their_traceback():
    with pytest.raises(KeyError), one_line_errors("prog"):
        raise KeyError("a defect")


def test_a_command_without_recipe_loads_no_pydantic():
    found = "import sys, data.prepare.__main__; print([name for name in ('pydantic', 'torch', 'ray') if name in sys.modules])"
    told = subprocess.run([sys.executable, "-c", found], stdout=subprocess.PIPE, text=True, check=True, timeout=60)
    assert told.stdout.strip() == "[]"


@pytest.mark.parametrize("lines", [1, 100_000])  # what Python flushes at the end, and what fails on the way
def test_a_command_ends_silently_when_nothing_reads_its_output(lines):
    code = f"""
from configs.errors import one_line_errors
input()
with one_line_errors("prog"):
    for _ in range({lines}):
        print("a line")
"""
    command = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert command.stdout is not None
    command.stdout.close()
    command.stdout = None
    _, error = command.communicate(b"\n", timeout=60)
    assert (command.returncode, error) == (141, b"")


def test_another_broken_pipe_keeps_its_traceback():
    with pytest.raises(BrokenPipeError, match="a socket"), one_line_errors("prog"):
        raise BrokenPipeError("a socket")
