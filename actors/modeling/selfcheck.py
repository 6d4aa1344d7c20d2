"""Checks that an architecture computes the same on packed rows as its own Transformers code does sequence by sequence.

A miniature of the model (`actors.modeling.miniature`) with random weights runs both ways, on sequences longer than its
window. An architecture whose results differ would be trained incorrectly without an error, so it is rejected. Possible
causes are layers that attend across sequences, positions that do not follow `position_ids`, and masks that are passed
only to other attention implementations.
"""

from __future__ import annotations

import json
from copy import deepcopy
from functools import lru_cache

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from actors.modeling.attention import ATTENTION
from actors.modeling.miniature import VOCABULARY, layer_types, miniature, scale_of
from actors.modeling.packed import PackedBatch
from actors.modeling.packed_models import PackedLM
from configs.errors import ConfigError, first_line

LENGTHS = (19, 19, 7, 1, 26, 3)
PIECE = 13  # predicted tokens whose logits are computed at a time, in the second of two passes
MARKS = 4  # number of unused lowest token ids, which some embeddings treat as special
TOLERANCE = 1e-4  # largest allowed difference of a log-probability in fp32, in nats; rounding causes about 1e-6

_OTHER_INPUTS = ("text_config", "vision_config", "audio_config", "speech_config")
# Settings of state-space and other recurrent layers. A miniature would also show that they cannot be packed, but only
# after minutes.
_RECURRENT = (
    "state_size",
    "ssm_state_size",
    "ssm_cfg",
    "mamba_d_state",
    "time_step_rank",
    "lru_width",
    "rescale_every",
)


def check_packing(config: PretrainedConfig, where: str) -> None:
    """Rejects an architecture that packed training would compute incorrectly. Takes at most 1 s for any model size.

    Args:
        config: the checkpoint's config.
        where: name of the checkpoint in messages.

    Raises:
        ConfigError: the architecture cannot be trained on packed rows; the message names the offending layer type or
            setting.
    """
    problem = _problem(config.model_type, config.to_json_string(use_diff=False))
    if problem:
        raise ConfigError(f"{where}: {config.model_type} cannot be trained here: {problem}")


@lru_cache(maxsize=64)
def _problem(model_type: str, config_json: str) -> str:
    settings = json.loads(config_json)
    settings.pop("model_type", None)
    config = AutoConfig.for_model(model_type, **settings)
    if refused := _refused_settings(config):
        return refused
    try:
        difference = packed_difference(config)
    except Exception as error:  # noqa: BLE001  an unknown architecture may fail in any way; the message names it
        return f"its architecture does not run on packed sequences ({type(error).__name__}: {first_line(error)})"
    if difference <= TOLERANCE:
        return ""
    for kind in layer_types(config):
        alone = packed_difference(config, only=kind) if kind else difference
        if not alone <= TOLERANCE:
            return (
                f"its layers{f' of type {kind}' if kind else ''} compute something else on packed sequences "
                f"(log-probabilities differ by {alone:.2g})"
            )
    return (
        f"its layers together compute something else on packed sequences (log-probabilities differ by {difference:.2g})"
    )


def _refused_settings(config: PretrainedConfig) -> str:
    if config.is_encoder_decoder:
        return "it is an encoder-decoder; name a decoder-only language model"
    if found := [name for name in _OTHER_INPUTS if getattr(config, name, None) is not None]:
        return f"it reads more than text (its config has {found[0]}); export its language model alone"
    if found := [name for name in _RECURRENT if getattr(config, name, None) is not None]:
        return f"it has recurrent layers (its config has {found[0]}), whose state passes from one packed sequence to the next"
    rope = getattr(config, "rope_parameters", None) or {}
    for parameters in (rope, *(part for part in rope.values() if isinstance(part, dict))):
        kind = parameters.get("rope_type")
        longest = getattr(config, "max_position_embeddings", None) or 0
        original = parameters.get("original_max_position_embeddings") or longest
        if kind in ("dynamic", "longrope") and original < longest:
            return (
                f"rope type {kind!r} rotates all tokens of a batch differently once one sequence exceeds {original} tokens; "
                f"set max_position_embeddings to {original} in config.json to train on sequences up to that length"
            )
    return ""


def packed_difference(config: PretrainedConfig, only: str | None = None, where: torch.device | str = "cpu") -> float:
    """Returns the largest difference (nats) of a token's log-probability between packed and one-by-one computation.

    Computed in fp32 on a miniature of the model.

    Args:
        config: the original model's config.
        only: restricts the miniature's layers to this type.
        where: the device to compute on.
    """
    small = miniature(config, only)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        plain, packed = _new_model(small, "eager").to(where), _new_model(small, ATTENTION).to(where)
        randomize(plain)
        packed.load_state_dict(plain.state_dict())
        sequences = [torch.randint(MARKS, VOCABULARY, (length,)) for length in LENGTHS]
        batch = PackedBatch.of([sequence.numpy() for sequence in sequences]).to(where)
        theirs = torch.cat([plain_logprobs(plain, sequence.to(where)) for sequence in sequences])
        ours = [PackedLM(packed, elements)(batch)[0] for elements in (None, PIECE * VOCABULARY)]
    return max(float((each - theirs).abs().nan_to_num(torch.inf).max()) for each in ours)


def plain_logprobs(model: PreTrainedModel, sequence: Tensor) -> Tensor:
    """Returns the log-probabilities (nats) of all tokens but the first, (L - 1,), by the model's own forward pass.

    `sequence` holds token ids, (L,) int64.
    """
    logits = model(input_ids=sequence[None], use_cache=False).logits[0, :-1].float()
    return logits.log_softmax(-1).gather(1, sequence[1:, None]).squeeze(1)


def _new_model(config: PretrainedConfig, attention: str) -> PreTrainedModel:
    own = deepcopy(config)  # from_config writes the implementation into it
    return AutoModelForCausalLM.from_config(own, attn_implementation=attention, dtype=torch.float32).eval()


def randomize(model: PreTrainedModel) -> None:
    """Randomizes the weights in place, with attention far from uniform so that a wrong mask changes the output.

    Matrices are drawn from a normal distribution. Noise is added to 1-D parameters (biases, norm weights), which
    otherwise are constants.
    """
    for parameter in model.parameters():
        if parameter.dim() >= 2:
            parameter.normal_(0.0, scale_of(parameter.shape[-1]))
        else:
            parameter.add_(torch.randn_like(parameter) * 0.2)
