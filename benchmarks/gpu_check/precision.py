"""Errors of bf16 log-probabilities relative to fp32: ours on packed rows, and Transformers' sequence by sequence."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from actors.distributed.devices import device
from actors.modeling.attention import ATTENTION
from actors.modeling.miniature import VOCABULARY, miniature
from actors.modeling.packed import PackedBatch
from actors.modeling.packed_models import PackedLM
from actors.modeling.selfcheck import packed_difference, plain_logprobs, randomize

FAMILIES = (
    "llama",
    "qwen2",
    "qwen3",
    "mistral",
    "gemma2",
    "gemma3_text",
    "gpt_oss",
    "phi3",
    "glm4",
    "olmo2",
    "mixtral",
)
TIMES_WORSE = 3.0  # allowed ratio of our bf16 error to that of Transformers
ROUNDING = 0.02  # nats; errors below it are not compared


@torch.no_grad()
def families(gpu: bool) -> dict[str, Any]:
    """Checks a miniature of each family; returns our and Transformers' mean bf16 errors, and our largest fp32 error.

    Errors are in nats.
    """
    found: dict[str, Any] = {}
    for family in FAMILIES:
        small = miniature(AutoConfig.for_model(family))
        torch.manual_seed(0)
        exact = _build(small, "eager", torch.float32)
        randomize(exact)
        sequences = [torch.randint(4, VOCABULARY, (length,), device=device()) for length in (90, 90, 7, 1, 33)]
        wanted = torch.cat([plain_logprobs(exact, sequence) for sequence in sequences])
        theirs = _build(small, "eager", torch.bfloat16, exact)
        ours = _build(small, ATTENTION, torch.bfloat16, exact)
        found[family] = {
            "bf16": float((_packed(ours, sequences) - wanted).abs().mean()),
            "bf16_transformers": float(
                (torch.cat([plain_logprobs(theirs, each) for each in sequences]) - wanted).abs().mean()
            ),
            "fp32_largest": packed_difference(AutoConfig.for_model(family), where=device()),
        }
        error, reference = found[family]["bf16"], found[family]["bf16_transformers"]
        assert error < max(ROUNDING, TIMES_WORSE * reference), (
            f"{family}: bf16 is off by {error:.3g}, not {reference:.3g}"
        )
        assert found[family]["fp32_largest"] < 1e-3, f"{family}: fp32 is off by {found[family]['fp32_largest']:.2g}"
    return found


@torch.no_grad()
def precision(gpu: bool) -> dict[str, Any]:
    """Compares packed bf16, Transformers' bf16 (SDPA), and fp32 on a model of 0.9 billion random parameters.

    Returns statistics of the differences between their log-probabilities, in nats.
    """
    hidden, layers, length = (2048, 16, 1024) if gpu else (64, 3, 48)
    config = LlamaConfig(
        vocab_size=39_424 if gpu else 256,
        hidden_size=hidden,
        intermediate_size=hidden * 11 // 4,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64 if not gpu else 16,
        num_key_value_heads=hidden // 64 if not gpu else 4,
        max_position_embeddings=4096,
    )
    torch.manual_seed(0)
    exact = _build(config, "sdpa", torch.float32)
    sequences = [torch.randint(4, config.vocab_size, (n,), device=device()) for n in (length, length // 3, length, 17)]
    wanted = torch.cat([plain_logprobs(exact, sequence) for sequence in sequences])
    theirs = _build(config, "sdpa", torch.bfloat16, exact)
    ours = _build(config, ATTENTION, torch.bfloat16, exact)
    del exact
    bf16 = torch.cat([plain_logprobs(theirs, sequence) for sequence in sequences])
    packed = _packed(ours, sequences)
    found = {
        "packed_vs_fp32": _summary(packed - wanted),
        "transformers_vs_fp32": _summary(bf16 - wanted),
        "packed_vs_transformers": _summary(packed - bf16),
    }
    ours_mean, theirs_mean = found["packed_vs_fp32"]["mean"], found["transformers_vs_fp32"]["mean"]
    assert ours_mean < 1.5 * theirs_mean + 1e-3, (
        f"packed bf16 is off by {ours_mean:.3g}, Transformers by {theirs_mean:.3g}"
    )
    return found


def _build(config: Any, attention: str, dtype: torch.dtype, like: PreTrainedModel | None = None) -> PreTrainedModel:
    with device():
        model = AutoModelForCausalLM.from_config(deepcopy(config), attn_implementation=attention, dtype=dtype).eval()
    if like is not None:
        model.load_state_dict(like.state_dict())
    return model


def _packed(model: PreTrainedModel, sequences: list[Tensor]) -> Tensor:
    batch = PackedBatch.of([sequence.cpu().numpy() for sequence in sequences]).to(device())
    return PackedLM(model)(batch)[0]


def _summary(differences: Tensor) -> dict[str, float]:
    sizes = differences.abs().double()
    return {
        "mean": float(sizes.mean()),
        "p99": float(sizes.quantile(0.99)),
        "largest": float(sizes.max()),
    }
