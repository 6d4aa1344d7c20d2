"""What this process evaluates on: its GPU, or CPUs."""

from __future__ import annotations

import os

_LOADED_WITH_TORCH = {
    # Threads that wait for each other by spinning take the cores from whoever computes.
    "OMP_WAIT_POLICY": "PASSIVE",
    "TORCH_CPP_LOG_LEVEL": "ERROR",  # vLLM's C++ greets with warnings about NUMA
}
"""Read once, when torch is loaded, which the modules of this package put off until they need it."""


def prepare_process() -> None:
    """Sets the environment that torch reads when it is loaded, where the user has not."""
    for name, value in _LOADED_WITH_TORCH.items():
        os.environ.setdefault(name, value)


def gpu_bytes() -> int | None:
    """Memory of the GPU that engines and reward models run on; None where they run on CPUs. Imports torch."""
    prepare_process()
    import torch

    return torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else None
