"""The weight files of a checkpoint's folder: their names, completeness, and tensors."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from zipfile import is_zipfile

from configs.errors import ConfigError, first_line

SAFETENSORS, BIN = "model.safetensors", "pytorch_model.bin"
ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")


class Stored(NamedTuple):
    """A tensor of a safetensors file, as described by the file's header."""

    file: Path
    dtype: str
    """The dtype's name in safetensors, such as `BF16`."""
    shape: tuple[int, ...]


def weight_names(files: Sequence[str]) -> list[str]:
    """Selects the weight files, including an index, from the names of all files of a checkpoint; prefers safetensors.

    A repository may contain the same weights several times: as `consolidated.safetensors`, `pytorch_model.bin`, or as
    .gguf, .pth, and ONNX files in subfolders. Only those that Transformers loads are selected.
    """
    top = [file for file in files if "/" not in file]
    if "adapter_config.json" in top and (adapter := [name for name in ADAPTER_WEIGHTS if name in top]):
        own = _own_weights(top)
        return own or adapter[:1]
    return _own_weights(top)


def _own_weights(top: Sequence[str]) -> list[str]:
    for whole in (SAFETENSORS, BIN):
        index, (stem, suffix) = f"{whole}.index.json", whole.split(".")
        if whole in top:
            return [whole]
        if index in top:
            return [index, *sorted(name for name in top if name.startswith(f"{stem}-") and name.endswith(f".{suffix}"))]
    return sorted(
        name for name in top if name.endswith(".safetensors") and not name.startswith(("adapter_", "consolidated"))
    )


def weight_files(folder: Path, what: str) -> list[Path]:
    """Returns the weight files of a model's folder, without the index.

    Raises:
        ConfigError: there are no weights, or the index cannot be read or names missing files; the message starts with
            `what`.
    """
    names = weight_names([path.name for path in folder.iterdir()])
    if not names:
        raise ConfigError(
            f"{what}: no weights (*.safetensors, pytorch_model*.bin) in {folder}; name a folder in Hugging Face format"
        )
    if not names[0].endswith(".index.json"):
        return [folder / name for name in names]
    try:
        listed = sorted(set(json.loads((folder / names[0]).read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{what}: {folder / names[0]} cannot be read as an index of weights; copy it again"
        ) from error
    missing = [name for name in listed if not (folder / PurePosixPath(name).name).is_file()]
    if missing:
        raise ConfigError(
            f"{what}: {folder} lacks {len(missing)} of {len(listed)} weight files, such as {missing[0]}; "
            "copy or download the model again"
        )
    return [folder / PurePosixPath(name).name for name in listed]


def tensor_shapes(folder: Path, what: str) -> Mapping[str, tuple[int, ...]]:
    """Returns the shape of every tensor in a model's folder, by name. Of safetensors files, only headers are read.

    Raises:
        ConfigError: a file is missing (see `weight_files`), is truncated, or has another format.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for file in weight_files(folder, what):
        shapes |= shapes_in(file, what)
    return shapes


def stored_tensors(folder: Path, what: str) -> Mapping[str, Stored] | None:
    """Returns every tensor in a model's folder, by name, from headers only; None if not all are in safetensors files.

    If several files have a tensor of the same name, the last file's is used, as in Transformers.

    Raises:
        ConfigError: see `tensor_shapes`.
    """
    tensors: dict[str, Stored] = {}
    for file in weight_files(folder, what):
        if file.suffix != ".safetensors":
            return None
        header = _readable(_header, file, what)
        tensors |= {name: Stored(file, entry["dtype"], tuple(entry["shape"])) for name, entry in header.items()}
    return tensors


def shapes_in(file: Path, what: str) -> Mapping[str, tuple[int, ...]]:
    """Returns the shape of every tensor in one file, by name.

    Raises:
        ConfigError: the file is truncated or has another format.
    """
    if file.suffix == ".safetensors":
        return {name: tuple(entry["shape"]) for name, entry in _readable(_header, file, what).items()}
    return _readable(_pickled, file, what)


def _readable(read: Callable[[Path], dict[str, Any]], file: Path, what: str) -> dict[str, Any]:
    """Calls `read` on a file and converts its errors to ConfigError."""
    try:
        return read(file)
    except Exception as error:
        reason = first_line(error)
        raise ConfigError(
            f"{what}: {file}: not readable as weights ({reason}); copy or export the model again"
        ) from error


def _header(file: Path) -> dict[str, Any]:
    """Reads the header of a safetensors file: 8 bytes with the header's length, the header as JSON, then the data.

    Raises ValueError if the file's size does not match its header.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        if length > size:
            raise ValueError("its header is longer than the file")
        header = json.loads(stream.read(length))
    header.pop("__metadata__", None)
    end = 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)
    if end != size:
        raise ValueError(f"it has {size} bytes instead of {end}")
    return dict(header)


def _pickled(file: Path) -> dict[str, tuple[int, ...]]:
    import torch

    state = torch.load(file, map_location="meta", weights_only=True, mmap=is_zipfile(file))
    return {name: tuple(value.shape) for name, value in state.items() if isinstance(value, torch.Tensor)}
