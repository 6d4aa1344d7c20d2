"""What `build` refuses before anything is started."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from actors.model_folder.folders import ModelFolder
from configs.errors import ConfigError
from serve.app import _environment, _scorer, build
from serve.config import read_arguments
from serve.engines.score import Scorer


def test_models_in_each_other_s_place(make_model: Callable[..., Path]) -> None:
    chat, judge = make_model("a"), make_model("judge", seed=3, reward=True)
    short = {"engine.max_model_len": "256"}
    with pytest.raises(ConfigError, match=r"^model=judge: .* is a reward model; give it as reward_model=DIR"):
        build({"model": str(judge), **short})
    with pytest.raises(ConfigError, match=r"with a name that no model has"):
        build({"model": f"x={chat}", "reward_model": f"x={judge}", **short})
    with pytest.raises(ConfigError, match=r"the context of a is 256; lower it"):
        build({"model": str(chat)})
    with pytest.raises(ConfigError, match=r"^reward_model=b: .* has no scalar head"):
        build({"model": str(chat), "reward_model": str(make_model("b", seed=1)), **short})
    with pytest.raises(ConfigError, match=r"runs/nowhere/model"):
        build({"model": "runs/nowhere/model"})


def test_weights_of_another_architecture(make_model: Callable[..., Path]) -> None:
    other = make_model("deeper", num_hidden_layers=3)
    with pytest.raises(ConfigError, match=r"is not of the architecture of"):
        build({"model": str(make_model("a")), "weights": str(other), "engine.max_model_len": "256"})


def test_weights_of_another_vocabulary(make_model: Callable[..., Path], tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(make_model("a"), other)
    state = json.loads((other / "tokenizer.json").read_text("utf-8"))
    (one, first), (two, second) = list(state["model"]["vocab"].items())[-2:]
    state["model"]["vocab"] |= {one: second, two: first}
    (other / "tokenizer.json").write_text(json.dumps(state), "utf-8")
    with pytest.raises(ConfigError, match="have different vocabularies"):
        build({"model": str(make_model("a")), "weights": str(other), "engine.max_model_len": "256"})


def test_a_model_without_some_of_its_weights(make_model: Callable[..., Path], tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(make_model("a"), other)
    config = json.loads((other / "config.json").read_text("utf-8"))
    (other / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 5}), "utf-8")
    with pytest.raises(ConfigError, match=r"^model: the weights in .* lack .* such as model\.layers\."):
        build({"model": str(other), "engine.max_model_len": "256"})


@pytest.mark.parametrize(("gpus", "dtype"), [(0, "float32"), (2, "bfloat16")])
def test_the_scorer_computes_on_its_own_gpu_in_bfloat16_or_sees_none(
    gpus: int, dtype: str, make_model: Callable[..., Path]
) -> None:
    folder = ModelFolder(make_model("judge", seed=3, reward=True))
    config = read_arguments({"model": "m", "reward_model": str(folder.path), "replicas": {"gpus": gpus}})
    deployment = _scorer("judge", folder, config)._bound_deployment  # type: ignore[attr-defined]
    assert deployment.init_args == (str(folder.path), 2, dtype)
    assert deployment.ray_actor_options["num_gpus"] == min(1, gpus)
    hidden = deployment.ray_actor_options["runtime_env"]["env_vars"].get("CUDA_VISIBLE_DEVICES")
    assert hidden == (None if gpus else "")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_scorer_loads_its_model_in_its_dtype(dtype: Any, make_model: Callable[..., Path]) -> None:
    scorer = Scorer(str(make_model("judge", seed=3, reward=True)), 1, dtype)
    assert {str(parameter.dtype) for parameter in scorer._role.module.parameters()} == {f"torch.{dtype}"}


@pytest.mark.parametrize("on_gpus", [False, True])
def test_engines_sample_without_kernels_that_need_a_compiler(on_gpus: bool) -> None:
    environment = _environment(3, on_gpus)
    assert environment["VLLM_USE_FLASHINFER_SAMPLER"] == "0"
    assert environment.get("OMP_NUM_THREADS") == (None if on_gpus else "3")


@pytest.mark.parametrize(
    ("on_cpu", "world", "executor"), [(True, 1, "uni"), (True, 2, "ray"), (False, 1, "ray"), (False, 2, "ray")]
)
def test_an_engine_runs_in_its_replicas_process_on_cpus_alone(
    on_cpu: bool, world: int, executor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On GPUs, Ray's executor places the worker on the reserved GPU; the replica's process would take the first one."""
    from serve.engines import in_process

    parallel = SimpleNamespace(world_size=world, distributed_executor_backend="ray")
    arguments, config = SimpleNamespace(distributed_executor_backend="ray"), SimpleNamespace(parallel_config=parallel)
    prepared = arguments, None, config
    monkeypatch.setattr(in_process.VLLMEngine, "_prepare_engine_config", lambda self, context: prepared)
    monkeypatch.setattr(in_process, "current_platform", SimpleNamespace(is_cpu=lambda: on_cpu))
    engine = in_process.InProcessVllm.__new__(in_process.InProcessVllm)
    assert engine._prepare_engine_config(None) == prepared
    assert arguments.distributed_executor_backend == parallel.distributed_executor_backend == executor
