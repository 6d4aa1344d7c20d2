from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from chat_formats import chat, families, qwen3, tiny_model, trained

from actors.config import ZeroConfig
from configs.errors import ConfigError
from data.tables import SFT, DataError, write_table
from trainers.config.supervised import SftConfig
from trainers.supervised.tasks.sft import SftStage


def stage(data: Any, clinic: Path, **section: Any) -> SftStage:
    values = {"name": "t", "model": str(clinic / "model"), "data": {**data("sft"), "max_tokens": 512, **section}}
    return SftStage(SftConfig.model_validate_json(json.dumps(values)))


def table(path: Path, messages: list[dict[str, str]]) -> list[str]:
    write_table(pa.Table.from_pylist([{"messages": messages, "task": "qa"}], SFT), path)
    return [str(path)]


def test_only_answers_and_their_end_marks_are_predicted(data: Any, clinic: Path) -> None:
    sft = stage(data, clinic)
    train = sft.examples().train
    batch = sft.batch(train, [5, 2])
    answers = "".join("多休息，" * (1 + n % 4) + "</s>" for n in (5, 2))
    assert sft.tokenizer.decode(batch.targets) == answers
    assert len(batch.predict) == train["weight"][5].as_py() + train["weight"][2].as_py()
    assert sum(batch.lengths) == train["size"][5].as_py() + train["size"][2].as_py()


def test_earlier_answers_are_only_read_if_asked_for(data: Any, clinic: Path, tmp_path: Path) -> None:
    turns = [("user", "头痛怎么办"), ("assistant", "多休息。"), ("user", "还有呢"), ("assistant", "按时服药。")]
    chats = table(tmp_path / "two.parquet", [{"role": role, "content": content} for role, content in turns])
    for train_on, answers in (("every_response", "多休息。</s>按时服药。</s>"), ("last_response", "按时服药。</s>")):
        sft = stage(data, clinic, train=chats)
        sft = SftStage(sft.config.model_copy(update={"train_on": train_on}))
        batch = sft.batch(sft.examples().train, [0])
        assert sft.tokenizer.decode(batch.targets) == answers


def test_the_loss_is_the_sum_over_answer_tokens(data: Any, clinic: Path) -> None:
    sft = stage(data, clinic)
    sft = SftStage(sft.config.model_copy(update={"zero": ZeroConfig(stage=0)}))  # a module without ZeroModel
    train = sft.examples().train
    batch = sft.batch(train, [0, 1, 2])
    module = sft.module()
    with torch.no_grad():
        logits = module.get_submodule("model")(**batch.model_inputs()).logits[0]
        by_hand = torch.nn.functional.cross_entropy(logits[batch.predict], batch.targets, reduction="sum")
        outputs = sft.run(module, batch)
    assert sft.loss(outputs, batch).item() == pytest.approx(by_hand.item(), rel=1e-6)
    sums = {name: figure.item() for name, figure in sft.heldout_sums(outputs, batch).items()}
    mean = by_hand.item() / len(batch.predict)
    assert sft.heldout_metrics(sums, train)["heldout_loss"] == pytest.approx(mean, rel=1e-6)


def test_a_long_chat_is_refused_or_cut(data: Any, clinic: Path) -> None:
    with pytest.raises(DataError, match=r"data.train: row 0 has \d+ tokens, more than data.max_tokens 16"):
        stage(data, clinic, max_tokens=16).examples()


def test_a_long_chat_is_cut_at_the_end_of_an_answer(data: Any, clinic: Path, tmp_path: Path) -> None:
    pair = [{"role": "user", "content": "头痛怎么办"}, {"role": "assistant", "content": "多休息。"}]
    long = [pair[0], {"role": "assistant", "content": "多休息，" * 60}]
    tables = [table(tmp_path / f"{n}.parquet", chat)[0] for n, chat in enumerate((pair * 6, pair, long))]
    size = stage(data, clinic, train=tables).examples().train["size"].to_pylist()[1]
    sft = stage(data, clinic, train=tables, heldout=tables, max_tokens=2 * size + 3, too_long="cut")
    examples = sft.examples()
    cut, kept = examples.train["tokens"].to_pylist()
    assert sft.tokenizer.decode(kept) == "[human]:头痛怎么办\n[bot]:多休息。</s>"
    assert cut == kept * 2
    assert "2 samples, 1 of them cut, 8 turns in all, 1 left out as too long" in examples.notes[0]
    with pytest.raises(DataError, match="no chat's first response ends within data.max_tokens 16"):
        stage(data, clinic, train=tables[2:], max_tokens=16, too_long="cut").examples()


