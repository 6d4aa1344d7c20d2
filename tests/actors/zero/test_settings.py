"""DeepSpeed's configuration."""

from __future__ import annotations

import pytest
import torch

from actors.config import ZeroConfig
from actors.zero.settings import deepspeed_settings


@pytest.mark.parametrize(("gpu", "ranks", "overlaps"), [(True, 2, True), (True, 1, False), (False, 2, False)])
def test_gradients_are_sent_while_others_are_computed_on_several_gpus(
    gpu: bool, ranks: int, overlaps: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: ranks)
    section = deepspeed_settings(ZeroConfig(), 1.0, 1000)["zero_optimization"]
    assert section["overlap_comm"] is overlaps
    assert section["reduce_bucket_size"] == 1000
    assert ("stage3_allgather_sequential" in section) is not gpu
