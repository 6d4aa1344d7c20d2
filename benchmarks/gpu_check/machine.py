"""Measures the speed of the device itself."""

from __future__ import annotations

from typing import Any

import torch

from actors.distributed.devices import device
from benchmarks.gpu_check.timing import seconds_of


def machine(gpu: bool) -> dict[str, Any]:
    """Returns the rates of matrix products in TFLOP/s and of copies in GB/s.

    A copy on the device counts bytes read plus bytes written; a copy to or from the host counts bytes moved.
    """
    size, count = (8192, 2**28) if gpu else (512, 2**22)  # count: fp32 elements, 1 GiB on a GPU
    found: dict[str, Any] = {"torch": torch.__version__, "device": "cpu"}
    if gpu:
        properties = torch.cuda.get_device_properties(0)
        found |= {"device": properties.name, "memory_gib": round(properties.total_memory / 2**30, 1)}
        found |= {"capability": f"{properties.major}.{properties.minor}", "cuda": torch.version.cuda}
    for dtype in (torch.bfloat16, torch.float32):
        left, right = (torch.randn(size, size, device=device(), dtype=dtype) for _ in range(2))
        seconds = seconds_of(lambda left=left, right=right: left @ right)  # type: ignore[misc]
        found[f"matmul_tflops_{str(dtype).removeprefix('torch.')}"] = round(2 * size**3 / seconds / 1e12, 2)
    data = torch.randn(count, device=device())
    target = torch.empty_like(data)
    gigabytes = data.nbytes / 1e9
    found["copy_on_device_gbs"] = round(2 * gigabytes / seconds_of(lambda: target.copy_(data)), 1)
    if gpu:
        for kind in ("pageable", "pinned"):
            host = torch.empty(count, pin_memory=kind == "pinned")
            found[f"to_host_{kind}_gbs"] = round(gigabytes / seconds_of(lambda h=host: h.copy_(data), 3), 1)  # type: ignore[misc]
            found[f"to_device_{kind}_gbs"] = round(gigabytes / seconds_of(lambda h=host: data.copy_(h), 3), 1)  # type: ignore[misc]
    return found
