"""The GPU memory of a vLLM engine, which it can free for other processes: vLLM's sleep mode."""

from __future__ import annotations

from typing import Any

import torch

from actors.config import SleepLevel
from actors.device_memory import ORDER, Resident


class EngineMemory:
    """What an engine holds on its GPUs: "weights" is enough to load weights, but not to generate.

    vLLM has no sleep mode on CPUs. There, an engine keeps its memory, and only refuses what it would refuse on GPUs.

    Args:
        llm: the engine; on GPUs, its `enable_sleep_mode` is set unless `level` is 0.
        level: the sleep level.
    """

    def __init__(self, llm: Any, level: SleepLevel) -> None:
        self._llm, self._level = llm, level
        self.resident: Resident = "all"

    def hold(self, resident: Resident) -> None:
        """Frees or restores memory, so that the engine holds `resident`. No request may be running."""
        if not self._level:
            raise RuntimeError("the engine was started without a sleep level, so it cannot free its memory")
        if resident == self.resident:
            return
        # vLLM's own methods for this do not free the weights of an engine that holds these alone.
        if ORDER.index(resident) < ORDER.index(self.resident):
            self._llm.reset_prefix_cache()
            self._call("sleep", level=self._level)
        if resident != "nothing":
            self._call("wake_up", tags=["weights"] if resident == "weights" else None)
        self.resident = resident

    def require_all(self) -> None:
        """Requires that the engine holds everything.

        Raises:
            RuntimeError: it does not.
        """
        if self.resident != "all":
            raise RuntimeError(
                f"the engine must hold all its memory, but holds {self.resident}: call hold('all') first"
            )

    def _call(self, method: str, **arguments: Any) -> None:
        if torch.cuda.is_available():
            self._llm.collective_rpc(method, kwargs=arguments)
