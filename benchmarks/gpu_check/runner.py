"""Runs checks in a separate process with time limits; a check that hangs or crashes does not affect the others."""

from __future__ import annotations

import gc
import multiprocessing
import os
import socket
import time
import traceback
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.gpu_check.checks import Check, SkippedError

CPU_PATIENCE = 5  # factor on a check's limit: sizes are small, but other processes may use the cores
START_LIMIT_S = 120.0  # for importing torch, Transformers, and DeepSpeed


def run_checks(checks: Sequence[Check], device: str) -> Iterator[dict[str, Any]]:
    """Yields the result of each check, in order.

    A result has `check`, `status` (passed, failed, or skipped), `seconds`, and the check's metrics or `error`.
    """
    left = list(checks)
    while left:
        for result in _in_one_process(left, device):
            left.pop(0)
            yield result


def _in_one_process(checks: list[Check], device: str) -> Iterator[dict[str, Any]]:
    """Yields results in order until all checks are done, or until one exceeds its time limit or ends the process."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(list(checks), device, theirs), daemon=True)
    process.start()
    theirs.close()
    current, began = checks[0], time.monotonic()
    try:
        _receive(ours, START_LIMIT_S)  # waits until the process is ready
        for current in tuple(checks):
            began = time.monotonic()
            yield _receive(ours, current.limit_s * (CPU_PATIENCE if device == "cpu" else 1))
    except TimeoutError as error:
        yield _failed(current, began, str(error))
    except EOFError:
        process.join(10)
        yield _failed(current, began, f"its process ended with status {process.exitcode}")
    finally:
        process.kill()
        process.join()


def _receive(connection: Connection, limit_s: float) -> Any:
    if not connection.poll(limit_s):
        raise TimeoutError(f"took longer than its limit of {limit_s:.0f} s")
    return connection.recv()


def _failed(check: Check, began: float, error: str) -> dict[str, Any]:
    return {"check": check.name, "status": "failed", "seconds": round(time.monotonic() - began, 2), "error": error}


def _work(checks: list[Check], device: str, results: Connection) -> None:
    """Main function of the child process: prepares it like a training rank, then runs the checks."""
    if device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    from actors.distributed.devices import join_world, prepare_process

    prepare_process(os.cpu_count() or 1)
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("gpu_check: torch sees no CUDA device; use --device cpu for the small sizes")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    join_world(0, 1, "127.0.0.1", port, 120.0)
    results.send("ready")
    for check in checks:
        results.send(_result(check, device == "cuda"))
    if torch.distributed.is_initialized():  # vLLM has ended it if an engine was checked
        torch.distributed.destroy_process_group()


def _result(check: Check, gpu: bool) -> dict[str, Any]:
    import torch

    began = time.monotonic()
    try:
        outcome = {"status": "passed", **check.run(gpu)}
    except SkippedError as reason:
        outcome = {"status": "skipped", "error": str(reason)}
    except Exception as error:  # noqa: BLE001  any exception is the check's result
        where = traceback.extract_tb(error.__traceback__)[-1]
        outcome = {"status": "failed", "error": f"{type(error).__name__}: {error} ({where.filename}:{where.lineno})"}
    gc.collect()
    if gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    return {"check": check.name, "seconds": round(time.monotonic() - began, 2), **outcome}
