"""Commits of the Hub in a run's settings, and one run by Hub ids from start to end."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hub import Hub, environment
from huggingface_hub import constants

from configs.errors import ConfigError
from data.hub import pinned
from trainers.config.rlhf import PPOConfig
from trainers.config.supervised import SftConfig
from trainers.runs.folder import Run
from trainers.runs.pinning import pin
from trainers.supervised import driver
from trainers.supervised.tasks.sft import SftStage

ROOT = Path(__file__).parents[3]
TABLE = "hf://datasets/org/chats"


def sft(**changes: Any) -> SftConfig:
    values = {
        "name": "t",
        "model": "org/model",
        "data": {"train": [f"{TABLE}/train", "local.parquet"], "heldout": [f"{TABLE}/test"], "max_tokens": 512},
    }
    return SftConfig.model_validate_json(json.dumps({**values, **changes}))


@pytest.fixture
def filled(hub: Hub, clinic: Path, tmp_path: Path) -> Callable[[str], tuple[str, str]]:
    """Makes new commits of a model and a dataset, with a note in them; returns both."""

    def fill(note: str) -> tuple[str, str]:
        model, chats = tmp_path / "model", tmp_path / "chats"
        shutil.copytree(clinic / "model", model, dirs_exist_ok=True)
        chats.mkdir(exist_ok=True)
        shutil.copy(clinic / "sft.train.parquet", chats / "train.parquet")
        shutil.copy(clinic / "sft.heldout.parquet", chats / "test.parquet")
        for folder in (model, chats):
            (folder / "README.md").write_text(note)
        pinned.cache_clear()
        return hub.commit("models", "org/model", model), hub.commit("datasets", "org/chats", chats)

    return fill


def test_a_new_run_gets_the_newest_commits_and_a_resume_those(
    filled: Callable[[str], tuple[str, str]], runs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, chats = filled("old")
    config = pin(sft())
    assert config.model == f"org/model@{model}"
    assert config.data.train == (f"hf://datasets/org/chats@{chats}/train", "local.parquet")
    assert config.data.heldout == (f"hf://datasets/org/chats@{chats}/test",)
    with Run(config.name, config):
        pass
    newer, _ = filled("new")
    assert newer != model
    assert pin(sft()) == config
    assert f"model: org/model@{model}, the commit that this run began with" in caplog.text
    Run(config.name, pin(sft())).close()  # the same command resumes
    Run(config.name, pin(sft(model=f"org/model@{model}"))).close()
    with pytest.raises(ConfigError, match=f"this run was started with sft.model = 'org/model@{model}"[:60]):
        Run(config.name, pin(sft(model=f"org/model@{newer}")))
    assert pin(sft(name="other")).model == f"org/model@{newer}"


def test_a_branch_that_moved_is_another_setting(filled: Callable[[str], tuple[str, str]]) -> None:
    filled("old")
    config = pin(sft(model="org/model@main"))
    Run(config.name, config).close()
    filled("new")
    with pytest.raises(ConfigError, match="this run was started with sft.model"):
        Run(config.name, pin(sft(model="org/model@main")))


def test_local_names_stay_and_are_told(
    hub: Hub, clinic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(clinic / "model", tmp_path / "org" / "model")
    monkeypatch.chdir(tmp_path)
    config = sft(data={"train": ["a.parquet"], "heldout": ["runs/b.parquet"], "max_tokens": 512})
    assert pin(config) is config
    assert caplog.messages == [f"model: org/model is the local folder {tmp_path / 'org' / 'model'}"]
    assert hub.requests == []


def local(**changes: Any) -> SftConfig:
    values = {"name": "t", "model": "m", "data": {"train": ["a.parquet"], "heldout": ["b.parquet"]}, **changes}
    return SftConfig.model_validate_json(json.dumps(values))


def test_a_run_keeps_its_precision_on_other_hardware(caplog: pytest.LogCaptureFixture) -> None:
    on_gpu, on_cpu = {"gpus_per_rank": 1}, {"gpus_per_rank": 0}
    for begun, moved, kept, otherwise in (
        (on_cpu, on_gpu, "float32", "bfloat16"),
        (on_gpu, on_cpu, "bfloat16", "float32"),
    ):
        name = f"from-{otherwise}"
        first = pin(local(name=name, placement=begun))
        assert first == local(name=name, placement=begun)
        assert first.zero.dtype == kept
        Run(name, first).close()
        caplog.clear()
        again = pin(local(name=name, placement=moved))
        assert again.zero.dtype == kept
        assert again.placement != first.placement
        line = f"zero.dtype: {kept}, the precision that this run began with (not given, it would be {otherwise})"
        assert caplog.messages == [line]
        asked = pin(local(name=name, placement=moved, zero={"dtype": otherwise}))
        with pytest.raises(ConfigError, match=f"started with sft.zero.dtype = '{kept}', not '{otherwise}'"):
            Run(name, asked)
        Run(name, again).close()
        assert caplog.messages[-1] == (
            "continuing with sft.placement.gpus_per_rank = "
            f"{again.placement.gpus_per_rank} instead of {first.placement.gpus_per_rank}"
        )
        assert pin(local(name=name, placement=moved)) == again  # of the config.yaml that was written again
        assert pin(local(name=f"new-{name}", placement=moved)).zero.dtype == otherwise


def test_a_damaged_config_is_refused_by_its_run(runs: Path) -> None:
    Run("t", pin(local())).close()
    path = runs / "t" / "config.yaml"
    path.write_bytes(path.read_bytes().replace(b"float32", b"bfloat16"))
    config = pin(local())
    with pytest.raises(ConfigError, match="config.yaml: .*restore the file, or delete it"):
        Run("t", config)


def test_every_role_of_ppo_is_pinned(filled: Callable[[str], tuple[str, str]]) -> None:
    model, _ = filled("a")
    roles = {role: {"model": "org/model"} for role in ("policy", "critic", "reference", "reward")}
    given = {"name": "p", "prompts": {"train": ["p.jsonl"]}, "steps": 1, **roles}
    config = pin(PPOConfig.model_validate_json(json.dumps(given)))
    assert [settings.model for settings in config.roles.values() if hasattr(settings, "model")] == [
        f"org/model@{model}"
    ] * 4


def test_what_the_hub_has_not_is_one_line(hub: Hub, monkeypatch: pytest.MonkeyPatch, runs: Path) -> None:
    with pytest.raises(ConfigError, match="^model: model org/model on http.*: there is no such repository"):
        pin(sft())
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match="model org/model on http.* HF_HUB_OFFLINE is set"):
        pin(sft())
    assert not runs.exists()


@pytest.mark.slow
@pytest.mark.long
def test_sft_by_hub_ids_from_start_to_end(
    hub: Hub,
    filled: Callable[[str], tuple[str, str]],
    tmp_path: Path,
    runs: Path,
    ray_cluster: None,
    trains_here: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, chats = filled("old")
    arguments = [
        "--config", "configs/laptop.yaml", "--name=by-id", "--model=org/model",
        f"--data.train=[{TABLE}/train]", f"--data.heldout=[{TABLE}/test]",
        "--data.max_tokens=512", "--max_steps=2", "--batch_size=2", "--zero.stage=0",
    ]  # fmt: skip
    home = tmp_path / "home"
    variables = {**environment(hub, home), "CHIMED_RUNS": str(runs), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "trainers.sft", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    stored = yaml.safe_load((runs / "by-id" / "config.yaml").read_text())["sft"]
    assert stored["model"] == f"org/model@{model}"
    assert stored["data"]["train"] == [f"hf://datasets/org/chats@{chats}/train"]
    assert (runs / "by-id" / "model" / "model.safetensors").is_file()
    filled("new")
    shutil.rmtree(runs / "by-id" / "model")
    os.remove(runs / "by-id" / "DONE")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    driver.main(SftStage, "sft", arguments)
    assert (runs / "by-id" / "model" / "model.safetensors").is_file()
