"""Weights read into the shards of ZeRO-3: rank 0 reads one parameter at a time and sends it, each rank keeps its share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor
from torch.nn import Parameter, ParameterList
from transformers import PreTrainedModel

from actors.config import ZeroConfig
from actors.distributed.devices import DTYPES, device
from actors.distributed.host_group import host_group
from actors.model_folder.weights import Stored
from actors.zero.settings import deepspeed_settings, import_deepspeed


def whole_shape(parameter: Parameter) -> torch.Size:
    """The shape of a parameter of which this rank may hold a shard."""
    shape: torch.Size = parameter.ds_shape if hasattr(parameter, "ds_shape") else parameter.shape
    return shape


def fill_shards(model: PreTrainedModel, stored: Mapping[str, Stored], zero: ZeroConfig) -> None:
    """Gives a model whose parameters are on the `meta` device those of `stored`, in `zero.dtype` and shards of ZeRO-3.

    All ranks call it, with the same model; rank 0 alone reads, and no rank ever holds more than one parameter whole. One that
    `stored` lacks is zero. Buffers come to this rank's device.
    """
    deepspeed = import_deepspeed()
    deepspeed.init_distributed(dist_backend=torch.distributed.get_backend())
    settings = deepspeed_settings(zero, 0.0, 1)
    reads = torch.distributed.get_rank() == 0
    names: dict[Parameter, list[str]] = {}  # several of a tied one
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(parameter, []).append(name)
    for empty, its_names in names.items():
        whole = torch.empty(empty.shape, dtype=DTYPES[zero.dtype], device=device())
        if reads:
            found = next((name for name in its_names if name in stored), None)
            whole.zero_() if found is None else whole.copy_(_read(stored[found].file, found))
        # NCCL counts a broadcast's time from when it is queued, and ranks that read nothing would queue all of them at once.
        host_group().barrier(f"reading {its_names[0]}")
        parameter = Parameter(whole, requires_grad=empty.requires_grad)
        # Sends rank 0's, then keeps this rank's share of it in place of the whole.
        deepspeed.zero.Init(module=ParameterList([parameter]), config_dict_or_path=settings)
        for name in its_names:
            path, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(path), leaf, parameter)
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, buffer.to(device()))


def _read(file: Path, name: str) -> Tensor:
    with safe_open(file, framework="pt") as tensors:  # for one only: what is mapped counts as the process's memory
        tensor: Tensor = tensors.get_tensor(name)
    return tensor
