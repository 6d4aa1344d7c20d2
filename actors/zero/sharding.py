"""Reads weights into ZeRO-3 shards: rank 0 broadcasts one parameter at a time, and each rank keeps its shard."""

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
    """Returns the full shape of a parameter, even if this rank holds only a shard of it."""
    shape: torch.Size = parameter.ds_shape if hasattr(parameter, "ds_shape") else parameter.shape
    return shape


def fill_shards(model: PreTrainedModel, stored: Mapping[str, Stored], zero: ZeroConfig) -> None:
    """Fills a model whose parameters are on the `meta` device with ZeRO-3 shards of `stored`, in `zero.dtype`.

    Collective: all ranks call it with the same model. Only rank 0 reads, and no rank ever holds more than one full
    parameter. Buffers are moved to this rank's device.

    Args:
        model: the model to fill; changed in place.
        stored: the checkpoint's tensors, by name; only rank 0's are used. Parameters without a tensor become zero.
        zero: ZeRO settings, with stage 3.
    """
    deepspeed = import_deepspeed()
    deepspeed.init_distributed(dist_backend=torch.distributed.get_backend())
    settings = deepspeed_settings(zero, 0.0, 1)
    reads = torch.distributed.get_rank() == 0
    names: dict[Parameter, list[str]] = {}  # a tied parameter has several
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(parameter, []).append(name)
    for empty, its_names in names.items():
        whole = torch.empty(empty.shape, dtype=DTYPES[zero.dtype], device=device())
        if reads:
            found = next((name for name in its_names if name in stored), None)
            whole.zero_() if found is None else whole.copy_(_read(stored[found].file, found))
        # NCCL measures a broadcast's timeout from when it is queued, and ranks that read nothing would queue all
        # broadcasts at once.
        host_group().barrier(f"reading {its_names[0]}")
        parameter = Parameter(whole, requires_grad=empty.requires_grad)
        # Broadcasts rank 0's tensor, then replaces the full tensor by this rank's shard.
        deepspeed.zero.Init(module=ParameterList([parameter]), config_dict_or_path=settings)
        for name in its_names:
            path, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(path), leaf, parameter)
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, buffer.to(device()))


def _read(file: Path, name: str) -> Tensor:
    with safe_open(
        file, framework="pt"
    ) as tensors:  # reopened for each tensor, because mapped pages count as the process's memory
        tensor: Tensor = tensors.get_tensor(name)
    return tensor
