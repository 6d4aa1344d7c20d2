"""What a learner holds on its device while other roles use it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from actors.config import ArchitectureConfig, OptimizerConfig, ZeroConfig
from actors.device_memory import DeviceMemory, Resident, module_tensors, tensors_in
from actors.modeling.models import new_causal_lm
from actors.modeling.packed import PackedBatch
from actors.modeling.packed_models import PackedLM
from actors.zero.model import ZeroModel

SHAPE = ArchitectureConfig(hidden_size=16, intermediate_size=24, layers=3, heads=2, kv_heads=2, context=32)
BATCH = PackedBatch.of([[5, 9, 30, 11, 4], [8, 6, 7]])


def model(zero: ZeroConfig) -> ZeroModel:
    module = PackedLM(new_causal_lm(SHAPE, vocab_size=40, bos=1, eos=2, pad=3, seed=0), None)
    module = module.to(torch.bfloat16) if zero.dtype == "bfloat16" else module
    return ZeroModel(module, zero, OptimizerConfig(lr=1e-2, schedule="constant"), total_steps=9)


def update(zero: ZeroModel) -> dict[str, float]:
    return zero.update([BATCH], lambda engine, batch: engine(batch)[0], lambda output, _: (-output.mean(), {}))


def held_bytes(zero: ZeroModel) -> int:
    """The bytes of everything that the model and its optimizer reach."""
    tensors = [*module_tensors(zero.engine.module), *tensors_in(zero.engine.optimizer)]
    storages = {tensor.untyped_storage()._cdata: tensor.untyped_storage() for tensor in tensors}
    return sum(s.nbytes() for s in storages.values() if s.resizable() and s.device.type == "cpu")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_what_was_away_is_bit_for_bit_what_it_was(world: None, tmp_path: Path, stage: int, dtype: Any) -> None:
    plain, other = (model(ZeroConfig(stage=stage, dtype=dtype)) for _ in range(2))
    parameters = sum(getattr(p, "ds_numel", p.numel()) for p in plain.model.parameters())
    moves: list[Resident] = ["nothing", "weights", "nothing", "all", "weights", "all"]
    for step in range(3):
        for held in moves:
            other.memory.hold(held)
            if held == "weights":
                assert torch.equal(other.forward(BATCH)[0], plain.forward(BATCH)[0])
        whole = held_bytes(other)
        assert update(other) == update(plain)
        other.memory.hold("nothing")
        assert held_bytes(other) < 0.01 * whole
        other.memory.hold("weights")
        of_weights = held_bytes(other)
        copies = 2 if stage == 3 else 1  # DeepSpeed keeps small parameters gathered, as all of this model are
        assert of_weights == pytest.approx(copies * (4 if dtype == "float32" else 2) * parameters, rel=0.02)
        if step:  # with AdamW's moments
            assert whole - of_weights > 7.9 * parameters
        other.memory.hold("all")
    first, second = plain.full_state(), other.full_state()
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    other.memory.hold("nothing")
    other.memory.hold("all")
    other.save(tmp_path)
    other.saved(tmp_path)
    assert update(other) == update(plain)
    other.memory.hold("nothing")
    other.memory.hold("all")
    other.load(tmp_path)
    assert all(torch.equal(tensor, other.full_state()[name]) for name, tensor in first.items())


@pytest.mark.parametrize(
    ("held", "calls"),
    [
        ("nothing", ["forward", "update", "weights", "save", "load"]),
        ("weights", ["update", "save", "load"]),
    ],
)
def test_nothing_is_computed_with_memory_that_is_away(
    world: None, tmp_path: Path, held: Resident, calls: list[str]
) -> None:
    zero = model(ZeroConfig(stage=2))
    all_calls: dict[str, Callable[[], object]] = {
        "forward": lambda: zero.forward(BATCH),
        "update": lambda: update(zero),
        "weights": zero.full_state,
        "save": lambda: zero.save(tmp_path / "saved"),
        "load": lambda: zero.load(tmp_path),
    }
    (tmp_path / "zero").mkdir()
    zero.memory.hold(held)
    for name in calls:
        with pytest.raises(RuntimeError, match=f"but holds {held}"):
            all_calls[name]()


def test_views_and_shared_storages_are_moved_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.device_memory._PIECE", 100)
    whole = torch.arange(1000, dtype=torch.float32)
    view, moment = whole[100:200].view(10, 10), torch.ones(3)
    mapped = torch.frombuffer(bytearray(8), dtype=torch.uint8)
    memory = DeviceMemory(lambda: [whole, view, mapped], lambda: [view, moment])
    memory.hold("nothing")
    assert [t.untyped_storage().nbytes() for t in (whole, moment, mapped)] == [0, 0, 8]
    memory.hold("nothing")
    memory.hold("weights")
    assert [t.untyped_storage().nbytes() for t in (whole, moment)] == [4000, 0]
    view += 1
    memory.hold("all")
    expected = torch.arange(1000, dtype=torch.float32)
    expected[100:200] += 1
    assert torch.equal(whole, expected)
    assert torch.equal(moment, torch.ones(3))


def test_tensors_of_an_optimizer_are_found() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    adamw = torch.optim.AdamW([weight])
    weight.sum().backward()
    adamw.step()
    found = {id(tensor) for tensor in tensors_in(adamw)}
    state = adamw.state[weight]
    expected: list[Tensor] = [weight, state["exp_avg"], state["exp_avg_sq"], state["step"]]
    assert {id(tensor) for tensor in expected} <= found
    assert any(torch.equal(tensor, torch.ones(3)) and id(tensor) != id(weight) for tensor in tensors_in(adamw))
