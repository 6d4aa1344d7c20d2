"""The layout is the architecture: what may import what, and how large a piece may grow."""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LONGEST_FILE = 400
LONGEST_FUNCTION = 80
MOST_FILES = 15  # of a folder, without its __init__.py

MAY_IMPORT: dict[str, set[str]] = {
    "locks": set(),  # runs before anything is installed
    # Of configs, only modules without other imports: the table must be readable without anything installed.
    "chimed": {"configs", "locks"},
    "configs": set(),
    "storage": {"configs"},
    "reporting": set(),
    "data": {"reporting", "storage", "configs"},
    "cluster": {"storage", "configs"},
    "actors": {"cluster", "data", "storage", "configs"},
    "evals": {"actors", "cluster", "data", "reporting", "storage", "configs"},
    "serve": {"actors", "cluster", "data", "storage", "configs"},
    "trainers": {"actors", "cluster", "data", "reporting", "storage", "configs"},
    "benchmarks": {"trainers", "evals", "serve", "actors", "cluster", "data", "reporting", "storage", "configs"},
}
# The quickstart is the one command that runs every other: stages, then the table that the evaluations give.
# Training asks the evaluations how far it is, through one door.
# The preflight is the command of a cluster, but what is asked of it only the stages know; nothing imports it.
# The preparation of data is a command too, which may run on a cluster.
# `chimed` checks a stage's settings, whose types the trainers declare, before the stage's module imports the engines.
MAY_ALSO_IMPORT = {
    "chimed/__main__.py": {"trainers"},
    **{f"trainers/quickstart/{name}.py": {"evals"} for name in ("__main__", "page", "results", "show")},
    "trainers/runs/evaluation.py": {"evals"},
    "cluster/preflight/__main__.py": {"actors", "trainers"},
    "data/prepare/__main__.py": {"cluster"},
}
# Packages with one public interface, whose __init__ re-exports it.
DOORS = {"data/chat/__init__.py", "serve/requests/__init__.py"}
# Files that print the output of a command: results, tables, progress, `--help`, and the one line of an error. Everything
# else that a user should know is logged.
PRINT = {
    *("chimed/__main__.py", "configs/base.py", "configs/errors.py", "locks/install.py"),
    *(
        "data/clinic/__main__.py",
        "data/prepare/__main__.py",
        "data/prepare/privacy/score.py",
        "data/tokenizer/__main__.py",
    ),
    *("cluster/kuberay/check.py", "cluster/listeners.py", "cluster/status/__main__.py"),
    "serve/__main__.py",
    *(
        "trainers/ppo.py",
        "trainers/rejection/__main__.py",
        "trainers/supervised/driver.py",
        "trainers/runs/progress.py",
    ),
    *(
        "trainers/journal.py",
        "trainers/list_runs.py",
        "trainers/quickstart/__main__.py",
        "trainers/report.py",
        "trainers/vocabulary.py",
    ),
}

# Modules that another command of a benchmark runs in a separate process, with arguments that only it gives; and
# two that import nothing of the project and report their errors themselves.
NO_COMMANDS = {
    "chimed/__main__.py",
    "locks/install.py",
    *("benchmarks/ppo_step/bare.py", "benchmarks/ppo_step/trl_peer.py"),
    *("benchmarks/pretraining/bare.py", "benchmarks/pretraining/trainer_peer.py"),
    "benchmarks/serving/endpoint.py",
}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def sources() -> list[Path]:
    return [path for package in MAY_IMPORT for path in sorted((ROOT / package).rglob("*.py"))]


def checks() -> list[Path]:
    return sorted((ROOT / "tests").rglob("*.py"))


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and top-level name of every import in a file, inside functions too."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.split(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            yield node.lineno, (node.module or "").split(".")[0]


