"""Checks of vLLM on this device, where it is installed: the engine against the trainer, before and after a publish."""

from __future__ import annotations

import time
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from actors.config import EngineConfig
from actors.distributed.devices import device
from actors.modeling.attention import ATTENTION
from actors.modeling.checkpoint_format import in_checkpoint_format
from actors.modeling.packed import PackedBatch
from actors.modeling.packed_models import PackedLM
from actors.precision import Dtype
from actors.weight_bits import SentBits
from actors.weight_sync.publisher import ROUNDING
from benchmarks.gpu_check.checks import SkippedError
from benchmarks.tokens import save_tokenizer

VOCABULARY = 4096


def engine(gpu: bool) -> dict[str, Any]:
    """Generates with vLLM, and compares its log-probabilities with the trainer's, before and after a publish.

    Before the publish, the engine frees its memory, as roles that share a GPU do. A publish must bring every bit of the weights. Rounding may differ by what a run allows at its first publish.
    """
    if find_spec("vllm") is None:
        raise SkippedError("vLLM is not installed")
    from actors.inference.engine import Engine

    name: Dtype = "bfloat16" if gpu else "float32"
    model = _model(gpu, getattr(torch, name))
    prompts, tokens = (256, 512) if gpu else (4, 16)
    with TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        save_tokenizer(Path(folder), VOCABULARY)
        config = EngineConfig(dtype=name, max_model_len=1024, kv_cache_bytes=2**26, gpu_memory_utilization=0.4)
        running = Engine(folder, config, sleep_level=2)
        found: dict[str, Any] = {"parameters": model.num_parameters()}
        for moment in ("loaded", "published"):
            if moment == "published":
                free = [_free_bytes()]
                for resident in ("nothing", "weights"):
                    running.memory.hold(resident)
                    free.append(_free_bytes())
                found["sleep_frees_gib"] = [round((more - free[0]) / 2**30, 2) for more in free[1:]]
                found["publish_GB_per_s"] = _publish(model, running, getattr(torch, name))
                running.memory.hold("all")
            began = time.perf_counter()
            answers = running.generate(
                [[number + 1, 7, 9] for number in range(prompts)], seeds=range(prompts), max_new_tokens=tokens
            )
            seconds = time.perf_counter() - began
            found[f"{moment}_tokens_per_s"] = sum(len(answer.tokens) for answer in answers) / seconds
            sampled = [
                ([number + 1, 7, 9, *answer.tokens], answer.logprobs) for number, answer in enumerate(answers[:32])
            ]
            gap = torch.cat([_gap(model, sequence, logprobs) for sequence, logprobs in sampled])
            found[moment] = {"mean": float(gap.mean()), "p99": float(gap.quantile(0.99)), "largest": float(gap.max())}
            assert gap.max() <= ROUNDING[name].largest, f"{moment}: log-probabilities differ by {gap.max():.3g}"
        running.close()
    return found


def _free_bytes() -> int:
    return torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else 0


def _model(gpu: bool, dtype: torch.dtype) -> LlamaForCausalLM:
    sizes = {"hidden_size": 2048, "intermediate_size": 5504, "num_hidden_layers": 16} if gpu else {}
    small = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2}
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, num_attention_heads=16 if gpu else 2, max_position_embeddings=2048, **(small | sizes)
    )
    config._attn_implementation = ATTENTION
    return LlamaForCausalLM(config).to(device(), dtype).eval()


@torch.no_grad()
def _publish(model: LlamaForCausalLM, running: Any, dtype: torch.dtype) -> float:
    """Changes all weights and gives them to the engine; returns the speed in GB/s."""
    for parameter in model.parameters():
        parameter += 0.01 * torch.randn_like(parameter)
    sent = SentBits(dtype)
    began = time.perf_counter()
    running.begin_weight_load()
    for block in sent.over_blocks([in_checkpoint_format(model, dict(model.named_parameters()))]):
        running.load_weight_block(block.items())
    running.end_weight_load()
    seconds = time.perf_counter() - began
    assert running.bits == sent.total, f"the engine's bits add up to {running.bits}, those sent to {sent.total}"
    return sum(parameter.nbytes for parameter in model.parameters()) / 1e9 / seconds


@torch.no_grad()
def _gap(model: LlamaForCausalLM, sequence: list[int], logprobs: list[float]) -> Tensor:
    """Returns how much the engine's log-probabilities of a response differ from the trainer's: (tokens,) nats."""
    ours, _ = PackedLM(model)(PackedBatch.of([sequence]).to(device()))
    return (ours[-len(logprobs) :].cpu().float() - torch.tensor(logprobs)).abs()
