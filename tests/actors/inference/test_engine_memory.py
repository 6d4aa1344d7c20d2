from __future__ import annotations

from typing import Any

import pytest
import torch

from actors.device_memory import Resident
from actors.inference.engine_memory import EngineMemory


class Llm:
    """Stands for vLLM on a GPU: notes what it is asked to do."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def reset_prefix_cache(self) -> None:
        self.asked.append("forget")

    def collective_rpc(self, method: str, kwargs: dict[str, Any]) -> None:
        self.asked.append((method, *kwargs.values()))


FREE = ["forget", ("sleep", 2)]


@pytest.mark.parametrize(
    ("before", "after", "asked"),
    [
        ("all", "all", []),
        ("all", "nothing", FREE),
        ("all", "weights", [*FREE, ("wake_up", ["weights"])]),
        ("weights", "nothing", FREE),
        ("weights", "weights", []),
        ("weights", "all", [("wake_up", None)]),
        ("nothing", "nothing", []),
        ("nothing", "weights", [("wake_up", ["weights"])]),
        ("nothing", "all", [("wake_up", None)]),
    ],
)
def test_what_vllm_is_asked_to_do(
    before: Resident, after: Resident, asked: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    llm = Llm()
    memory = EngineMemory(llm, 2)
    memory.hold(before)
    llm.asked.clear()
    memory.hold(after)
    assert (llm.asked, memory.resident) == (asked, after)
    if after == "all":
        memory.require_all()
    else:
        with pytest.raises(RuntimeError, match=f"must hold all its memory, but holds {after}"):
            memory.require_all()


def test_an_engine_without_a_sleep_level_keeps_its_memory() -> None:
    with pytest.raises(RuntimeError, match="without a sleep level"):
        EngineMemory(Llm(), 0).hold("nothing")
