from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from configs.base import read
from configs.errors import RunError
from trainers.config.rlhf import PPOConfig
from trainers.config.stages import STAGES
from trainers.journal import chosen, with_rewards
from trainers.rlhf.journal import Journal, fingerprint

ROWS = pa.table({"response": pa.array([[1, 2], [3]], pa.list_(pa.int32())), "finished": [True, False]})


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path, "f" * 64)


def test_what_is_recorded_is_recalled(journal: Journal) -> None:
    assert journal.recall(3, version=3) is None
    journal.record(3, 3, ROWS)
    recalled = journal.recall(3, version=3)
    assert recalled is not None
    assert recalled.to_pydict() == ROWS.to_pydict()
    assert journal.steps() == [3]


def test_rollouts_of_another_course_are_refused_by_name(journal: Journal, tmp_path: Path) -> None:
    journal.record(3, 3, ROWS)
    with pytest.raises(RunError, match=r"step-00000003\.parquet.*weights version 3.*version 4"):
        journal.recall(3, version=4)
    with pytest.raises(RunError, match=r"step-00000003\.parquet: was written with other settings or prompts"):
        Journal(tmp_path, "0" * 64).recall(3, version=3)


def test_damaged_rollouts_are_none(journal: Journal, caplog: pytest.LogCaptureFixture) -> None:
    journal.record(3, 3, ROWS)
    journal.path(3).write_bytes(journal.path(3).read_bytes()[:-4])
    assert journal.recall(3, 3) is None
    (line,) = caplog.messages
    assert line.startswith(f"{journal.path(3)}: damaged or truncated")
    assert line.endswith("kept as step-00000003.parquet.damaged, its step is generated again")
    assert journal.steps() == []


@pytest.mark.parametrize(
    ("first", "ahead", "kept"),
    [(0, 0, [0, 1]), (2, 0, [0, 1]), (3, 0, [0, 1, 3, 4, 5]), (0, 1, [0, 1, 3]), (6, 0, [0, 1, 3, 4, 5])],
)
def test_a_gap_ends_the_log_for_those_who_pass_it(journal: Journal, first: int, ahead: int, kept: list[int]) -> None:
    for step in range(6):
        journal.record(step, step, ROWS)
    journal.path(2).write_bytes(b"damaged")
    journal.truncate_at_gap(first, ahead)
    if first > 2:
        journal.path(2).unlink()
    assert journal.steps() == kept


def test_the_journal_reaches_as_far_as_it_is_intact(journal: Journal) -> None:
    for step in range(3):
        journal.record(step, step, ROWS)
    assert journal.reaches(range(3))
    assert journal.reaches(range(5, 5))
    assert not journal.reaches(range(2, 4))
    journal.path(2).write_bytes(b"damaged")
    assert not journal.reaches(range(3))


@pytest.fixture
def config(tmp_path: Path) -> Any:
    (tmp_path / "prompts.jsonl").write_text("{}")

    def make(*flags: str) -> PPOConfig:
        config = read("ppo", STAGES, [f"--prompts.train=[{tmp_path}/prompts.jsonl]", *flags])
        assert isinstance(config, PPOConfig)
        return config

    return make


def test_the_fingerprint_is_of_what_decides_the_answers(config: Any, tmp_path: Path) -> None:
    start = fingerprint(config())
    same = ("--name=x", "--policy.placement.ranks=2", "--checkpoint_every=3", "--rollout.engine.max_concurrent=3")
    for flag in (*same, "--steps=41"):
        assert fingerprint(config(flag)) == start, flag
    decaying = "--policy.optimizer.schedule=linear"
    assert fingerprint(config(decaying)) != fingerprint(config(decaying, "--steps=41"))
    others = {
        fingerprint(config(flag))
        for flag in (
            "--seed=1",
            "--algorithm.gamma=0.9",
            "--rollout.top_p=0.9",
            "--policy.optimizer.lr=1",
            decaying,
        )
    }
    (tmp_path / "prompts.jsonl").write_text('{"other": 1}')
    assert len({start, *others, fingerprint(config())}) == 7


def test_rewards_lie_beside_the_journal_and_choose(journal: Journal, tmp_path: Path) -> None:
    scored = ROWS.append_column("reward_model", pa.array([0.5, 2.0])).append_column("reward", pa.array([1.0, 4.0]))
    path = tmp_path / "rewards" / "step-00000003.parquet"
    assert with_rewards(ROWS, path).column_names == ROWS.column_names
    journal.record_rewards(3, scored)
    table = with_rewards(ROWS, path)
    assert table.column("reward").to_pylist() == [1.0, 4.0]
    assert table.column("reward_model").to_pylist() == [0.5, 2.0]
    assert [chosen(table, None, None), chosen(table, 1, None), chosen(table, None, 1)] == [[0, 1], [1], [0]]


def test_rollouts_of_any_weights_in_between_are_recalled_where_allowed(journal: Journal) -> None:
    journal.record(3, 2, ROWS)
    assert journal.recall(3, version=1, newest=3) is not None
    with pytest.raises(RunError, match="weights version 2"):
        journal.recall(3, version=3, newest=4)
