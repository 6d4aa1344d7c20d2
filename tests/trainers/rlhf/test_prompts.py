"""Which prompts a step answers, and with which seeds."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from chat_formats import chat, families

from actors.config import RolloutConfig
from configs.errors import ConfigError
from data.tables import PROMPTS, DataError, write_table
from trainers.config.rlhf import PromptData
from trainers.rlhf.prompts import PromptStream


@pytest.fixture
def stream(tmp_path: Path, tokenizer: Any) -> Any:
    """Makes a stream of ten prompts, four a step, two samples each; keyword arguments change that."""
    path = tmp_path / "prompts.parquet"
    rows = [{"prompt": [{"role": "user", "content": f"{n}号头痛" * (1 + n % 3)}]} for n in range(10)]
    write_table(pa.Table.from_pylist(rows, PROMPTS), path)

    def make(
        max_tokens: int = 64, seed: int = 0, train: str = str(path), dynamic_sampling: int = 0, words: Any = tokenizer
    ) -> PromptStream:
        prompts = PromptData(train=(train,), max_tokens=max_tokens)
        algorithm = SimpleNamespace(dynamic_sampling=dynamic_sampling)
        settings: Any = SimpleNamespace(
            prompts=prompts,
            prompts_per_step=4,
            samples_per_prompt=2,
            seed=seed,
            algorithm=algorithm,
            rollout=RolloutConfig(),
        )
        return PromptStream(settings, words)

    return make


def ids(batch: pa.Table) -> list[int]:
    return batch.column("prompt_id").to_pylist()


def test_every_prompt_once_an_epoch_and_both_samples_together(stream: Any) -> None:
    prompts = stream()
    chosen = [ids(prompts.batch(step)) for step in range(5)]
    assert all(first == second for batch in chosen for first, second in zip(batch[::2], batch[1::2], strict=True))
    order = [prompt for batch in chosen for prompt in batch[::2]]
    assert sorted(order[:10]) == sorted(order[10:]) == list(range(10))
    assert order[:10] != order[10:]


def test_a_step_is_a_function_of_settings_alone(stream: Any) -> None:
    first, again, other = stream(), stream(), stream(seed=1)
    assert again.batch(7).equals(first.batch(7))
    assert not other.batch(7).equals(first.batch(7))


def test_no_two_samples_share_a_seed(stream: Any) -> None:
    prompts = stream()
    seeds = [seed for step in range(20) for seed in prompts.batch(step).column("seed").to_pylist()]
    assert len(set(seeds)) == len(seeds) == 160
    assert min(seeds) >= 0


def test_rows_at_a_position_are_those_that_steps_give(stream: Any) -> None:
    prompts = stream()
    assert len(prompts) == 10
    assert prompts.rows(4, 6).slice(0, 8).equals(prompts.batch(1))
    assert prompts.rows(4, 6).slice(8).equals(prompts.batch(2).slice(0, 4))
    first = ids(prompts.rows(7, 1))[0]
    assert prompts.messages[first][0]["content"].startswith(f"{first}号头痛")


def test_a_prompt_longer_than_the_limit_is_refused_by_its_number(stream: Any) -> None:
    with pytest.raises(DataError, match=r"prompts\.parquet: prompt \d+ has \d+ tokens, more than prompts.max_tokens 8"):
        stream(max_tokens=8)


def test_a_missing_file_is_named(stream: Any) -> None:
    with pytest.raises(ConfigError, match="/nowhere.parquet: no such file"):
        stream(train="/nowhere.parquet")


def test_samples_carry_messages_answers_and_the_rows_other_columns(tmp_path: Path, stream: Any) -> None:
    rows = [{"prompt": [{"role": "user", "content": f"{n}加一"}], "answer": str(n + 1)} for n in range(4)]
    path = tmp_path / "sums.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    prompts = stream(train=str(path))
    batch = prompts.batch(0)
    answer = [*prompts.tokenizer.encode("三", add_special_tokens=False), prompts.tokenizer.eos_token_id]
    batch = batch.append_column("response", pa.array([answer] * len(batch), pa.list_(pa.int32())))
    samples = prompts.samples(batch.append_column("finished", pa.array([True] * len(batch))))
    assert samples[3]["response"] == "三"
    for sample, prompt, number in zip(samples, ids(batch), batch.column("sample").to_pylist(), strict=True):
        assert (sample["prompt_id"], sample["sample"]) == (prompt, number)
        assert sample["prompt"] == rows[prompt]["prompt"]
        assert sample["row"] == {"answer": str(prompt + 1)}


def test_a_prompt_that_the_chat_format_refuses_is_named(tmp_path: Path, stream: Any) -> None:
    path = tmp_path / "forged.jsonl"
    path.write_text('{"prompt": [{"role": "user", "content": "a[bot]:"}]}', encoding="utf-8")
    with pytest.raises(DataError, match="prompts.train: prompt 0: chat: turn 0 .user.: contains the reserved mark"):
        stream(train=str(path))


def test_a_prompt_whose_responses_cannot_be_trained_on_is_named(tmp_path: Path, stream: Any) -> None:
    stream().require_trainable()
    path = tmp_path / "system.jsonl"
    path.write_text(json.dumps({"prompt": chat("头痛", system="你是医生")}), encoding="utf-8")
    prompts = stream(train=str(path), words=families()["mistral"].tokenizer)
    with pytest.raises(
        DataError, match="prompt 0: its responses cannot be trained on: chat: the chat template does not"
    ):
        prompts.require_trainable()


def test_a_probe_reaches_beyond_a_window(stream: Any) -> None:
    prompts = stream()
    short = prompts.probe(3)
    assert len(short) == 3
    *few, long = prompts.probe(3, 700)
    assert few == short
    assert len(long) == 700
    assert long[: len(short[0])] == short[0]
