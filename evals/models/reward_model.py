"""A reward model loaded from its folder: the scalar output of its head at a sequence's last token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from actors.model_folder.checks import SCORE
from actors.model_folder.folders import ModelFolder
from actors.precision import Dtype, resolve_dtype
from configs.errors import ConfigError
from evals.models.device import gpu_bytes

_BATCH_TOKENS = 8192


class RewardModel:
    """A Transformers sequence-classification model with one label that scores token sequences.

    The mean logit in the model's config (`logit_mean`) is subtracted. The head is evaluated at the position of the last
    token. Transformers' own forward method uses the last non-padding token instead, which is wrong if a response
    contains the padding token. Attention is Transformers' own, not the packed one of `PackedScorer`, so architectures that
    packed attention does not support can be evaluated, too; in bfloat16, the scores of the two differ by rounding.
    """

    def __init__(self, folder: ModelFolder, dtype: Dtype = "auto") -> None:
        self.folder, self._dtype = folder, dtype
        self._model: Any = None

    def score(self, sequences: Sequence[Sequence[int]]) -> list[float]:
        """Returns the reward of each sequence, in order.

        Args:
            sequences: token ids of prompt and response, each of length 1 to the model's context.

        Raises:
            ConfigError: a sequence is empty or longer than the model's context, or the model cannot be loaded.
        """
        import torch

        for index, ids in enumerate(sequences):
            if not 1 <= len(ids) <= self.folder.context:
                raise ConfigError(
                    f"sample {index} has {len(ids)} tokens; the reward model {self.folder.path} takes 1 to "
                    f"{self.folder.context}: shorten the sample or leave it out"
                )
        model = self._loaded()
        rewards = [0.0] * len(sequences)
        with torch.inference_mode():
            for rows in _batches([len(ids) for ids in sequences]):
                for row, value in zip(rows, _last_scores(model, [sequences[row] for row in rows]), strict=True):
                    rewards[row] = value
        return rewards

    def _loaded(self) -> Any:
        """Returns the model; loads it on the first call."""
        if self._model is None:
            self._model = _load(self.folder, self._dtype)
        return self._model


def _load(folder: ModelFolder, dtype: Dtype) -> Any:
    on_gpu = gpu_bytes() is not None
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForSequenceClassification
    from transformers.utils.logging import disable_progress_bar

    from actors.model_folder.completeness import load_complete

    disable_progress_bar()
    try:
        precision = getattr(torch, resolve_dtype(dtype, on_gpu))
        load = AutoModelForSequenceClassification.from_pretrained
        model = load_complete(load, folder.path, dtype=precision)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ConfigError(f"{folder.path}: cannot be loaded as a reward model: {error}") from error
    if model.num_labels != 1:
        raise ConfigError(f"{folder.path}: has {model.num_labels} labels; a reward model has one")
    return model.to("cuda" if on_gpu else "cpu").eval()


def _batches(lengths: Sequence[int]) -> list[list[int]]:
    """Groups row indices into batches of similar lengths, shortest first.

    A batch has at most `_BATCH_TOKENS` tokens including padding, unless a single row is longer.
    """
    batches: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: lengths[row]):
        if batches and (len(batches[-1]) + 1) * lengths[row] <= _BATCH_TOKENS:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches


def _last_scores(model: Any, sequences: Sequence[Sequence[int]]) -> list[float]:
    """Returns the reward at the last token of each of B sequences, as B floats.

    Sequences are padded on the right. The real tokens of a causal model do not attend to this padding, so no mask is
    needed.
    """
    import torch

    from actors.modeling.packed_models import logit_mean

    longest = max(map(len, sequences))
    ids_BT = torch.tensor([[*ids, *[0] * (longest - len(ids))] for ids in sequences], device=model.device)
    hidden_BTD = model.base_model(input_ids=ids_BT, use_cache=False).last_hidden_state
    last_B = torch.tensor([len(ids) - 1 for ids in sequences], device=model.device)
    scores_B1 = model.get_submodule(SCORE)(hidden_BTD[torch.arange(len(sequences), device=model.device), last_B])
    values: list[float] = (scores_B1.squeeze(-1).float() - logit_mean(model.config)).tolist()
    return values
