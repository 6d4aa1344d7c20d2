from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from actors.model_folder.folders import ModelFolder
from actors.model_folder.source import model_dir
from actors.model_folder.weights import tensor_shapes, weight_names
from actors.modeling.models import load_causal_lm
from configs.errors import ConfigError

SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]


@pytest.mark.parametrize(
    ("files", "found"),
    [
        (["model.safetensors", "pytorch_model.bin", "consolidated.00.pth", "m.gguf"], ["model.safetensors"]),
        (["onnx/model.safetensors", "pytorch_model.bin", "training_args.bin"], ["pytorch_model.bin"]),
        (["model.safetensors.index.json", "consolidated.safetensors", *SHARDS], ["model.safetensors.index.json", *SHARDS]),
        (["adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"], ["adapter_model.safetensors"]),
        (["part-a.safetensors", "part-b.safetensors"], ["part-a.safetensors", "part-b.safetensors"]),
        (["flax_model.msgpack", "tf_model.h5"], []),
    ],
)  # fmt: skip
def test_weights_count_once(files: list[str], found: list[str]) -> None:
    assert weight_names(files) == found


def test_pickled_weights_load_without_running_code(copy: Callable[..., Path]) -> None:
    folder = copy()
    tensors = load_file(folder / "model.safetensors")
    expected = tensor_shapes(folder, "model")
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    assert tensor_shapes(folder, "model") == expected
    assert [name for name, _ in ModelFolder(folder).weights()] == sorted(tensors)
    loaded = load_causal_lm(str(folder), torch.float32).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())


class _Code:
    """Runs when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str, str]]:
        return Path.write_text, (Path("ran"), "")  # type: ignore[return-value]


def test_a_pickle_with_code_is_refused(copy: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = copy()
    (folder / "model.safetensors").unlink()
    torch.save({"weight": _Code()}, folder / "pytorch_model.bin")
    monkeypatch.chdir(folder)
    with pytest.raises(ConfigError, match="pytorch_model.bin: not readable as weights"):
        model_dir(folder)
    assert not Path("ran").exists()


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_truncated_weights_are_one_line(copy: Callable[..., Path], name: str) -> None:
    folder = copy()
    file = folder / name
    if name == "pytorch_model.bin":
        torch.save(load_file(folder / "model.safetensors"), file)
        (folder / "model.safetensors").unlink()
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ConfigError, match=f"model: .*{name}: not readable as weights"):
        model_dir(folder)


def test_a_missing_shard_is_named(copy: Callable[..., Path]) -> None:
    folder = copy()
    (folder / "model.safetensors").rename(folder / SHARDS[0])
    index = {"weight_map": {"a": SHARDS[0], "b": SHARDS[1]}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ConfigError, match=f"lacks 1 of 2 weight files, such as {SHARDS[1]}"):
        model_dir(folder)
    (folder / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(ConfigError, match="cannot be read as an index"):
        model_dir(folder)
