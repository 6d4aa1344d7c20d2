"""The algorithms without a critic, rewards by a function, and engines that work ahead: on Ray, ZeRO-3 and vLLM."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
import torch
from finished import WarmRoles, equal, evaluated, finished_run, weights
from notices import errors_in

from actors.groups.role_groups import RoleGroups
from configs.base import dump
from data.tables import OPEN, PROMPTS, write_table
from trainers.config.rlhf import PPOConfig
from trainers.ppo import main, role_groups_config
from trainers.runs.export import load_tokenizer
from trainers.runs.folder import Run, read_metrics

pytestmark = pytest.mark.slow

REWARD = """
def reward(samples):
    return [float(len(sample["response"]) % 5) + (sample["row"]["bonus"] if sample["finished"] else 0.0) for sample in samples]
"""


@pytest.fixture(scope="module")
def settings(clinic: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Makes settings of a run whose rewards come from a function that also reads the prompt's row."""
    rows = [{"prompt": [{"role": "user", "content": f"病人{n}头痛怎么办"}]} for n in range(12)]
    folder = tmp_path_factory.mktemp("rlhf")
    table = pa.Table.from_pylist(rows, PROMPTS).append_column("bonus", pa.array([0.5 * n for n in range(12)]))
    write_table(table, folder / "prompts.parquet")
    (folder / "rewards.py").write_text(REWARD)
    placement = {"cpus_per_rank": 0.1, "threads": 1}

    def make(name: str, **changes: Any) -> PPOConfig:
        values: dict[str, Any] = {
            "name": name,
            "prompts": {"train": (str(folder / "prompts.parquet"),), "max_tokens": 64},
            "steps": 4,
            "prompts_per_step": 4,
            "samples_per_prompt": 2,
            "policy": {
                "model": str(clinic / "model"),
                "placement": placement,
                "optimizer": {"lr": 1e-3, "schedule": "constant"},
            },
            "reference": {"model": str(clinic / "model"), "placement": placement},
            "reward_function": {
                "placement": placement,
                "functions": {"length": {"file": str(folder / "rewards.py"), "weight": 2.0}},
            },
            "rollout": {
                "placement": placement,
                "max_new_tokens": 16,
                "engine": {"max_model_len": 512, "kv_cache_bytes": 2**26},
                **changes.pop("rollout", {}),
            },
            "checkpoint_every": 2,
            "samples_every": 2,
            **changes,
        }
        return PPOConfig.model_validate(values)

    return make


@pytest.fixture(scope="module")
def warm_roles(settings: Any, ray_cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarmRoles]:
    folder = tmp_path_factory.mktemp("start")
    with (
        RoleGroups(role_groups_config(settings("rlhf", algorithm={"name": "grpo"}), ())) as roles,
        closing(WarmRoles(roles, folder)) as warm,
    ):
        yield warm


