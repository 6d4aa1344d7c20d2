from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from notices import errors_in
from small_ppo import settings

from configs.base import dump
from trainers.ppo import main

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _models(reward_model: Path) -> None:
    """Every test here needs them."""


GPU = "--{}.placement.gpus_per_rank={}"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--colocate=pairs"], "ppo.colocate: must be none, all or a list of groups of roles such as"),
        (["--colocate=[]"], "ppo.colocate: must be none, all or a list of groups"),
        (["--colocate=[policy,critic]"], "ppo.colocate: must be none, all or a list of groups"),
        (
            ["--colocate=[[policy,reward_function]]"],
            "colocate names 'reward_function', which is no role that these settings start",
        ),
        (
            ["--colocate=[[policy,critic]]", "--algorithm.name=rloo", "--samples_per_prompt=2"],
            "colocate names 'critic', which is no role .* they start policy, reference, reward, rollout$",
        ),
        (["--sleep=true"], "sleep true: no roles with a model share a placement group; set colocate, which is none,"),
        (
            ["--sleep=true", "--colocate=all", "--rollout.ahead=1"],
            "rollout.ahead 1 generates while other roles compute",
        ),
        (["--policy.lora.dropout=0.1"], "lora.dropout 0.1: RLHF needs the same log-probabilities"),
        (["--reference=null"], "requires a reference, and none is set: set reference.model, policy.lora, or"),
        (["--colocate=all", GPU.format("policy", 1), GPU.format("rollout", 1)], "gpu_memory_utilization is not given"),
        (
            [
                *("--colocate=all", "--rollout.engine.gpu_memory_utilization=0.4", "--publish.transport=vllm_nccl"),
                *(GPU.format("policy", 1), GPU.format("rollout", 1)),
            ],
            "colocate puts policy and rollout on the same GPU, .* set publish.transport to object_store",
        ),
        (
            ["--publish.transport=vllm_nccl", "--policy.placement.ranks=1", GPU.format("policy", 0.5)],
            "publish.transport vllm_nccl requires one whole GPU per rank",
        ),
        ([GPU.format("critic", 0.5), "--critic.placement.ranks=2"], "two ranks could get the same GPU"),
        ([GPU.format("policy", 1.5)], "gpus_per_rank 1.5 is above 1 and not a whole number"),
        (["--policy.placement.cpus_per_rank=0"], "reserve no resources"),
    ],
)
def test_roles_that_cannot_share_are_refused_in_one_line(
    changes: list[str], message: str, clinic: Path, tmp_path: Path, capsys: Any
) -> None:
    import yaml

    recipe = tmp_path / "recipe.yaml"
    values = settings(clinic).model_dump(mode="json")
    del values["rollout"]["engine"]["gpu_memory_utilization"]
    recipe.write_text(yaml.safe_dump({"ppo": values}, allow_unicode=True))
    with pytest.raises(SystemExit) as end:
        main(["--config", str(recipe), *changes])
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert len(errors_in(error)) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("--policy.model=/nowhere/model", "/nowhere/model"),
        ("--prompts.train=[/nowhere.parquet]", "/nowhere.parquet"),
        ("--prompts.max_tokens=500", "exceeds rollout.engine.max_model_len 512"),
        ("--prompts.max_tokens=4", "has .* tokens, .*prompts.max_tokens 4"),
        ("--policy.placement.ranks=3", "minibatch of 4 samples .* is not divisible by policy.placement.ranks 3"),
        ("--policy.placement.cpus_per_rank=100", "needs 200.4 CPU but the Ray cluster has 8 in all"),
        ("--algorithm.kl_coeff=1", "did you mean 'kl_coef'"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_made(
    change: str, message: str, clinic: Path, runs: Path, tmp_path: Path, ray_cluster: Any, capsys: Any
) -> None:
    recipe = tmp_path / "recipe.yaml"
    dump(settings(clinic), recipe)
    with pytest.raises(SystemExit) as end:
        main(["--config", str(recipe), change])
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert re.search(message, error)
    assert len(errors_in(error)) == 1
    assert not runs.exists()
