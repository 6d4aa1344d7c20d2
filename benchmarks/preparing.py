"""python -m benchmarks.preparing --input PATH … [--megabytes 2000]: speed and memory of data.prepare on a large text.

The input repeats the given files: in each round, a random share of every document's characters is replaced by others,
so that some documents are exact duplicates of an earlier one, some are near duplicates, and some are neither. With
`--megabytes 0`, the files are used unchanged. The command then runs as a user would run it. Prints JSON: MB/s of the
whole command including startup, and the peak memory of the command and its workers together, as the sum of their
resident set sizes (shared pages are counted in each process) and of their proportional set sizes (shared pages are
counted once). The latter are polled only once per second, because the system walks all pages to compute them: with
continuous polling, this would be a quarter of the work for a small input.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil
from numpy.typing import NDArray

from cluster.memory import process_bytes, status_bytes
from configs.errors import RunError, one_line_errors
from data.prepare.options import Options
from data.prepare.reading.readers import read
from data.prepare.reading.sources import describe, find_files, pieces_of

PROG: Final = "python -m benchmarks.preparing"
MB: Final = 1_000_000
FILE_BYTES: Final = 100 * MB
SHARES: Final = (0.0, 0.005, 0.02, 0.1, 0.4)
"""Shares of a document's characters that are replaced in a copy; below 0.02, most copies are near duplicates."""
_KEPT: Final = re.compile("<目录>|<篇名>|内容：")
_EVERY_S: Final = 0.1
_LOOKS: Final = 10  # polls of resident sets per poll of proportional set sizes

Codes = NDArray[np.uint32]  # characters, (C,)


def main(arguments: list[str] | None = None) -> None:
    """Makes the input, runs the command, and prints the measurements."""
    parser = argparse.ArgumentParser(prog=PROG, description=(__doc__ or "").split("\n", 1)[1])
    parser.add_argument("--input", nargs="+", required=True, metavar="PATH", help="text files to begin with")
    parser.add_argument(
        "--megabytes", type=int, default=2000, help="size of the input to make; 0: the files as they are"
    )
    parser.add_argument("--seed", type=int, default=0, help="of what is replaced (default: 0)")
    parser.add_argument("--folder", type=Path, help="where input and output lie meanwhile; default: a temporary folder")
    parser.add_argument("--json", type=Path, help="also write the metrics there")
    parser.add_argument("rest", nargs="*", metavar="-- OPTION …", help="options of data.prepare, such as --workers 2")
    given = parser.parse_args(arguments)
    with one_line_errors(PROG), tempfile.TemporaryDirectory(prefix="preparing.", dir=given.folder) as folder:
        inputs = given.input
        if given.megabytes:
            made = Path(folder, "input")
            make_input(find_files(given.input)[0], made, given.megabytes * MB, given.seed)
            inputs = [str(made)]
        metrics = measure(inputs, Path(folder, "out"), given.rest)
    text = json.dumps(metrics, indent=1, ensure_ascii=False)
    if given.json:
        given.json.write_text(text + "\n", "utf-8")
    print(text)


def make_input(files: Iterable[str], folder: Path, size: int, seed: int) -> None:
    """Writes GB18030 text files of about `size` bytes in total to `folder`."""
    documents = [
        found.record["text"]
        for file in files
        for piece in pieces_of(describe(file))
        for found in read(piece, Options("text"))
        if not found.bad
    ]
    whole = "\n".join([*documents, ""])
    lengths = np.array([len(document) + 1 for document in documents])
    codes = np.frombuffer(whole.encode("utf-32-le"), np.uint32)
    free = (codes >= 0x4E00) & (codes < 0xA000)
    for mark in _KEPT.finditer(whole):
        free[mark.start() : mark.end()] = False
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    written = index = 0
    while written < size:
        with Path(folder, f"{index:04}.txt").open("wb") as file:
            while file.tell() < FILE_BYTES and written < size:
                content = varied(codes, free, lengths, rng).tobytes().decode("utf-32-le").encode("gb18030")
                content = content[: content.rfind(b"\n", 0, size - written) + 1]
                file.write(content)
                written += max(len(content), 1)
        index += 1


def varied(codes: Codes, free: NDArray[np.bool_], lengths: NDArray[np.int64], rng: np.random.Generator) -> Codes:
    """Replaces a share of each document's `free` characters, drawn from `SHARES`, with other characters of the text.

    Args:
        codes: the C characters of all D documents, concatenated, (C,).
        free: which of them may be replaced, (C,).
        lengths: number of characters of each document, (D,).
        rng: the random number generator.

    Returns:
        The characters after replacement, (C,).
    """
    chances = np.repeat(rng.choice(np.array(SHARES, np.float32), len(lengths)), lengths)
    change = free & (rng.random(len(codes), dtype=np.float32) < chances)
    new = codes.copy()
    new[change] = rng.choice(codes[free], int(change.sum()))
    return new


def measure(inputs: list[str], out: Path, options: list[str]) -> dict[str, Any]:
    """Runs data.prepare and measures its time and memory.

    Raises:
        RunError: data.prepare failed.
    """
    command = [sys.executable, "-m", "data.prepare", "--kind", "text", "--out", str(out), *options, "--input", *inputs]
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    watched = psutil.Process(process.pid)
    resident = proportional = processes = looks = 0
    while process.poll() is None:
        pids = [process.pid, *_children(watched)]
        found = [size for pid in pids if (size := status_bytes(pid, "VmRSS"))]
        resident, processes = max(resident, sum(found)), max(processes, len(found))
        if looks % _LOOKS == 0:
            proportional = max(proportional, sum(map(process_bytes, pids)))
        looks += 1
        time.sleep(_EVERY_S)
    seconds = time.monotonic() - began
    if process.returncode:
        raise RunError(f"data.prepare ended with status {process.returncode}; its output is above")
    report = json.loads((out / "_report.json").read_text("utf-8"))
    size = sum(Path(file).stat().st_size for file in find_files(inputs)[0])
    return {
        "input_mb": round(size / MB, 1),
        "seconds": round(seconds, 2),
        "mb_per_s": round(size / MB / seconds, 2),
        "peak_resident_mib": round(resident / 2**20),
        "peak_proportional_mib": round(proportional / 2**20),
        "processes": processes,
        **{key: report[key] for key in ("records", "rows", "bad", "removed")},
    }


def _children(process: psutil.Process) -> list[int]:
    try:
        return [child.pid for child in process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


if __name__ == "__main__":
    main()
