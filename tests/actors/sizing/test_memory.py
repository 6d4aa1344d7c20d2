"""The arithmetic of memory, against figures worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from actors.config import EngineConfig, FrozenRoleConfig, LoraConfig, ZeroConfig
from actors.sizing.memory import (
    CPU_CONCURRENCY,
    GIB,
    LOGIT_PIECES,
    LOGITS,
    MOST_CONCURRENCY,
    SAMPLED_BYTES,
    VLLM_BATCH_TOKENS,
    Footprint,
    Work,
    concurrency,
    engine,
    frozen,
    indivisible,
    kv_bytes,
    lora_parameters,
    trained,
)
from actors.sizing.shape import Shape

TEN = Shape(hidden=4096, layers=48, intermediate=11008, heads=32, vocab=32000)
P = TEN.parameters()
QWEN = Shape(
    hidden=896, layers=4, intermediate=4864, heads=14, kv_heads=2, vocab=151_936, qkv_bias=1, context=32_768
)  # the first layers of Qwen2.5-0.5B


def sizes(footprint: Footprint) -> dict[str, int]:
    return {part.name: part.bytes for part in footprint.work}


def test_zero_shards_what_its_stage_says() -> None:
    work = Work(tokens=100)
    for stage in (0, 1, 2, 3):
        found = sizes(trained(TEN, ZeroConfig(stage=stage, dtype="bfloat16"), 8, work, gpu=True))
        shards = {"weights": 3, "gradients": 2, "optimizer": 1}  # from which stage on
        whole = {"weights": 2 * P, "gradients": 2 * P, "optimizer": 12 * P}
        for name, first in shards.items():
            assert found[name] == (whole[name] // 8 if stage >= first else whole[name])
        assert ("gathered" in found) == (stage == 3)


def test_what_is_not_learned_has_no_gradient_and_no_optimizer() -> None:
    lora = LoraConfig(rank=8, targets=("q_proj", "down_proj"))
    trained_parameters = lora_parameters(TEN, lora)
    assert trained_parameters == 48 * 8 * ((4096 + 4096) + (11008 + 4096))
    found = sizes(
        trained(TEN, ZeroConfig(stage=2), 1, Work(tokens=100, trained_parameters=trained_parameters), gpu=True)
    )
    assert (found["weights"], found["gradients"], found["optimizer"]) == (
        4 * P,
        4 * trained_parameters,
        12 * trained_parameters,
    )


def test_recomputing_keeps_a_layers_input_only() -> None:
    kept = [
        sizes(trained(TEN, ZeroConfig(gradient_checkpointing=on), 1, Work(tokens=10), gpu=True))["activations"]
        for on in (False, True)
    ]
    layer = 11 * 4096 + 4 * 11008
    assert kept == [4 * 10 * 49 * layer, 4 * 10 * (48 * 4096 + layer)]


def test_a_large_model_takes_most_while_it_is_read_whole() -> None:
    zero = ZeroConfig(dtype="bfloat16", gradient_checkpointing=True)
    footprint = trained(TEN, zero, 64, Work(4096, whole="it is of another kind", loads_as="float32"), gpu=True)
    assert [part.name for part in footprint.parts] == ["process", "whole model", "weights"]
    assert "every rank reads it, since it is of another kind" in footprint.parts[1].why
    assert footprint.peak == 2 * GIB + 4 * P + 2 * P // 64
    assert sum(part.bytes for part in footprint.work) < 4 * P


@pytest.mark.parametrize("gpu", [True, False])
def test_into_shards_a_rank_reads_its_own_and_one_parameter(gpu: bool) -> None:
    footprint = trained(TEN, ZeroConfig(dtype="bfloat16"), 64, Work(4096), gpu)
    largest = 32_000 * 4096
    assert [part.bytes for part in footprint.load[1:]] == [6 * largest, 2 * P // 64]
    assert footprint.moment.startswith("at work")
    whole = trained(TEN, ZeroConfig(stage=2, dtype="bfloat16"), 64, Work(4096), gpu)
    assert [part.bytes for part in whole.load[1:]] == [2 * P]
    assert whole.load[1].why.endswith("every rank reads it, since stage 2 shards no weights")


def test_rank_0_alone_has_the_export_in_its_nodes_memory() -> None:
    footprint = trained(TEN, ZeroConfig(dtype="bfloat16"), 64, Work(4096), gpu=True)
    assert [part.bytes for part in footprint.first] == [2 * P]
    assert sum(part.bytes for part in footprint.host) == 4 * GIB + 12 * P // 64


def test_offloading_moves_the_optimizer_to_the_host() -> None:
    settings = [ZeroConfig(dtype="bfloat16", offload_optimizer=on) for on in (False, True)]
    here, away = (trained(TEN, zero, 4, Work(100), gpu=True) for zero in settings)
    assert {"optimizer", "step"} == set(sizes(here)) - set(sizes(away))
    assert {"optimizer", "step"} == {part.name for part in away.host} - {part.name for part in here.host}


@pytest.mark.parametrize(("stage", "ranks", "buckets"), [(0, 2, 1), (1, 2, 2), (2, 8, 2), (2, 1, 1), (3, 8, 1)])
def test_a_gpu_fills_one_bucket_while_another_is_sent(stage: Any, ranks: int, buckets: int) -> None:
    footprint = trained(TEN, ZeroConfig(stage=stage, dtype="bfloat16"), ranks, Work(100), gpu=True)
    assert sizes(footprint)["bucket"] == buckets * 2 * 5 * 10**8


def test_publishing_through_the_store_costs_a_copy() -> None:
    with_copy = trained(TEN, ZeroConfig(), 1, Work(100, publishes=True), gpu=False)
    without = trained(TEN, ZeroConfig(), 1, Work(100), gpu=False)
    assert with_copy.peak - without.peak == 4 * P


def test_a_frozen_model_is_held_whole() -> None:
    config = FrozenRoleConfig(model="m", dtype="bfloat16")
    assert sizes(frozen(TEN, config, Work(100), gpu=True))["weights"] == 2 * P
    scorer = sizes(frozen(TEN, config, Work(100, scorer=True), gpu=True))
    assert scorer["weights"] == 2 * TEN.parameters(scorer=True)
    assert "logits" not in scorer


def test_logits_are_made_so_many_at_a_time() -> None:
    few, many = (trained(TEN, ZeroConfig(), 1, Work(tokens), gpu=True) for tokens in (100, 10**6))
    assert sizes(few)["logits"] - LOGIT_PIECES == 2 * 4 * 100 * TEN.vocab
    assert sizes(many)["logits"] - LOGIT_PIECES == 2 * 4 * LOGITS["cuda"]


@pytest.mark.parametrize(("gib", "processes"), [(24, 1), (40, 1), (40, 2), (80, 1), (80, 4)])
def test_an_engine_decodes_as_many_sequences_as_its_cache_holds(gib: int, processes: int) -> None:
    config = EngineConfig(
        dtype="bfloat16", max_model_len=2048, gpu_memory_utilization=0.85, tensor_parallel_size=processes
    )
    count = concurrency(TEN, config, gib * GIB)
    found = sizes(engine(TEN, config, VLLM_BATCH_TOKENS, gib * GIB, through_store=False))
    assert found["logits"] == SAMPLED_BYTES * count * TEN.vocab
    one = kv_bytes(TEN, config, 2048)
    assert found["KV cache"] >= (count if count > 1 else 0) * one
    if 1 < count < MOST_CONCURRENCY:
        assert found["KV cache"] < (count + 1) * one + 2 * SAMPLED_BYTES * TEN.vocab


def test_concurrency_is_what_was_given_or_fits_the_device() -> None:
    small = Shape(hidden=64, layers=2, intermediate=128, heads=4, vocab=300)
    config = EngineConfig(dtype="bfloat16", max_model_len=512)
    assert concurrency(small, config, 80 * GIB) == MOST_CONCURRENCY
    assert concurrency(small, config, None) == concurrency(small, config, 0) == CPU_CONCURRENCY
    assert concurrency(small, config.model_copy(update={"max_concurrent": 3}), 80 * GIB) == 3


def test_processes_of_an_engine_divide_weights_and_cache() -> None:
    values = {"dtype": "bfloat16", "max_model_len": 2048, "gpu_memory_utilization": 0.5, "max_concurrent": 64}
    one, four = (EngineConfig(**values, tensor_parallel_size=size) for size in (1, 4))
    alone, shared = (engine(TEN, config, 2048, 80 * GIB, through_store=False) for config in (one, four))
    assert sizes(shared)["weights"] == sizes(alone)["weights"] // 4
    assert sizes(shared)["KV cache"] - sizes(alone)["KV cache"] == 2 * P - 2 * P // 4
    assert kv_bytes(TEN, four, 2048) == kv_bytes(TEN, one, 2048) // 4
    grouped = replace(TEN, kv_heads=2)
    assert kv_bytes(grouped, four, 2048) == kv_bytes(grouped, one, 2048) // 2  # two processes have the same head
    alone, shared = (engine(TEN, config, 2048, None, through_store=False) for config in (one, four))
    assert sizes(shared)["processes"] == 5 * sizes(alone)["process"]
    assert sizes(shared)["weights"] == sizes(alone)["weights"]
    assert sizes(shared)["KV cache"] == sizes(alone)["KV cache"]


@pytest.mark.parametrize(
    ("processes", "problem"),
    [
        (1, None),
        (2, None),
        (4, None),
        (28, None),
        (7, "has 4 key and value heads, which 7 processes cannot divide"),
        (8, "has 28 attention heads, which 8 processes cannot divide"),
    ],
)
def test_processes_that_cannot_divide_the_heads(processes: int, problem: str | None) -> None:
    shape = Shape(hidden=56, layers=2, intermediate=128, heads=28, kv_heads=4, vocab=300)
    assert indivisible(shape, processes) == problem


def test_an_engine_fills_its_share_of_a_gpu_with_cache() -> None:
    config = EngineConfig(dtype="bfloat16", max_model_len=2048, gpu_memory_utilization=0.5)
    footprint = engine(TEN, config, 2048, 80 * GIB, through_store=False)
    assert footprint.peak == 40 * GIB
    assert kv_bytes(TEN, config, 2048) == 2 * 2 * 48 * 4096 * 2048
    on_cpu = engine(TEN, config, 2048, None, through_store=True)
    assert sizes(on_cpu)["KV cache"] == 256 * 2**20


def within(estimated: int, measured_mib: int) -> bool:
    return abs(estimated / 2**20 / measured_mib - 1) < 0.15


@pytest.mark.parametrize(("tied", "idle", "replacing"), [(1, 3183, 4375), (0, 3707, 5418)])
def test_an_engine_of_a_large_vocabulary_was_measured(tied: int, idle: int, replacing: int) -> None:
    """Four layers of Qwen2.5-0.5B in float32 on CPUs, 3,840 tokens in a prefill."""
    config = EngineConfig(max_model_len=512, kv_cache_bytes=2**27)
    shape = replace(QWEN, tied=tied)
    assert within(engine(shape, config, 3840, None, through_store=False).peak, idle)
    # Weights came from a file, one tensor at a time, so that only the largest was there instead of all in the object store.
    found = engine(shape, config, 3840, None, through_store=True)
    store = sizes(found)["published"] - 4 * QWEN.vocab * QWEN.hidden
    assert within(found.peak - store, replacing)


def test_a_learner_of_a_large_vocabulary_was_measured() -> None:
    """The same model, tied, with micro-batches of 1,024 tokens."""
    footprint = trained(replace(QWEN, tied=1), ZeroConfig(), 1, Work(tokens=1024), gpu=False)
    assert within(footprint.peak, 7563)
    low_rank = Work(tokens=1024, trained_parameters=lora_parameters(QWEN, LoraConfig()))
    assert within(trained(replace(QWEN, tied=1), ZeroConfig(), 1, low_rank, gpu=False).peak, 3915)
    zero = ZeroConfig(stage=2, dtype="bfloat16")
    in_bfloat16 = trained(replace(QWEN, tied=1), zero, 1, replace(low_rank, tokens=2048), gpu=False)
    assert 2476 < in_bfloat16.peak / 2**20 < 1.25 * 2476  # a piece of the logits has fewer copies than all of them
    assert "checkpoint" in sizes(trained(QWEN, ZeroConfig(), 1, Work(tokens=128), gpu=False))
