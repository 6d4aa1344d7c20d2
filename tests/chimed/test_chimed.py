"""The command `chimed`: the same as `python -m`, from any folder, and one line when it cannot run."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from chimed import __main__ as command
from chimed.commands import COMMANDS, usage

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = (
    "import sys; from chimed.__main__ import main; sys.exit(main())"  # what .venv/bin/chimed and a wheel's script do
)


def chimed(*arguments: str, cwd: Path = ROOT, python: str = sys.executable) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"}  # a script's folder is not the user's
    return subprocess.run(
        [python, "-c", SCRIPT, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_a_module_that_can_be_run(name: str) -> None:
    spec = find_spec(COMMANDS[name].module)
    assert spec is not None
    if spec.submodule_search_locations:
        spec = find_spec(f"{COMMANDS[name].module}.__main__")
    assert spec is not None
    assert spec.origin is not None
    blocks = [node for node in ast.parse(Path(spec.origin).read_text()).body if isinstance(node, ast.If)]
    assert any("__main__" in ast.unparse(block.test) for block in blocks)


def test_help_lists_every_command_and_imports_nothing_else() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "chimed", "--help"],
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert done.stdout == usage() + "\n"
    assert all(f"  {name} " in done.stdout for name in COMMANDS)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not imported & {"numpy", "pyarrow", "pydantic", "ray", "torch", "configs", "trainers"}


@pytest.mark.parametrize(
    ("arguments", "status", "printed"),
    [
        (["--help"], 0, "usage: chimed sft "),
        (["--batchsize=4"], 2, "chimed sft: error: --batchsize=4: "),
        (["--config=configs/laptop.yaml", "--batch_size=-1"], 2, "chimed sft: error: --batch_size=-1: "),
    ],
)
def test_settings_of_a_stage_are_checked_before_the_engines_are_imported(
    arguments: list[str], status: int, printed: str
) -> None:
    code = f"""
import sys
from chimed.__main__ import main
try:
    main(["sft", *{arguments}])
except SystemExit as ended:
    print([name for name in ("ray", "torch", "transformers", "vllm") if name in sys.modules], ended.code)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines()[-1] == f"[] {status}"
    assert (done.stderr or done.stdout).startswith(printed)


def test_packages_of_the_same_names_in_the_users_folder_do_not_matter(tmp_path: Path) -> None:
    for name in ("data", "configs", "trainers", "cluster"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('the wrong package')")
    done = chimed("journal", "show", "nothing", cwd=tmp_path)
    assert done.returncode != 0
    assert done.stderr.startswith("chimed journal: error: ")
    assert "wrong package" not in done.stderr


EVERY_COMMAND = """
import contextlib, io, json, runpy, sys
from chimed.__main__ import main
from chimed.commands import COMMANDS

def run(name, *arguments):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            if CHIMED:
                main([name, *arguments])
            else:
                sys.argv = [COMMANDS[name].module, *arguments]
                runpy.run_module(COMMANDS[name].module, run_name="__main__", alter_sys=True)
        except SystemExit as ended:
            return ended.code, out.getvalue(), err.getvalue()

print(json.dumps({name: [run(name, "--help"), run(name, "--nosuch")] for name in COMMANDS}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("as_chimed", [True, False])
def test_help_and_errors_name_the_command_as_it_was_started(as_chimed: bool) -> None:
    """All commands in one process, because each imports much of what the others import."""
    code = EVERY_COMMAND.replace("CHIMED", str(as_chimed))
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert list(said) == list(COMMANDS)
    modules = {found.module for found in COMMANDS.values()}
    for name, ((status, text, _), (refused, _, error)) in said.items():
        prog = f"chimed {name}" if as_chimed else f"python -m {COMMANDS[name].module}"
        assert status == 0
        assert re.match(rf"usage: {re.escape(prog)} ", text), text[:100]
        if as_chimed:
            assert not modules & set(re.findall(r"python -m ([\w.]+\w)", text)), name
        assert refused == 2, name
        (line,) = error.splitlines()
        assert line.startswith(f"{prog}: error: "), line
        assert "--nosuch" in line


@pytest.mark.parametrize(
    ("name", "said"), [("pppo", "did you mean ppo?"), ("translate", "see chimed --help"), ("--config=x", "see chimed")]
)
def test_an_unknown_command_is_one_line(name: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([name]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"chimed: error: {name}: no such command; {said}")
    assert error.count("\n") == 1


def test_another_python_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(command, "ENGINES", ("torch", "an_engine_that_is_missing"))
    assert command.main(["ppo"]) == 2
    missing = f"chimed: error: {sys.executable} has no an_engine_that_is_missing: run make env, then .venv/bin/chimed\n"
    assert capsys.readouterr().err == missing
    monkeypatch.setattr(command, "_SUPPORTED", ((3, 9),))
    assert command.main(["ppo"]) == 2
    assert "and the engines need 3.9: run make env, then .venv/bin/chimed\n" in capsys.readouterr().err
