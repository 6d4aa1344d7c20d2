"""The device on which this process evaluates models: its GPU, or the CPUs."""

from __future__ import annotations

import os

_LOADED_WITH_TORCH = {
    # Threads that spin while waiting take CPU time from threads that compute.
    "OMP_WAIT_POLICY": "PASSIVE",
    "TORCH_CPP_LOG_LEVEL": "ERROR",  # suppresses vLLM's C++ startup warnings about NUMA
}
"""Environment variables that torch reads once, when it is imported; this package imports torch only where needed."""


def prepare_process() -> None:
    """Sets the environment variables that torch reads at import, unless the user has set them."""
    for name, value in _LOADED_WITH_TORCH.items():
        os.environ.setdefault(name, value)


def gpu_bytes() -> int | None:
    """Returns the total memory of GPU 0, in bytes; None if there is no GPU. Imports torch."""
    prepare_process()
    import torch

    return torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else None