def test_a_bad_chat_is_named_by_its_row(data: Any, clinic: Path, tmp_path: Path) -> None:
    bad = table(tmp_path / "bad.parquet", [{"role": "assistant", "content": "答"}])
    with pytest.raises(DataError, match=r"data.train: row 0: chat: turn 0"):
        stage(data, clinic, train=bad).examples()
    unanswered = table(tmp_path / "unanswered.parquet", [{"role": "user", "content": "问"}])
    with pytest.raises(DataError, match=r"data.train: row 0 has no response"):
        stage(data, clinic, train=unanswered).examples()


def test_a_missing_model_is_one_line(data: Any, clinic: Path, tmp_path: Path) -> None:
    config = stage(data, clinic).config.model_copy(update={"model": str(tmp_path / "none")})
    with pytest.raises(
        ConfigError, match=r"model folder: there is no folder .*none; .*run the stage that makes it"
    ):
        SftStage(config).examples()


def test_a_folder_without_weights_is_one_line(data: Any, clinic: Path, tmp_path: Path) -> None:
    hollow = tmp_path / "hollow"
    shutil.copytree(clinic / "model", hollow, ignore=shutil.ignore_patterns("*.safetensors"))
    config = stage(data, clinic).config.model_copy(update={"model": str(hollow)})
    with pytest.raises(ConfigError, match=r"no weights .* in .*hollow"):
        SftStage(config).examples()


def learned(sft: SftStage, train: pa.Table) -> list[str]:
    """What is trained on of every row."""
    rows = zip(train["tokens"].to_pylist(), train["targets"].to_pylist(), strict=True)
    return ["".join(trained(sft.tokenizer, ids, mask)) for ids, mask in rows]


def in_format(data: Any, clinic: Path, tmp_path: Path, tokenizer: Any, messages: Any, **section: Any) -> SftStage:
    chats = table(tmp_path / "chats.parquet", messages)
    sft = stage(data, clinic, train=chats, heldout=chats, **section)
    return SftStage(sft.config.model_copy(update={"model": str(tiny_model(tokenizer, tmp_path / "other"))}))


def test_the_format_is_the_checkpoints(data: Any, clinic: Path, tmp_path: Path) -> None:
    sft = in_format(data, clinic, tmp_path, families()["chatml"].tokenizer, chat("头痛", "多休息", "还有呢", "喝水"))
    assert learned(sft, sft.examples().train) == ["多休息<|im_end|>喝水<|im_end|>"]


def test_a_turn_that_the_format_leaves_open_is_closed(data: Any, clinic: Path, tmp_path: Path) -> None:
    sft = in_format(data, clinic, tmp_path, families()["glm 4"].tokenizer, chat("头痛", "多休息", "还有呢", "喝水"))
    assert learned(sft, sft.examples().train) == ["\n多休息<|user|>\n喝水<|user|>"]


def test_a_format_that_drops_reasoning_gives_a_sample_for_each_response(
    data: Any, clinic: Path, tmp_path: Path
) -> None:
    messages = chat("头痛", "<think>\n想\n</think>\n\n多休息", "还有呢", "喝水" * 40)
    sft = in_format(data, clinic, tmp_path, qwen3(), messages, too_long="cut", max_tokens=512)
    examples = sft.examples()
    first = "<think>\n想\n</think>\n\n多休息<|im_end|>"
    assert learned(sft, examples.train) == [first, "<think>\n\n</think>\n\n" + "喝水" * 40 + "<|im_end|>"]
    assert "2 sequences, since the chat template renders earlier turns differently" in examples.notes[0]
    sft = in_format(data, clinic, tmp_path, qwen3(), messages, too_long="cut", max_tokens=128)
    examples = sft.examples()
    assert learned(sft, examples.train) == [first]
    assert "1 samples, 1 of them cut, 2 turns in all" in examples.notes[0]
