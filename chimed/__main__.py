"""chimed COMMAND [ARGUMENT ...]: runs a command of this project, from any folder."""

from __future__ import annotations

import difflib
import importlib.util
import runpy
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from chimed.commands import COMMANDS, GROUPS, usage

ENGINES = ("torch", "ray", "deepspeed", "transformers", "openrlhf")
INSTALL = "install"
"""The command that needs no engines."""
_SUPPORTED = ((3, 11), (3, 12))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command that the first argument names; returns 2 after one line on stderr if there is none.

    Args:
        argv: command-line arguments; default: those of this process.

    Raises:
        SystemExit: the command ended with an exit status.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `chimed --help | head` ends silently, as other programs do
        print(usage())
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        return _fail(f"{name}: no such command; " + (f"did you mean {close[0]}?" if close else "see chimed --help"))
    module = COMMANDS[name].module
    if name == INSTALL:
        from locks.install import main as install

        return install(rest, prog=f"chimed {INSTALL}")
    if problem := _environment_problem():
        return _fail(problem)
    from configs.program import use_chimed  # here, so that `chimed --help` needs no other package

    use_chimed({command.module: known for known, command in COMMANDS.items()})
    if name in GROUPS["training"]:
        _check_settings(name, rest)
    sys.argv = [module, *rest]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    return 0


def _check_settings(stage: str, arguments: Sequence[str]) -> None:
    """Checks a stage's settings before its module imports the engines, which takes seconds.

    Raises:
        SystemExit: 0 after the help, 2 after a line about an invalid setting.
    """
    from configs.base import load
    from configs.program import program
    from trainers.config.stages import STAGES

    load(stage, STAGES, arguments, program(COMMANDS[stage].module))


def _environment_problem() -> str | None:
    """Returns why this Python cannot run the commands, and what to do; None if it can."""
    if sys.version_info[:2] not in _SUPPORTED:
        supported = " or ".join(f"{major}.{minor}" for major, minor in _SUPPORTED)
        found = f"{sys.version_info[0]}.{sys.version_info[1]}"
        return (
            f"{sys.executable} is Python {found}, and the engines need {supported}: run make env, then .venv/bin/chimed"
        )
    missing = [name for name in ENGINES if importlib.util.find_spec(name) is None]
    if missing:
        checkout = (Path(__file__).parents[1] / "Makefile").is_file()
        how = "run make env, then .venv/bin/chimed" if checkout else f"run chimed {INSTALL}"
        return f"{sys.executable} has no {', '.join(missing)}: {how}"
    return None


def _fail(problem: str) -> int:
    print(f"chimed: error: {problem}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
