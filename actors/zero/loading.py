"""The one way in which roles and stages read a model that they train: into shards where ZeRO-3 can, else whole on every rank."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import torch
from transformers import PreTrainedModel

from actors.config import ZeroConfig
from actors.distributed.devices import DTYPES, device
from actors.distributed.host_group import host_group
from actors.model_folder.layout import CONVERTED, whole_because
from actors.model_folder.weights import Stored, stored_tensors
from actors.modeling.models import Pretrained, without_dropout
from actors.modeling.packed import PackedModule, PackedScorer
from actors.sizing.counting import converts
from actors.zero.sharding import fill_shards

Module = TypeVar("Module", bound=PackedModule)


def load_to_train(kind: type[Module], folder: str, zero: ZeroConfig, seed: int = 0, dropout: bool = False) -> Module:
    """The model in `folder` as a module for `actors.zero.model.ZeroModel` with the same `zero`, on this rank's device.

    Under ZeRO-3 it comes in shards, and no rank ever holds all of it. Where that is not possible (`whole_because`), every
    rank reads all of it, and rank 0 prints why. The weights are the same either way. All ranks call it.

    Args:
        kind: `PackedLM`, or `PackedScorer`, for which a causal language model gets a scalar head of zeros.
        seed: of the weights that a checkpoint should have but has not.
        dropout: whether training mode has the dropout of the model's config (`load_causal_lm` says why not).

    Raises:
        ConfigError: no such model, or one that cannot be trained.
    """
    scorer = issubclass(kind, PackedScorer)
    found = Pretrained.scorer(folder) if scorer else Pretrained.causal_lm(folder)
    torch.manual_seed(seed)
    model = _in_shards(found, folder, zero, scorer) if zero.stage == 3 else None
    if model is None:
        model = found.whole(DTYPES[zero.dtype]).to(device())
    return kind(model if dropout else without_dropout(model))


def _in_shards(found: Pretrained, name: str, zero: ZeroConfig, scorer: bool) -> PreTrainedModel | None:
    """The model in shards; None if its files do not allow that."""
    model = found.empty(DTYPES[zero.dtype])
    stored: Mapping[str, Stored] | None = None
    reason = ""
    rank = torch.distributed.get_rank()
    if rank == 0:
        stored = stored_tensors(found.folder, name)
        shapes = {its: tuple(parameter.shape) for its, parameter in model.named_parameters()}
        reason = CONVERTED if converts(model) else whole_because(shapes, stored, scorer)
    reason = host_group().of_first_rank(reason, "reading the model's headers")  # nodes may have different files
    if reason:
        if rank == 0:
            print(f"{name}: every rank reads the whole model: {reason}", flush=True)
        return None
    fill_shards(model, stored or {}, zero)
    return model