def modules(path: Path) -> Iterator[str]:
    """The modules that a file imports, in full, inside functions too."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_packages_are_those_of_the_layout():
    folders = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert folders <= set(MAY_IMPORT)
    checked = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["mypy"]["packages"]
    assert set(checked) == {*folders, "tests"}


def test_imports_run_one_way():
    wrong = []
    for path in sources():
        name = path.relative_to(ROOT).as_posix()
        package = name.split("/")[0]
        allowed = {package} | MAY_IMPORT[package] | MAY_ALSO_IMPORT.get(name, set())
        wrong += [f"{name}:{line}: {top}" for line, top in imported(path) if top in MAY_IMPORT and top not in allowed]
    assert wrong == []


def test_rays_private_modules_have_one_door():
    private = re.compile(r"\bray\.(_private|_common|_raylet|core\.generated|serve\._private|llm\._internal)\b")
    serve = {"serve/replica.py", "serve/engines/in_process.py", "serve/engines/deployment.py"}
    users = {
        path.relative_to(ROOT).as_posix()
        for path in sources()
        if any(private.search(line.partition("#")[0]) for line in path.read_text(encoding="utf-8").splitlines())
    }
    assert users == {"cluster/ray_internals.py", *serve}


def test_only_the_output_of_a_command_is_printed():
    """All packages but `benchmarks`, whose files print what they measure."""
    printing = {
        path.relative_to(ROOT).as_posix()
        for path in sources()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    }
    assert {name for name in printing if not name.startswith("benchmarks/")} == PRINT


def runs_as_command(path: Path) -> bool:
    return any(isinstance(node, ast.If) and "'__main__'" in ast.unparse(node.test) for node in tree(path).body)


def has_one_line_errors(path: Path) -> bool:
    """Whether the function `main` of a file is within `one_line_errors`, but for the parsing of its arguments."""
    mains = [node for node in tree(path).body if isinstance(node, ast.FunctionDef) and node.name == "main"]
    blocks = [node for main in mains for node in main.body if isinstance(node, ast.With)]
    return any("one_line_errors(" in ast.unparse(item.context_expr) for block in blocks for item in block.items)


def mains_called_by(path: Path) -> Iterator[Path]:
    """The files whose `main` a file calls as `module.main(...)`."""
    called = {
        node.func.value.id
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "main"
        if isinstance(node.func.value, ast.Name)
    }
    for module in modules(path):
        if module.rpartition(".")[2] in called:
            yield ROOT.joinpath(*module.split(".")).with_suffix(".py")


def test_every_command_reports_errors_and_ctrl_c_in_one_line():
    commands = [path for path in sources() if runs_as_command(path)]
    without = {
        path.relative_to(ROOT).as_posix()
        for path in commands
        if not any(map(has_one_line_errors, [path, *mains_called_by(path)]))
    }
    assert len(commands) > 30
    assert without == NO_COMMANDS


def test_no_folder_is_crowded():
    files = Counter(path.parent for path in sources() if path.name != "__init__.py")
    assert {str(folder.relative_to(ROOT)): count for folder, count in files.items() if count > MOST_FILES} == {}


def test_rooms_of_a_package_form_no_circle():
    """A room is a folder within a package; files next to the rooms, or above a room, belong to the package."""
    rooms = {path: path.relative_to(ROOT).parent for path in sources()}
    folders = set(rooms.values())
    needs: dict[Path, set[Path]] = {}
    for path, room in rooms.items():
        for module in modules(path):
            file = ROOT.joinpath(*module.split(".")).with_suffix(".py")
            to = rooms.get(file, Path(*module.split(".")) if Path(*module.split(".")) in folders else room)
            if to.parts[0] == room.parts[0] and to not in (room, *room.parents) and room not in to.parents:
                needs.setdefault(room, set()).add(to)
    graphlib.TopologicalSorter({room: sorted(others) for room, others in needs.items()}).prepare()


def test_importing_a_package_imports_nothing():
    for path in sources():
        if path.name == "__init__.py" and path.relative_to(ROOT).as_posix() not in DOORS:
            body = tree(path).body
            assert all(isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in body), path


def test_files_and_functions_stay_readable():
    long = []
    for path in [*sources(), *checks()]:
        length = len(path.read_text(encoding="utf-8").splitlines())
        if length > LONGEST_FILE:
            long.append(f"{path.relative_to(ROOT)}: {length} lines")
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > LONGEST_FUNCTION:
                    long.append(f"{path.relative_to(ROOT)}:{node.lineno}: {node.name} has {length} lines")
    assert long == []


def test_tests_lie_where_their_file_is():
    for path in checks():
        name = path.relative_to(ROOT / "tests")
        assert path.name != "__init__.py", f"{name}: another distribution installs a package named tests"
        if name.parent != Path() and path.name.startswith("test_"):
            mirrored = ROOT / name.parent
            assert mirrored.is_dir(), f"{name}: there is no package {name.parent}"


@pytest.mark.parametrize("module", ["configs.base", "trainers.config"])
def test_reading_settings_loads_no_engine(module):
    code = f"import {module}, sys; print([m for m in ('torch', 'ray', 'vllm', 'transformers') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    "module", ["actors.roles.reward_function", "actors.roles.rollout", "trainers.ppo", "trainers.sft"]
)
def test_a_driver_imports_no_models(module):
    """Ten seconds that only processes with a model need; a command with a wrong setting fails before they pass."""
    heavy = ("transformers.modeling_utils", "torch._dynamo", "torch._inductor", "deepspeed", "vllm", "sklearn")
    code = f"import {module}, sys; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == "[]\n"
