"""The folder of all runs, and checks with one-line errors that files and folders exist.

Recipes name inputs and outputs `runs/...`, whatever the machine; `resolve` maps these names to local paths.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from configs.errors import ConfigError
from configs.suggestions import did_you_mean

RUNS_VARIABLE = "CHIMED_RUNS"

# Ray sets this for the driver of a submitted job (ray._private.runtime_env.constants): the driver's settings, as JSON.
JOB_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"


def runs_root() -> Path:
    """Returns the absolute path of the folder that holds every run.

    This is `$CHIMED_RUNS` if set, else `./runs`. The driver of a submitted job, however, works in a copy of the
    project that Ray deletes afterwards; there the default is the `runs` folder next to the project's virtual
    environment.

    Raises:
        ConfigError: the variable is not set, and the process runs in a job whose Python is not from a project's
            `.venv`, so that no persistent folder is known.
    """
    if chosen := os.environ.get(RUNS_VARIABLE):
        return Path(chosen).expanduser().absolute()
    if not in_job():
        return Path("runs").absolute()
    environment = Path(sys.prefix)
    if environment.name == ".venv" and (environment.parent / "pyproject.toml").is_file():
        return environment.parent / "runs"
    raise ConfigError(
        f"{RUNS_VARIABLE} is not set, and a job's working folder is deleted when the job ends: set it to a persistent folder, "
        f'e.g. ray job submit --runtime-env-json \'{{"env_vars": {{"{RUNS_VARIABLE}": "/shared/runs"}}}}\' ...'
    )


def in_job() -> bool:
    """Returns whether this process is the driver of a submitted job, or works in the project copy that Ray made."""
    return JOB_VARIABLE in os.environ or {"runtime_resources", "working_dir_files"} <= set(Path.cwd().parts)


def resolve(path: str | Path) -> Path:
    """Returns `path` with a leading `runs/` replaced by `runs_root()`."""
    path = Path(path)
    if path.parts[:1] != ("runs",):
        return path
    return runs_root().joinpath(*path.parts[1:])


def table_path(name: str | Path) -> str | Path:
    """Returns `name` unchanged if it is a URL, such as hf://datasets/org/name; otherwise resolves it."""
    return name if "://" in str(name) else resolve(name)


def require_file(path: str | Path, what: str, hint: str) -> Path:
    """Returns the resolved path of a file, which must exist and be readable.

    Args:
        path: the path as given in a recipe.
        what: what the file is for, e.g. "SFT table".
        hint: what to do when it is missing, e.g. "make it with python -m data.clinic".

    Raises:
        ConfigError: the file does not exist, is a folder, or cannot be read.
    """
    return _require(path, what, hint, folder=False)


def require_dir(path: str | Path, what: str, hint: str) -> Path:
    """Returns the resolved path of a folder, which must exist, like `require_file`."""
    return _require(path, what, hint, folder=True)


def _similar(path: Path) -> str:
    """Returns a suggestion if the first missing part of `path` is close to a name that exists."""
    missing = next((part for part in (*reversed(path.parents), path) if not part.exists()), path)
    try:
        return did_you_mean(missing.name, [entry.name for entry in missing.parent.iterdir()])
    except OSError:  # the parent is a file, or cannot be listed
        return ""


def _require(path: str | Path, what: str, hint: str, *, folder: bool) -> Path:
    found = resolve(path)
    kind = "folder" if folder else "file"
    if not found.exists():
        raise ConfigError(f"{what}: there is no {kind} {found}{_similar(found)}; {hint}")
    if found.is_dir() != folder:
        raise ConfigError(f"{what}: {found} is not a {kind}; {hint}")
    if not os.access(found, os.R_OK | (os.X_OK if folder else 0)):
        raise ConfigError(f"{what}: no permission to read {found}; change its permissions")
    return found
