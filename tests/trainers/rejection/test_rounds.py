"""What a round's fine-tuning starts from and reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pydantic import ValidationError

from data.tables import SFT, write_table
from trainers.config.rejection import RejectionConfig
from trainers.rejection.rounds import Round


def settings(**changes: Any) -> RejectionConfig:
    values: dict[str, Any] = {
        "name": "r",
        "model": "runs/sft/model",
        "prompts": {"train": ["p.parquet"]},
        "reward": {"model": "runs/reward/model"},
        "sft": {"data": {"heldout": ["h.parquet"]}, "batch_size": 4, "optimizer": {"lr": 0.5}},
        "seed": 3,
        **changes,
    }
    return RejectionConfig.model_validate_json(json.dumps(values))


def chats(path: Path, count: int) -> None:
    turns = [{"role": "user", "content": "问"}, {"role": "assistant", "content": "答"}]
    write_table(pa.Table.from_pylist([{"messages": turns, "task": f"{n}"} for n in range(count)], SFT), path)


def test_a_round_goes_on_from_the_last_ones_model(tmp_path: Path) -> None:
    first, second = (Round(settings(), tmp_path, number) for number in (0, 1))
    assert (first.policy, first.fine_tuning().model) == ("runs/sft/model", "runs/sft/model")
    assert second.policy == second.fine_tuning().model == str(tmp_path / "round-0/sft/model")
    tuning = second.fine_tuning()
    assert (tuning.name, tuning.seed, tuning.batch_size, tuning.optimizer.lr) == ("r/round-1/sft", 3, 4, 0.5)
    assert tuning.data.train == (str(tmp_path / "round-1/chosen.parquet"),)
    assert tuning.data.heldout == ("h.parquet",)
    assert tuning.train_on == "last_response"


def test_from_start_learns_all_choices_with_the_first_model(tmp_path: Path) -> None:
    one = Round(settings(from_start=True), tmp_path, 2)
    assert one.policy == str(tmp_path / "round-1/sft/model")
    assert one.fine_tuning().model == "runs/sft/model"
    assert [Path(path).parent.name for path in one.fine_tuning().data.train] == ["round-0", "round-1", "round-2"]


def test_replay_is_its_share_and_goes_on_from_round_to_round(tmp_path: Path) -> None:
    chats(tmp_path / "replay.parquet", 10)
    config = settings(replay=[str(tmp_path / "replay.parquet")], replay_share=0.25)
    drawn = []
    for number in range(2):
        one = Round(config, tmp_path, number)
        chats(one.chosen, 15)
        write_table(one.draw_replay(15), one.replay)
        assert one.fine_tuning().data.train == (str(one.chosen), str(one.replay))
        drawn.append(one.draw_replay(15).column("task").to_pylist())
    assert [len(rows) for rows in drawn] == [5, 5]
    assert sorted(drawn[0] + drawn[1]) == [f"{n}" for n in range(10)]
    accumulated = Round(config.model_copy(update={"from_start": True}), tmp_path, 2)
    assert len(accumulated.draw_replay(15)) == 15


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"replay": ["a.parquet"]}, "replay and replay_share require each other"),
        ({"replay_share": 0.5}, "replay and replay_share require each other"),
        ({"rollout": {"max_new_tokens": 4000}}, "exceeds rollout.engine.max_model_len 4096"),
        ({"sft": {"data": {"heldout": ["h"], "max_tokens": 1100}}}, "exceeds sft.data.max_tokens 1100"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        settings(**changes)
