"""A run goes on only with the files that it began with, whatever kind of input they are."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from configs.errors import ConfigError
from data.tables import SFT, write_table
from trainers.config.rejection import RejectionConfig
from trainers.runs import contents
from trainers.runs.contents import FILE, require_same_contents


def chats(path: Path, rows: int) -> None:
    chat = [{"role": "user", "content": "头痛怎么办"}, {"role": "assistant", "content": "多休息。"}]
    write_table(pa.Table.from_pylist([{"messages": chat, "task": "qa"}] * rows, SFT), path)


@pytest.fixture
def config(tmp_path: Path) -> RejectionConfig:
    """Settings that name an input of every kind below `tmp_path`."""
    for folder in ("replay", "model", "run"):
        (tmp_path / folder).mkdir()
    for name in ("replay/part-0.parquet", "replay/part-1.parquet", "heldout.parquet", "prompts.parquet"):
        chats(tmp_path / name, 3)
    for name in ("config.json", "tokenizer.json", "chat_template.jinja", "README.md"):
        (tmp_path / "model" / name).write_text("{}")
    (tmp_path / "model" / "model.safetensors").write_bytes(b"0" * 100)
    (tmp_path / "reward.py").write_text("def reward(sample): return 1")
    (tmp_path / "chat.jinja").write_text("{{ messages }}")
    values = {
        "name": "t",
        "model": str(tmp_path / "model"),
        "chat": {"template": str(tmp_path / "chat.jinja")},
        "prompts": {"train": [str(tmp_path / "prompts.parquet")]},
        "reward_function": {"functions": {"f": {"file": str(tmp_path / "reward.py")}}},
        "replay": [str(tmp_path / "replay")],
        "replay_share": 0.1,
        "sft": {"data": {"heldout": [str(tmp_path / "heldout.parquet")]}},
    }
    return RejectionConfig.model_validate_json(json.dumps(values))


CHANGES: dict[str, tuple[str, str, Callable[[Path], object]]] = {
    "other rows": ("prompts.train[0]", "prompts.parquet", lambda file: chats(file, 4)),
    "other held-out rows": ("sft.data.heldout[0]", "heldout.parquet", lambda file: chats(file, 2)),
    "a new part": ("replay[0]", "replay/part-2.parquet", lambda file: chats(file, 1)),
    "a missing part": ("replay[0]", "replay/part-1.parquet", Path.unlink),
    "other weights": ("model", "model/model.safetensors", lambda file: file.write_bytes(b"1" + b"0" * 99)),
    "other settings of the model": ("model", "model/config.json", lambda file: file.write_text('{"a": 1}')),
    "another tokenizer": ("model", "model/tokenizer.json", lambda file: file.write_text('{"a": 1}')),
    "another template in the model": ("model", "model/chat_template.jinja", lambda file: file.write_text("")),
    "another template": ("chat.template", "chat.jinja", lambda file: file.write_text("")),
    "another reward": (
        "reward_function.functions.f.file",
        "reward.py",
        lambda file: file.write_text("def reward(s): return 2"),
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_input_is_refused_by_setting_and_file(change: str, config: RejectionConfig, tmp_path: Path) -> None:
    key, name, apply = CHANGES[change]
    require_same_contents(tmp_path / "run", config)
    recorded = (tmp_path / "run" / FILE).read_bytes()
    apply(tmp_path / name)
    with pytest.raises(ConfigError) as refused:
        require_same_contents(tmp_path / "run", config)
    assert str(refused.value).startswith(f"{key}: ")
    assert f"{Path(name).name} has changed since" in str(refused.value)
    assert (tmp_path / "run" / FILE).read_bytes() == recorded


def test_the_same_contents_at_another_time_are_read_once_and_not_again(
    config: RejectionConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_same_contents(tmp_path / "run", config)
    chats(tmp_path / "prompts.parquet", 3)
    (tmp_path / "model" / "README.md").write_text("other")  # decides nothing
    os.utime(tmp_path / "reward.py", ns=(1, 1))
    read: list[str] = []
    whole = contents.sha256
    monkeypatch.setattr(contents, "sha256", lambda file: read.append(file.name) or whole(file))
    for _ in range(2):
        require_same_contents(tmp_path / "run", config)
    assert read == ["prompts.parquet", "reward.py"]


def test_of_large_weights_the_ends_and_the_size_are_compared(
    config: RejectionConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents, "_WHOLE_BYTES", 50)
    monkeypatch.setattr(contents, "_END_BYTES", 10)
    weights = tmp_path / "model" / "model.safetensors"
    require_same_contents(tmp_path / "run", config)
    for changed in (b"0" * 99 + b"1", b"1" + b"0" * 99, b"0" * 101):
        weights.write_bytes(changed)
        with pytest.raises(ConfigError, match=r"^model: .*model\.safetensors has changed since"):
            require_same_contents(tmp_path / "run", config)
    weights.write_bytes(b"0" * 100)
    require_same_contents(tmp_path / "run", config)


def test_a_damaged_record_is_said_and_made_anew(
    config: RejectionConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    require_same_contents(tmp_path / "run", config)
    recorded = (tmp_path / "run" / FILE).read_bytes()
    for damaged in (recorded[:-20], recorded.replace(b'"bytes": ', b'"bytes": 1', 1), b"[1]"):
        (tmp_path / "run" / FILE).write_bytes(damaged)
        require_same_contents(tmp_path / "run", config)
    assert caplog.messages[0].startswith(f"{tmp_path / 'run' / FILE}: damaged; ")
    assert (tmp_path / "run" / FILE).read_bytes() == recorded


def test_a_change_of_equal_size_and_time_is_seen(config: RejectionConfig, tmp_path: Path) -> None:
    require_same_contents(tmp_path / "run", config)
    file = tmp_path / "reward.py"
    before = file.stat()
    file.write_text("def reward(sample): return 2")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(ConfigError, match="reward.py has changed since"):
        require_same_contents(tmp_path / "run", config)


def test_what_a_file_was_is_known_after_a_start_without_it(config: RejectionConfig, tmp_path: Path) -> None:
    require_same_contents(tmp_path / "run", config)
    (tmp_path / "prompts.parquet").unlink()
    require_same_contents(tmp_path / "run", config)  # the stage says that it is not there
    chats(tmp_path / "prompts.parquet", 4)
    with pytest.raises(ConfigError, match="prompts.parquet has changed since"):
        require_same_contents(tmp_path / "run", config)
