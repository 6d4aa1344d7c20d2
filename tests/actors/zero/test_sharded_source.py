"""vLLM's NCCL transport: its transfer group, with handles that note what they are asked, and what is sent through it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ranks import on_ranks
from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerWeightTransferEngine
from vllm.distributed.weight_transfer.packed_tensor import pack_tensors, unpack_tensor

from actors.config import ArchitectureConfig, OptimizerConfig, ZeroConfig
from actors.modeling.models import new_causal_lm
from actors.modeling.packed_models import PackedLM
from actors.weight_bits import SentBits
from actors.zero.model import ZeroModel
from actors.zero.sharded_source import EngineClient, ShardedWeights

SHAPE = ArchitectureConfig(hidden_size=16, intermediate_size=24, layers=3, heads=2, kv_heads=2, context=32)
BUFFER = 2000  # bytes; a layer has more


def handles(count: int) -> tuple[list[Any], list[dict[str, Any]]]:
    """Stubs of engine actors, and what each was told at its start, in order."""
    told: list[dict[str, Any]] = []

    def joins(request: Any) -> None:
        told.append(request.init_info)

    return [SimpleNamespace(init_weight_transfer_engine=SimpleNamespace(remote=joins)) for _ in range(count)], told


@pytest.mark.parametrize(
    ("engines", "ranks", "offsets", "world"), [(1, 1, [1], 2), (3, 1, [1, 2, 3], 4), (2, 4, [1, 5], 9)]
)
def test_every_engine_has_ranks_of_its_own(
    monkeypatch: pytest.MonkeyPatch, engines: int, ranks: int, offsets: list[int], world: int
) -> None:
    monkeypatch.setattr("actors.zero.sharded_source.ray.get", lambda refs: refs)
    stubs, told = handles(engines)
    client = EngineClient(stubs, ranks)
    client.init_weight_transfer_engine(
        {"master_address": "10.0.0.1", "rank_offset": 1, "world_size": client.world_size}
    )
    assert [info["rank_offset"] for info in told] == offsets
    assert {info["world_size"] for info in told} == {world}
    covered = sorted(info["rank_offset"] + worker for info in told for worker in range(ranks))
    assert covered == list(range(1, world))  # the sender is 0


def packed_and_unpacked(rank: int, world: int) -> dict[str, Any]:
    """What a receiver unpacks from the chunks that the first rank sends, at each ZeRO stage; others gather with it."""
    found = {}
    for stage in (0, 2, 3):
        module = PackedLM(new_causal_lm(SHAPE, vocab_size=40, bos=1, eos=2, pad=3, seed=0), None)
        expected = {name: parameter.detach().clone() for name, parameter in module.model.named_parameters()}
        zero = ZeroModel(module, ZeroConfig(stage=stage), OptimizerConfig(), total_steps=1)
        sent = SentBits(torch.float32)
        source = ShardedWeights(zero, sent)
        declared = source.metadata()
        if rank:
            assert list(source) == []  # it only gathers
            continue
        pairs = NCCLTrainerWeightTransferEngine._checked_iter(source, declared)
        received: list[tuple[str, torch.Tensor]] = []
        chunks = 0
        while chunk := pack_tensors(pairs, lambda pair: pair[1], BUFFER):
            # A receiver cuts the bytes by what was declared before anything was gathered.
            mine = declared[len(received) : len(received) + len(chunk.tensor_sizes)]
            sizes = [meta.dtype.itemsize * torch.Size(meta.shape).numel() for meta in mine]
            names, shapes = [meta.name for meta in mine], [list(meta.shape) for meta in mine]
            received += unpack_tensor(chunk.packed_tensor, names, shapes, [meta.dtype for meta in mine], sizes)
            chunks += 1
        found[str(stage)] = (dict(received), expected, chunks, sent.total)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_receiver_gets_the_whole_weights_of_all_ranks(ranks: int, tmp_path: Path) -> None:
    found = on_ranks(ranks, __file__, "packed_and_unpacked", tmp_path)
    assert set(found) == {"0", "2", "3"}
    for received, expected, chunks, total in found.values():
        assert list(received) == list(expected)
        assert all(torch.equal(received[name], tensor) for name, tensor in expected.items())
        assert chunks > 3
        assert total == found["0"][3]
