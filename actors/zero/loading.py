"""Loads a model for training: into ZeRO-3 shards if possible, otherwise in full on every rank."""

from __future__ import annotations

import logging
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
from actors.modeling.packed_models import PackedModule, PackedScorer
from actors.sizing.counting import converts
from actors.zero.sharding import fill_shards

logger = logging.getLogger(__name__)

Module = TypeVar("Module", bound=PackedModule)


def load_to_train(kind: type[Module], folder: str, zero: ZeroConfig, dropout: bool = False) -> Module:
    """Loads the model in `folder` onto this rank's device, for `actors.zero.model.ZeroModel` with the same `zero`.

    Under ZeRO-3, the model is loaded into shards, and no rank ever holds the full model. If that is not possible (see
    `whole_because`), every rank reads the full model, and rank 0 logs why. The weights are the same either way.
    Collective: all ranks call it.

    Args:
        kind: `PackedLM`, or `PackedScorer`, for which a causal language model gets a scalar head of zeros.
        folder: a Hugging Face folder or Hub id.
        zero: ZeRO settings, including the dtype.
        dropout: whether to keep the dropout of the model's config in training mode; see `load_causal_lm`.

    Raises:
        ConfigError: the model does not exist or cannot be trained.
    """
    scorer = issubclass(kind, PackedScorer)
    found = Pretrained.scorer(folder) if scorer else Pretrained.causal_lm(folder)
    model = _in_shards(found, folder, zero, scorer) if zero.stage == 3 else None
    if model is None:
        model = found.whole(DTYPES[zero.dtype]).to(device())
    return kind(model if dropout else without_dropout(model))


def _in_shards(found: Pretrained, name: str, zero: ZeroConfig, scorer: bool) -> PreTrainedModel | None:
    """Returns the model in ZeRO-3 shards; None, with the reason logged by rank 0, if its files do not allow that."""
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
            logger.info("%s: every rank reads the whole model: %s", name, reason)
        return None
    fill_shards(model, stored or {}, zero)
    return model
