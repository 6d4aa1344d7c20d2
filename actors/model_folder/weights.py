"""The weight files of a checkpoint's folder: which ones there are, whether they are whole, which tensors they hold."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from zipfile import is_zipfile

from configs.errors import ConfigError

SAFETENSORS, BIN = "model.safetensors", "pytorch_model.bin"
ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")


class Stored(NamedTuple):
    """A tensor of a safetensors file, by its header."""

    file: Path
    dtype: str
    """By safetensors' name, such as `BF16`."""
    shape: tuple[int, ...]


def weight_names(files: Sequence[str]) -> list[str]:
    """The files of a checkpoint that hold its weights, of the names of all its files; safetensors where there are any.

    A repository may hold the same weights several times: as `consolidated.safetensors`, `pytorch_model.bin`, or as .gguf,
    .pth and ONNX files in folders of their own. Only those that Transformers loads count. An index counts, too.
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
    """The weight files of a model's folder, without the index.

    Raises:
        ConfigError: no weights, or an index that names files that are not there; `what` is named.
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
    """The shape of every tensor of a model's folder, by name; of safetensors only headers are read.

    Raises:
        ConfigError: as `weight_files`, or a file that is truncated or of another format.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for file in weight_files(folder, what):
        shapes |= shapes_in(file, what)
    return shapes


def stored_tensors(folder: Path, what: str) -> Mapping[str, Stored] | None:
    """Every tensor of a model's folder, by name; None if they are not in safetensors files. Only headers are read.

    Of a name that several files have, the last file counts, as it does for Transformers.

    Raises:
        ConfigError: as `tensor_shapes`.
    """
    tensors: dict[str, Stored] = {}
    for file in weight_files(folder, what):
        if file.suffix != ".safetensors":
            return None
        header = _readable(_header, file, what)
        tensors |= {name: Stored(file, entry["dtype"], tuple(entry["shape"])) for name, entry in header.items()}
    return tensors


def shapes_in(file: Path, what: str) -> Mapping[str, tuple[int, ...]]:
    """The shape of every tensor of one file. Raises ConfigError, as `tensor_shapes`."""
    if file.suffix == ".safetensors":
        return {name: tuple(entry["shape"]) for name, entry in _readable(_header, file, what).items()}
    return _readable(_pickled, file, what)


def _readable(read: Callable[[Path], dict[str, Any]], file: Path, what: str) -> dict[str, Any]:
    """What `read` finds in a file; its errors become ConfigError."""
    try:
        return read(file)
    except Exception as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ConfigError(
            f"{what}: {file}: not readable as weights ({reason}); copy or export the model again"
        ) from error


def _header(file: Path) -> dict[str, Any]:
    """A safetensors file begins with the length of its header in 8 bytes; then come the header, JSON, and the data."""
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
