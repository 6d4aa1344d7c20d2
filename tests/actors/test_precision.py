"""`dtype: auto` in every recipe: bfloat16 where the role has GPUs, float32 where it has none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from actors.config import EngineConfig, FrozenRoleConfig, PlacementConfig, RolloutConfig, TrainedRoleConfig, ZeroConfig
from actors.precision import automatic_dtypes, resolve_dtype
from configs.base import dump, read
from configs.errors import ConfigError
from trainers.config.rejection import RejectionConfig
from trainers.config.rlhf import PPOConfig
from trainers.config.stages import STAGES
from trainers.config.supervised import EvaluationConfig, SftConfig

DATA = {"train": ["a.parquet"], "heldout": ["b.parquet"]}
MODEL: dict[str, Any] = {"model": "m"}


def sft(**changes: Any) -> SftConfig:
    return SftConfig.model_validate_json(json.dumps({"name": "t", "model": "m", "data": DATA, **changes}))


def ppo(gpus: float) -> PPOConfig:
    role = {"model": "m", "placement": {"gpus_per_rank": gpus}}
    values = {
        "name": "t",
        "steps": 1,
        "prompts": {"train": ["a.parquet"]},
        **dict.fromkeys(("policy", "critic", "reference", "reward"), role),
        "rollout": {"placement": {"gpus_per_rank": gpus}},
    }
    return PPOConfig.model_validate_json(json.dumps(values))


def dtypes(value: Any, prefix: str = "") -> dict[str, str]:
    """Every `dtype` in nested settings, by its key."""
    found = {}
    for name, below in value.items():
        if isinstance(below, dict):
            found |= dtypes(below, f"{prefix}{name}.")
        elif name == "dtype":
            found[prefix + name] = below
    return found


@pytest.mark.parametrize(("gpus", "dtype"), [(0, "float32"), (1, "bfloat16")])
def test_all_roles_and_stages_default_to_what_their_devices_are_made_for(gpus: float, dtype: str) -> None:
    rejection = {
        "name": "t",
        "model": "m",
        "prompts": {"train": ["a.parquet"]},
        "rollout": {"placement": {"gpus_per_rank": gpus}},
        "reward": {"model": "m", "placement": {"gpus_per_rank": gpus}},
        "sft": {"data": {"heldout": ["b.parquet"]}, "placement": {"gpus_per_rank": gpus}},
    }
    evaluation = {"tasks": ["cmmlu"], "data": "d", "gpus": gpus}
    configs = (
        ppo(gpus),
        RejectionConfig.model_validate_json(json.dumps(rejection)),
        sft(placement={"gpus_per_rank": gpus}, evaluation=evaluation),
    )
    keys = [dtypes(config.model_dump()) for config in configs]
    assert [set(found) for found in keys] == [
        {"policy.zero.dtype", "critic.zero.dtype", "reference.dtype", "reward.dtype", "rollout.engine.dtype"},
        {"rollout.engine.dtype", "reward.dtype", "sft.zero.dtype"},
        {"zero.dtype", "evaluation.dtype"},
    ]
    for config, found in zip(configs, keys, strict=True):
        assert set(found.values()) == {dtype}
        assert set(automatic_dtypes(config)) == set(found)


def test_every_role_goes_by_its_own_placement() -> None:
    on_gpu = PlacementConfig(gpus_per_rank=0.5)
    assert FrozenRoleConfig(**MODEL, placement=on_gpu).dtype == "bfloat16"
    assert TrainedRoleConfig(**MODEL, placement=on_gpu, zero=ZeroConfig(stage=2)).zero == ZeroConfig(
        stage=2, dtype="bfloat16"
    )
    shared = EngineConfig(gpu_memory_utilization=0.5)
    assert RolloutConfig(placement=on_gpu, engine=shared).engine.dtype == "bfloat16"
    assert shared.dtype == EngineConfig().dtype == ZeroConfig().dtype == RolloutConfig().engine.dtype == "float32"
    on_both = sft(placement={"gpus_per_rank": 1}, evaluation={"tasks": ["cmmlu"], "data": "d"})
    assert dtypes(on_both.model_dump()) == {"zero.dtype": "bfloat16", "evaluation.dtype": "float32"}


@pytest.mark.parametrize("gpus", [0, 1])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_is_given_stays(gpus: float, dtype: Any) -> None:
    placement = PlacementConfig(gpus_per_rank=gpus)
    roles = (
        FrozenRoleConfig(**MODEL, placement=placement, dtype=dtype),
        TrainedRoleConfig(**MODEL, placement=placement, zero=ZeroConfig(dtype=dtype)),
        RolloutConfig(placement=placement, engine=EngineConfig(dtype=dtype)),
        sft(placement={"gpus_per_rank": gpus}, zero={"dtype": dtype}),
        EvaluationConfig(tasks=("cmmlu",), data="d", gpus=gpus, dtype=dtype),
    )
    for role in roles:
        assert set(dtypes(role.model_dump()).values()) == {dtype}
        assert list(automatic_dtypes(role)) == []
    assert resolve_dtype(dtype, gpus > 0) == dtype


@pytest.mark.parametrize(("gpus", "dtype"), [(0, "float32"), (1, "bfloat16")])
def test_auto_may_be_written_out(gpus: float, dtype: str) -> None:
    written = sft(placement={"gpus_per_rank": gpus}, zero={"stage": 1, "dtype": "auto"})
    assert written == sft(placement={"gpus_per_rank": gpus}, zero={"stage": 1})
    assert (written.zero.stage, written.zero.dtype, [*automatic_dtypes(written)]) == (1, dtype, ["zero.dtype"])
    with pytest.raises(ValueError, match="dtype\n.*'auto', 'float32' or 'bfloat16'"):
        sft(zero={"dtype": "float16"})
    evaluation = {"tasks": ["cmmlu"], "data": "d", "gpus": gpus, "dtype": None}  # of a config.yaml before `auto`
    assert sft(evaluation=evaluation).evaluation == EvaluationConfig(
        tasks=("cmmlu",), data="d", gpus=gpus, dtype=resolve_dtype("auto", gpus > 0)
    )


def test_a_dumped_recipe_has_the_resolved_value_whatever_reads_it(tmp_path: Path) -> None:
    config = ppo(1)
    dump(config, tmp_path / "config.yaml")
    assert "auto" not in (tmp_path / "config.yaml").read_text()
    again = read("ppo", STAGES, ["--config", str(tmp_path / "config.yaml")])
    assert again == config
    assert list(automatic_dtypes(again)) == []
    argv = ["--config", str(tmp_path / "config.yaml"), "--reward.placement.gpus_per_rank=0"]
    moved = read("ppo", STAGES, argv)
    assert isinstance(moved, PPOConfig)
    assert moved.reward is not None
    assert (moved.reward.placement.gpus_per_rank, moved.reward.dtype) == (0, "bfloat16")
    with pytest.raises(ConfigError, match="--reward.dtype=half: ppo.reward.dtype: must be 'auto', 'float32' or"):
        read("ppo", STAGES, [*argv, "--reward.dtype=half"])