@pytest.fixture(autouse=True)
def _warm(warm_roles: WarmRoles, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every run here is trained by the same processes."""
    monkeypatch.setattr("trainers.ppo.RoleGroups", warm_roles)


def test_grpo_by_a_function_starts_no_critic_and_makes_no_pass_for_what_is_known(
    settings: Any, ray_cluster: Any
) -> None:
    config = settings("grpo", algorithm={"name": "grpo"}, steps=2)
    assert list(config.roles) == ["policy", "reference", "reward_function", "rollout"]
    run = finished_run(config)
    first, second = read_metrics(run)
    for metrics in (first, second):
        assert metrics["policy_ratio_deviation"] == 0.0
        assert metrics["policy_grad_norm"] > 0.0
        assert "engine_trainer_gap_max" not in metrics
        assert "critic_loss" not in metrics
    assert abs(first["policy_kl_loss"]) < 1e-9 < second["policy_kl_loss"]
    lines = [json.loads(line) for line in (run / "samples" / "step-00000001.jsonl").read_text().splitlines()]
    assert len(lines) == config.rows_per_step
    assert [line["reward"] for line in lines] == sorted((line["reward"] for line in lines), reverse=True)
    assert all(line["reward"] == pytest.approx(2.0 * line["parts"]["length"]) for line in lines)
    assert np.mean([line["reward"] for line in lines]) == pytest.approx(first["reward"], rel=1e-5)


def test_ahead_is_off_by_exactly_one_version_and_resumes_bit_for_bit(settings: Any, ray_cluster: Any) -> None:
    changes = {
        "algorithm": {"name": "rloo", "rollout_correction": "truncated", "minibatches": 2},
        "rollout": {"ahead": 1},
    }
    whole = finished_run(settings("ahead-whole", **changes))
    assert [line["staleness"] for line in read_metrics(whole)] == [0.0, 1.0, 1.0, 1.0]
    versions = [
        pq.read_schema(path).metadata[b"weights_version"] for path in sorted((whole / "journal").glob("*.parquet"))
    ]
    assert versions == [b"0", b"0", b"1", b"2"]
    first, *later = read_metrics(whole)
    assert first["engine_trainer_gap_max"] < 1e-4 < min(line["behind_gap_max"] for line in later)
    config = settings("ahead-broken", **changes)
    broken(config, after=3)
    assert equal(weights(finished_run(config)), weights(whole))
    finished_run(settings("ahead-longer", **changes, steps=3))
    longer = finished_run(settings("ahead-longer", **changes, steps=4))
    assert equal(weights(longer), weights(whole))
    assert [line["reward"] for line in read_metrics(longer)] == [line["reward"] for line in read_metrics(whole)]


def broken(config: PPOConfig, after: int) -> None:
    """A run that ends right after it has learned step `after`."""
    log = Run.log

    def die(run: Run, step: int, metrics: dict[str, float]) -> None:
        if step == after:
            raise KeyboardInterrupt
        log(run, step, metrics)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "log", die)
        with pytest.raises(KeyboardInterrupt):
            finished_run(config)


def test_chunks_change_scores_by_rounding_only_and_resume_bit_for_bit(settings: Any, ray_cluster: Any) -> None:
    changes: dict[str, Any] = {"algorithm": {"name": "rloo", "minibatches": 2}, "steps": 3}
    chunked = {"chunk_rows": 3}
    at_once = finished_run(settings("at-once", **changes))
    whole = finished_run(settings("chunked", **changes, rollout=chunked))
    for one, other in zip(read_metrics(at_once), read_metrics(whole), strict=True):
        for name in ("reward", "kl_to_reference", "response_tokens"):
            assert other[name] == pytest.approx(one[name], abs=1e-3)
    config = settings("chunked-broken", **changes, rollout=chunked)
    broken(config, after=2)
    assert equal(weights(finished_run(config)), weights(whole))


@pytest.mark.long
def test_weights_change_under_answers_and_the_journal_repeats_the_run(
    settings: Any, ray_cluster: Any, runs: Path
) -> None:
    rollout = {
        "ahead": 1,
        "in_flight": "keep",
        "max_new_tokens": 64,  # one at a time: still at it when the first new weights come
        "engine": {"max_model_len": 512, "kv_cache_bytes": 2**26, "max_concurrent": 1},
    }
    changes = {"algorithm": {"name": "rloo", "rollout_correction": "truncated"}, "rollout": rollout}
    whole = finished_run(settings("flying", **changes))
    mixed = 0
    for step, path in enumerate(sorted((whole / "journal").glob("*.parquet"))):
        for versions in pq.read_table(path).column("versions").to_pylist():
            assert versions == sorted(versions)
            assert versions[0] >= max(0, step - 1)
            assert versions[-1] <= step
            mixed += versions[0] < versions[-1]
    assert mixed > 0
    lines = list(read_metrics(whole))
    assert max(line["staleness_max"] for line in lines) == 1.0
    assert any(0.0 < line["staleness"] < 1.0 for line in lines)
    again = runs / "flying-again"
    shutil.copytree(whole / "journal", again / "journal")
    assert equal(weights(finished_run(settings("flying-again", **changes))), weights(whole))


@pytest.mark.long
def test_engines_of_two_processes_are_published_to_and_start_again_when_one_dies(
    settings: Any, ray_cluster: Any, caplog: pytest.LogCaptureFixture
) -> None:
    changes = {
        "algorithm": {"name": "grpo"},
        "rollout": {"engine": {"max_model_len": 512, "kv_cache_bytes": 2**26, "tensor_parallel_size": 2}},
    }
    whole = finished_run(settings("parallel", **changes))
    assert all(line["publish_drift"] < 1e-4 for line in read_metrics(whole))
    log = Run.log

    def log_and_kill(run: Run, step: int, metrics: dict[str, float]) -> None:
        log(run, step, metrics)
        if step == 2:
            engine = psutil.Process(ray.get(ray.get_actor("parallel/rollout-0").ping.remote())["pid"])
            (second,) = (found for found in engine.children(recursive=True) if found.name() == "VLLM::Worker_TP1")
            second.kill()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "log", log_and_kill)
        killed = finished_run(settings("parallel-killed", **changes))
    assert re.findall(r"restarting (\w+) \(rank .*\) \(failure 1 of", caplog.text) == ["rollout"]
    assert equal(weights(killed), weights(whole))


@pytest.mark.long
def test_with_lora_the_policys_own_base_is_the_reference_and_a_run_resumes_bit_for_bit(
    settings: Any, clinic: Path, ray_cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainers.ppo.RoleGroups", RoleGroups)  # warm roles have other checkpoints
    policy = settings("x", algorithm={"name": "grpo"}).policy.model_dump() | {"lora": {"rank": 4, "alpha": 8.0}}
    policy["optimizer"]["lr"] = 1e-2
    algorithm = {"name": "grpo", "kl_coef": 0.05, "minibatches": 2}
    changes = {"algorithm": algorithm, "reference": None, "policy": policy}
    config = settings("lora", **changes)
    assert list(config.roles) == ["policy", "reward_function", "rollout"]
    run = finished_run(config)
    metrics = list(read_metrics(run))
    assert metrics[0]["kl_to_reference"] == 0.0
    assert all(line["kl_to_reference"] != 0.0 for line in metrics[1:])
    assert all(line["publish_drift"] < 1e-4 for line in metrics)
    start, end = weights(clinic), weights(run)
    assert start.keys() == end.keys()
    changed = {name for name, tensor in end.items() if not torch.equal(tensor, start[name])}
    assert changed == {name for name in end if "_proj." in name}
    log = Run.log

    def stop_at_three(run: Run, step: int, metrics: dict[str, float]) -> None:
        if step == 3:
            raise KeyboardInterrupt
        log(run, step, metrics)

    resumed = settings("lora-resumed", **changes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "log", stop_at_three)
        with pytest.raises(KeyboardInterrupt):
            finished_run(resumed)
    assert equal(weights(finished_run(resumed)), end)


@pytest.mark.long
def test_an_answer_ends_at_a_stop_token(settings: Any, ray_cluster: Any) -> None:
    tokenizer = load_tokenizer(settings("stopped", algorithm={"name": "rloo"}).policy.model)
    stop = tuple(tokenizer.convert_ids_to_tokens(token) for token in range(10, 60))
    run = finished_run(settings("stopped", algorithm={"name": "rloo"}, steps=1, rollout={"stop": stop}))
    rows = pq.read_table(run / "journal" / "step-00000000.parquet").to_pylist()
    ends = {*range(10, 60), tokenizer.eos_token_id}
    assert any(row["response"][-1] in ends - {tokenizer.eos_token_id} for row in rows)
    for row in rows:
        assert not ends.intersection(row["response"][:-1])
        assert row["finished"] == (row["response"][-1] in ends)


def test_prompts_whose_answers_all_score_alike_are_replaced(settings: Any, ray_cluster: Any, tmp_path: Path) -> None:
    (tmp_path / "alike.py").write_text(
        "def reward(sample):\n    return float(sample['prompt_id'] % 2 * sample['sample'])\n"
    )
    reward_function = {"placement": {"cpus_per_rank": 0.1}, "functions": {"odd": {"file": str(tmp_path / "alike.py")}}}
    algorithm = {"name": "reinforce_pp_baseline", "kl_coef": 0.0, "dynamic_sampling": 3}
    config = settings("resampled", algorithm=algorithm, reward_function=reward_function, steps=2)
    run = finished_run(config)
    for path in sorted((run / "journal").glob("*.parquet")):
        table = pq.read_table(path)
        assert len(table) == config.rows_per_step
        assert {prompt % 2 for prompt in table.column("prompt_id").to_pylist()} == {1}
    assert [line["reward"] for line in read_metrics(run)] == [0.5, 0.5]


@pytest.mark.long
def test_the_policy_is_evaluated_while_it_learns_and_learns_the_same(
    settings: Any, ray_cluster: Any, tmp_path: Path
) -> None:
    rows = [{"question": f"病人{n}头痛怎么办", "reference": "多休息。"} for n in range(4)]
    write_table(pa.Table.from_pylist(rows, OPEN), tmp_path / "open.heldout.parquet")
    asked = {"tasks": ("open",), "data": str(tmp_path), "every": 3}
    grpo = {"algorithm": {"name": "grpo"}}
    without = finished_run(settings("not-evaluated", **grpo))
    run = finished_run(settings("evaluated", **grpo, evaluation=asked))
    assert equal(weights(run), weights(without))
    found = {line["step"]: line["eval/open_rouge_l"] for line in read_metrics(run) if "seconds_evaluate" in line}
    assert list(found) == [3, 4]
    assert evaluated(run / "model", "open", tmp_path)["rouge_l"] == found[4]


def test_a_diverging_update_ends_in_one_line_and_keeps_its_rows(
    settings: Any, tmp_path: Path, runs: Path, ray_cluster: Any, capsys: Any
) -> None:
    recipe = tmp_path / "recipe.yaml"
    dump(settings("wild", algorithm={"name": "grpo", "minibatches": 2}, checkpoint_every=1), recipe)
    with pytest.raises(SystemExit) as end:
        main(["--config", str(recipe), "--policy.optimizer.lr=1e30"])
    assert end.value.code == 1
    line = capsys.readouterr().err.strip().splitlines()[-1]
    rows = pq.read_table(runs / "wild" / "not_finite.parquet")
    assert re.match(
        r"python -m trainers.ppo: error: policy: the (loss|gradient) is n\w+.* at optimizer step 2; its rows", line
    )
    journalled = pq.read_table(runs / "wild" / "journal").column("response").to_pylist()
    assert rows.column("response").to_pylist() == journalled[4:]
    assert {"advantages", "logprobs", "weights"} <= set(rows.column_names)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--algorithm.name=ppo"], "algorithm.name ppo requires a critic"),
        (["--samples_per_prompt=1"], "algorithm.name grpo compares responses to the same prompt"),
        (["--algorithm.dynamic_sampling=1", "--rollout.ahead=1"], "algorithm.dynamic_sampling needs a step"),
        (["--rollout.in_flight=keep"], "rollout.in_flight keep mixes tokens of several weights versions"),
        (["--rollout.stop=[多休息，按时服药。]"], "rollout.stop: '多休息，按时服药。' is .* tokens"),
        (["--critic_warmup_steps=3"], "algorithm.name grpo has no critic; set it to 0"),
        (["--algorithm.overlong_buffer=17"], "exceeds rollout.max_new_tokens 16"),
        (["--reward_function.functions.length.file=/nowhere.py"], "/nowhere.py"),
        (["--stop.kl_above=1e-9"], r"kl_to_reference .* is above stop.kl_above 1e-09"),
    ],
)
def test_bad_input_is_one_line(
    changes: list[str], message: str, settings: Any, tmp_path: Path, runs: Path, ray_cluster: Any, capsys: Any
) -> None:
    recipe = tmp_path / "recipe.yaml"
    dump(settings("bad", algorithm={"name": "grpo"}), recipe)
    with pytest.raises(SystemExit):
        main(["--config", str(recipe), *changes])
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert len(errors_in(error)) == 1
