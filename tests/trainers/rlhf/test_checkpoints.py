"""Damage to every kind of file in a run's folder, and disks that are full or read-only, on real roles.

The roles start once; each test continues a copy of one finished run, and must end with that run's weights.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from finished import equal, weights

from actors.groups.role_groups import RoleGroups
from data.tables import PROMPTS, write_table
from storage.durable import DiskError
from trainers.config.rlhf import PPOConfig
from trainers.journal import main as show
from trainers.ppo import read_prompts, role_groups_config
from trainers.rlhf.journal import Journal
from trainers.rlhf.loop import Loop
from trainers.rlhf.recovery import Recovery
from trainers.runs.folder import Run, already_finished
from trainers.runs.stopping import StopRequests

pytestmark = [pytest.mark.slow, pytest.mark.long]

REWARD = """
def reward(samples):
    return [float(len(sample["response"]) % 5) for sample in samples]
"""
NEWEST, BEFORE = "checkpoints/step-00000003", "checkpoints/step-00000002"


@pytest.fixture(scope="module")
def config(clinic: Path, tmp_path_factory: pytest.TempPathFactory) -> PPOConfig:
    """Four steps with a checkpoint after each; those of steps 2 and 3 are kept."""
    folder = tmp_path_factory.mktemp("inputs")
    rows = [{"prompt": [{"role": "user", "content": f"病人{n}头痛怎么办"}]} for n in range(12)]
    write_table(pa.Table.from_pylist(rows, PROMPTS), folder / "prompts.parquet")
    (folder / "rewards.py").write_text(REWARD)
    placement = {"cpus_per_rank": 0.1, "threads": 1}
    learner = {
        "model": str(clinic / "model"),
        "placement": placement,
        "optimizer": {"lr": 1e-3, "schedule": "constant"},
    }
    return PPOConfig.model_validate(
        {
            "name": "ppo",
            "prompts": {"train": (str(folder / "prompts.parquet"),), "max_tokens": 64},
            "steps": 4,
            "prompts_per_step": 4,
            "algorithm": {"kl_coef": 0.0},
            "policy": learner,
            "critic": learner,
            "reward_function": {"placement": placement, "functions": {"length": {"file": str(folder / "rewards.py")}}},
            "rollout": {
                "placement": placement,
                "max_new_tokens": 8,
                "engine": {"max_model_len": 128, "kv_cache_bytes": 2**24},
            },
            "checkpoint_every": 1,
            "samples_every": 2,
        }
    )


@pytest.fixture(scope="module")
def roles(config: PPOConfig, ray_cluster: None) -> Iterator[RoleGroups]:
    with RoleGroups(role_groups_config(config, ())) as roles:
        yield roles


def finish(config: PPOConfig, roles: RoleGroups) -> Path:
    with Run(config.name, config) as run, StopRequests() as stop:
        recovery = Recovery(roles, stop, config.max_failures, config.failure_window_s)
        Loop(config, run, read_prompts(config), roles, recovery, stop).train()
        return run.path


@pytest.fixture(scope="module")
def whole(config: PPOConfig, roles: RoleGroups, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing happened to."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHIMED_RUNS", str(tmp_path_factory.mktemp("whole")))
        return finish(config, roles)


@pytest.fixture
def copy(whole: Path, runs: Path) -> Path:
    """As if the driver had died before the end of that run."""
    shutil.copytree(whole, runs / "ppo")
    shutil.rmtree(runs / "ppo" / "model")
    (runs / "ppo" / "DONE").unlink()
    return runs / "ppo"


def damage(run: Path, pattern: str, kind: str) -> Path:
    """Flips a bit in the middle of the one file of `pattern`, cuts its second half off, or deletes it."""
    (path,) = sorted(run.glob(pattern))[:1]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x80
    path.write_bytes(content[: len(content) // 2] if kind == "truncated" else content)
    if kind == "deleted":
        path.unlink()
    return path


CASES = [
    (NEWEST + "/policy/zero/*optim_states.pt", "flipped", "damaged .*; skipping step-00000003"),
    (NEWEST + "/critic/zero/*model_states.pt", "deleted", "missing; skipping step-00000003"),
    (NEWEST + "/SHA256SUMS", "truncated", "truncated .*; skipping step-00000003"),
    ("journal/step-00000003.parquet", "flipped", r"damaged or truncated .*\.damaged, its step is generated again"),
    (
        "journal/step-00000003.parquet",
        "truncated",
        r"damaged, or written by an earlier version .*\.damaged, its step is generated again",
    ),
    ("metrics.jsonl", "flipped", "damaged .not a line of metrics.; removing the line"),
]


@pytest.mark.parametrize(("pattern", "kind", "said"), CASES)
def test_what_is_damaged_is_named_and_the_newest_good_state_used(
    pattern: str,
    kind: str,
    said: str,
    copy: Path,
    whole: Path,
    config: PPOConfig,
    roles: RoleGroups,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = damage(copy, pattern, kind)
    with pytest.MonkeyPatch.context() as patch:
        if not pattern.startswith("journal"):
            patch.setattr(
                "trainers.rlhf.rollouts.ResponseCollector", lambda *_: pytest.fail("the journal has every step")
            )
        finish(config, roles)
    lines = [line for line in caplog.messages if "damaged" in line or "missing" in line or "cut" in line]
    assert len(lines) == 1, lines
    assert re.match(rf"{path}(:\d+)?: {said}", lines[0]), lines[0]
    assert equal(weights(copy), weights(whole))
    assert [path.name for path in sorted((copy / "checkpoints").iterdir())] == ["step-00000002", "step-00000003"]


def test_answers_after_a_lost_step_are_generated_again(
    copy: Path, whole: Path, config: PPOConfig, roles: RoleGroups, caplog: pytest.LogCaptureFixture
) -> None:
    damage(copy, NEWEST + "/policy/zero/*optim_states.pt", "flipped")
    damage(copy, "journal/step-00000002.parquet", "truncated")
    finish(config, roles)
    assert (
        "step-00000003.parquet and all later steps: generated again, because step 2 before them is missing"
        in caplog.text
    )
    assert equal(weights(copy), weights(whole))
    for step in range(4):
        name = f"journal/step-{step:08d}.parquet"
        assert (copy / name).read_bytes() == (whole / name).read_bytes()


def test_a_full_and_a_read_only_disk_end_the_run_in_one_line_and_then_it_goes_on(
    copy: Path, whole: Path, config: PPOConfig, roles: RoleGroups, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        monkeypatch.setenv("CHIMED_RUNS", str(disk))
        shutil.copytree(copy, disk / "ppo")
        shutil.rmtree(disk / "ppo" / NEWEST)
        with (disk / "filler").open("wb") as filler:
            filler.write(bytes(os.statvfs(disk).f_bavail * os.statvfs(disk).f_bsize - 200_000))
        with pytest.raises(DiskError, match=r"aside-00000003/.*: cannot be written \(No space left .*\); make room"):
            finish(config, roles)
        (disk / "filler").unlink()
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with pytest.raises(
            DiskError, match=r"ppo/\.lock: cannot be written \(Read-only file system\); make its folder"
        ):
            finish(config, roles)
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        assert equal(weights(finish(config, roles)), weights(whole))
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_under_the_journal(
    copy: Path, whole: Path, config: PPOConfig, roles: RoleGroups, file_size_limit: Callable[[int], None]
) -> None:
    (copy / "journal" / "step-00000003.parquet").unlink()
    record = Journal.record

    def record_on_a_full_disk(*arguments: Any) -> pa.Table:
        file_size_limit(1000)
        return record(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Journal, "record", record_on_a_full_disk)
        with pytest.raises(DiskError, match=r"step-00000003\.parquet: cannot be written \(File too large\); make room"):
            finish(config, roles)
    file_size_limit(2**30)
    assert equal(weights(finish(config, roles)), weights(whole))


def test_a_damaged_word_of_the_end_is_as_none(
    whole: Path, runs: Path, config: PPOConfig, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(whole, runs / "ppo")
    assert already_finished("ppo", config)
    damage(runs / "ppo", "DONE", "flipped")
    assert not already_finished("ppo", config)
    assert caplog.messages[1:] == [
        f"{runs}/ppo/DONE: damaged; renamed to DONE.damaged, and the run continues from its newest intact checkpoint"
    ]


def test_the_journal_is_shown_in_words(whole: Path, capsys: Any) -> None:
    show(["show", str(whole), "--step", "2"])
    first, *rest = capsys.readouterr().out.split("\n\n")
    assert re.match(r"step 2, weights version 2, 4 responses, \d\.\d tokens each, reward ", first)
    assert len(rest) == 4
    rewards = {}
    for which in ("--best", "--worst"):
        show(["show", str(whole), "--step", "2", which, "1"])
        (_, answer) = capsys.readouterr().out.split("\n\n")
        found = re.match(
            r"-- prompt \d+, sample 0: reward (\d\.\d+), \d tokens, (finished|truncated)\n.*病人\d+头痛怎么办",
            answer,
            re.S,
        )
        assert found, answer
        rewards[which] = float(found[1])
    assert rewards["--best"] >= rewards["--worst"]
