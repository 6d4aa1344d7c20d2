"""PPO on real roles: a few steps of a model of a few thousand parameters, on Ray, ZeRO-3 and vLLM."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from finished import WarmRoles, equal, finished_run, weights
from small_ppo import settings
from steps import generated, learners, rollouts, with_advantages

from actors.groups.learners import Learners
from actors.groups.role_groups import RoleGroups
from actors.groups.turns import Turns
from actors.weight_sync.object_store import ObjectStoreTransport
from actors.weight_sync.publisher import Publisher, PublishError
from cluster.waiting import RoleDied
from configs.base import dump
from configs.errors import RunError
from trainers.config.algorithm import AlgorithmConfig
from trainers.ppo import main, role_groups_config
from trainers.rlhf.losses import ClippedPolicyLoss, ClippedValueLoss
from trainers.rlhf.prompts import PromptStream
from trainers.rlhf.rollouts import Rollouts
from trainers.runs.export import load_tokenizer
from trainers.runs.folder import Run, read_metrics

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _models(reward_model: Path) -> None:
    """Every test here needs them."""


@pytest.fixture(scope="module")
def warm_roles(
    clinic: Path, reward_model: Path, ray_cluster: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[WarmRoles]:
    folder = tmp_path_factory.mktemp("start")
    with RoleGroups(role_groups_config(settings(clinic), ())) as roles, closing(WarmRoles(roles, folder)) as warm:
        yield warm


@pytest.fixture
def roles(clinic: Path, warm_roles: WarmRoles) -> Iterator[RoleGroups]:
    with warm_roles(role_groups_config(settings(clinic), ())) as roles:
        yield roles


@pytest.fixture
def prompts(clinic: Path) -> PromptStream:
    return PromptStream(settings(clinic), load_tokenizer(str(clinic / "model")))


@pytest.fixture
def publisher(clinic: Path, roles: RoleGroups, prompts: PromptStream) -> Publisher:
    return Publisher(settings(clinic).publish, roles.policy, roles.rollout, prompts.probe(4))


def test_before_the_first_update_policy_is_reference_and_engine_agrees(
    roles: RoleGroups, prompts: PromptStream, publisher: Publisher
) -> None:
    table = rollouts(roles, prompts, publisher, 0)
    assert table.column("logprobs").to_pylist() == table.column("ref_logprobs").to_pylist()
    gaps = [
        abs(a - b)
        for mine, theirs in zip(
            table.column("logprobs").to_pylist(), table.column("rollout_logprobs").to_pylist(), strict=True
        )
        for a, b in zip(mine, theirs, strict=True)
    ]
    assert max(gaps) < 1e-4


def test_the_first_update_has_kl_0_and_ratio_1_and_then_the_engine_follows(
    clinic: Path, roles: RoleGroups, prompts: PromptStream, publisher: Publisher
) -> None:
    table = with_advantages(rollouts(roles, prompts, publisher, 0))
    losses = {"policy": ClippedPolicyLoss(AlgorithmConfig(), 0.05), "critic": ClippedValueLoss(0.5)}
    metrics = learners(roles).update(table, losses, epochs=1)
    first, second = metrics["policy"]
    assert first["kl"] == 0.0
    assert first["ratio_deviation"] == 0.0
    assert first["clip_fraction"] == 0.0
    assert second["ratio_deviation"] > 0.0
    assert first["grad_norm"] > 0.0
    assert len(metrics["critic"]) == 2
    published = publisher.publish(1)
    assert published.version == 1
    assert published.drift < 1e-4
    with pytest.raises(RuntimeError, match="holds weights version 1, but version 0 was asked for"):
        generated(roles, prompts, prompts.batch(0), 0)


class ForgetfulTransport(ObjectStoreTransport):
    """Names a new version without bringing its weights."""

    def send(self, version: int) -> None:
        self.engines.call("set_version", version)


class MisnumberingTransport(ObjectStoreTransport):
    """Brings the weights under another number."""

    def send(self, version: int) -> None:
        super().send(version + 1)


def test_a_mispublished_version_is_detected(
    roles: RoleGroups, prompts: PromptStream, publisher: Publisher, clinic: Path
) -> None:
    table = with_advantages(rollouts(roles, prompts, publisher, 2))
    learners(roles).update(table, {"policy": ClippedPolicyLoss(AlgorithmConfig(), 0.05)}, epochs=4)
    publisher.transport = ForgetfulTransport(roles.policy, roles.rollout)
    with pytest.raises(PublishError, match="rollout-0 does not compute with weights version 3"):
        publisher.publish(3)
    publisher.transport = MisnumberingTransport(roles.policy, roles.rollout)
    with pytest.raises(PublishError, match="rollout-0 holds weights version 4 after version 3 was published"):
        publisher.publish(3)


class Counted:
    """A method that counts its calls."""

    def __init__(self, method: Any) -> None:
        self.method, self.calls = method, 0

    def __get__(self, owner: Any, kind: Any) -> Any:
        self.calls += 1
        return self.method.__get__(owner, kind)


@pytest.fixture(scope="module")
def whole(clinic: Path, warm_roles: WarmRoles, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHIMED_RUNS", str(tmp_path_factory.mktemp("whole")))
        patch.setattr("trainers.ppo.RoleGroups", warm_roles)
        return finished_run(settings(clinic, name="whole"))


@pytest.mark.long
def test_killed_roles_start_again_and_an_interrupted_run_resumes_without_generating_and_nothing_changes(
    clinic: Path, whole: Path, warm_roles: WarmRoles, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("trainers.ppo.RoleGroups", warm_roles)
    started_by = settings(clinic).name
    victims = {1: "policy-1", 3: "rollout-0"}  # by the step after which they die
    config = settings(clinic, name="killed")
    log = Run.log

    def log_and_kill(run: Run, step: int, metrics: dict[str, float]) -> None:
        if step == 4:
            raise KeyboardInterrupt
        log(run, step, metrics)
        if victim := victims.pop(step, None):
            os.kill(ray.get(ray.get_actor(f"{started_by}/{victim}").ping.remote())["pid"], signal.SIGKILL)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "log", log_and_kill)
        with pytest.raises(KeyboardInterrupt):
            finished_run(config)
    assert not victims
    said = caplog.text
    assert re.findall(r"step (\d): .*; restarting (\w+) \(rank .*\) \(failure 1 of at most 3 in 600 s\)", said) == [
        ("2", "policy"),
        ("4", "rollout"),
    ], said
    assert said.count("restoring the newest checkpoint") == 1, said  # not for an engine
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trainers.rlhf.rollouts.ResponseCollector", lambda *_: pytest.fail("the journal has every step"))
        resumed = finished_run(config)
    assert [line["step"] for line in read_metrics(resumed)] == [1, 2, 3, 4]
    assert equal(weights(resumed), weights(whole))


def test_a_stop_that_was_asked_for_saves_and_the_same_command_goes_on(
    clinic: Path, whole: Path, warm_roles: WarmRoles, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    log = Run.log

    def log_and_ask(run: Run, step: int, metrics: dict[str, float]) -> None:
        log(run, step, metrics)
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("trainers.ppo.RoleGroups", warm_roles)
    config = settings(clinic, name="stopped")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "log", log_and_ask)
        with pytest.raises(SystemExit) as end:
            finished_run(config)
    assert end.value.code == 75
    assert caplog.messages[-1] == "stopped after step 3 (SIGTERM); run the same command to continue"
    monkeypatch.setattr(Learners, "update", counted := Counted(Learners.update))
    resumed = finished_run(config)
    assert counted.calls == 1  # from the checkpoint of step 3, which checkpoint_every does not ask for
    assert equal(weights(resumed), weights(whole))


def test_a_run_gives_up_after_too_many_deaths(
    clinic: Path, warm_roles: WarmRoles, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: Any, **__: Any) -> None:
        raise RoleDied("reward: add_columns: its process died")

    monkeypatch.setattr("trainers.ppo.RoleGroups", warm_roles)
    monkeypatch.setattr(Rollouts, "scoring", die)
    with pytest.raises(
        RunError, match=r"step 1: reward \(rank 0\) was lost 1 times .* last error: reward: add_columns: its"
    ):
        finished_run(settings(clinic, name="given-up", max_failures=0))


@pytest.mark.long
def test_a_run_is_seen_while_it_runs_and_roles_that_share_with_other_ranks_learn_the_same(
    clinic: Path, whole: Path, runs: Path, tmp_path: Path, watched: Any, shown: Any
) -> None:
    recipe = tmp_path / "recipe.yaml"
    roles = settings(clinic).roles
    ranks = {
        role: roles[role].model_dump() | {"placement": {"cpus_per_rank": 0.1, "threads": 1, "ranks": ranks}}
        for role, ranks in (("policy", 1), ("critic", 2))  # the other way round than in `whole`
    }
    dump(settings(clinic, name="seen/ppo", colocate="all", **ranks), recipe)
    log = Run.log

    def log_slowly(run: Run, step: int, metrics: dict[str, float]) -> None:
        log(run, step, metrics)
        time.sleep(1.5)  # longer than a pulse takes to say that there is news

    with watched("seen/ppo") as views, pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "log", log_slowly)
        main(["--config", str(recipe)])
    full = [view for view in views if len(view.ranks) == 7]
    assert full, [len(view.ranks) for view in views]
    roles_shown = ["driver", "critic", "critic", "policy", "reference", "reward", "rollout"]
    assert [rank.role for rank in full[-1].ranks] == roles_shown
    assert any({rank.state for rank in view.ranks} == {"alive"} for view in full)
    assert len({rank.pid for rank in full[-1].ranks}) == 7
    last = next(view for view in reversed(views) if view.step)
    assert (last.stage, last.state, last.steps) == ("ppo", "running", 4)
    assert last.weights_version == last.step
    assert last.reward is not None
    assert last.tokens_per_second is not None
    held = [rank.weights_version for view in full for rank in view.ranks if rank.role == "rollout"]
    versions = [version for version in held if version is not None]  # none before the engine is there
    assert versions == sorted(versions)
    assert 1 <= versions[-1] <= 4
    assert shown("seen/ppo") == []
    first, second, start = weights(whole), weights(runs / "seen/ppo"), weights(clinic)
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, atol=1e-5, rtol=0)
    assert max((tensor - start[name]).abs().max() for name, tensor in first.items()) > 1e-3


@pytest.mark.long
def test_roles_that_take_turns_learn_the_same_bit_for_bit_even_if_they_die(
    clinic: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = settings(clinic, name="turns", colocate="all", sleep=True)
    victims = {1: "rollout-0", 2: "critic-0"}  # by the step after which they die
    log, resident = Run.log, set()

    def log_and_kill(run: Run, step: int, metrics: dict[str, float]) -> None:
        log(run, step, metrics)
        if victim := victims.pop(step, None):
            os.kill(ray.get(ray.get_actor(f"turns/{victim}").ping.remote())["pid"], signal.SIGKILL)

    change = Turns._change

    def changed(turns: Turns, wanted: Any) -> None:
        change(turns, wanted)
        resident.add(frozenset(role for role, held in turns._resident.items() if held != "nothing"))

    with monkeypatch.context() as patch:
        patch.setattr(Run, "log", log_and_kill)
        patch.setattr(Turns, "_change", changed)
        run = finished_run(config)
    assert [name for name in ("rollout", "critic") if f"restarting {name}" in caplog.text] == ["rollout", "critic"]
    assert equal(weights(run), weights(whole))
    together = {roles for roles in resident if len(roles) > 1}
    assert together == {frozenset({"policy", "rollout"})}
