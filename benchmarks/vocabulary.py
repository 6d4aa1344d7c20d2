"""python -m benchmarks.vocabulary: a training step with a vocabulary of 151,936, with all logits at once or in chunks.

The model has the shape of Qwen2.5-0.5B and random weights; it is trained with LoRA in bfloat16, with ZeRO stage 2 on
one rank. The variants alternate, each in its own process, on sequences of 512 tokens, of which every token is
predicted. Prints one JSON line per run: the time of a step in seconds, and the process's peak resident size. The exit
status is 1 unless the variants' losses are equal within the rounding of bfloat16.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import socket
import sys
from collections.abc import Sequence
from typing import Any

from configs.errors import one_line_errors

PROG = "python -m benchmarks.vocabulary"
LENGTH = 512
LIMITS = {"whole": 2**62, "pieces": None}  # number of logits computed at a time; None: the default


def measure(limit: int | None, tokens: int, layers: int, threads: int) -> dict[str, Any]:
    """Runs two steps; returns the seconds and loss of the second, and the peak memory of the process.

    Args:
        limit: number of logits computed at a time; None for the default.
        tokens: tokens of the micro-batch.
        layers: number of layers.
        threads: number of threads.
    """
    from actors.distributed.devices import join_world, peak_bytes, prepare_process

    prepare_process(threads)
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from actors.config import LoraConfig, OptimizerConfig, ZeroConfig
    from actors.modeling.attention import ATTENTION
    from actors.modeling.packed import PackedBatch
    from actors.modeling.packed_models import PackedLM
    from actors.zero.lora import add_lora
    from actors.zero.model import ZeroModel
    from benchmarks.gpu_check.large import update
    from benchmarks.gpu_check.timing import seconds_of

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    join_world(0, 1, "127.0.0.1", port, 60.0)
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    config = Qwen2Config(
        hidden_size=896, intermediate_size=4864, num_hidden_layers=layers, num_attention_heads=14, num_key_value_heads=2,
        vocab_size=151_936, tie_word_embeddings=True, attn_implementation=ATTENTION,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    add_lora(model, LoraConfig(), seed=0)
    zero = ZeroModel(PackedLM(model, limit), ZeroConfig(stage=2, dtype="bfloat16"), OptimizerConfig(lr=1e-4), 9)
    ids = torch.randint(4, config.vocab_size, (tokens // LENGTH, LENGTH))
    parts = [PackedBatch.of(list(ids.numpy()))]
    losses: list[float] = []
    seconds = seconds_of(lambda: losses.append(update(zero, parts)), 1)
    return {"seconds": round(seconds, 2), "peak_mib": peak_bytes() // 2**20, "loss": losses[-1]}


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints all variants; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog=PROG, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokens", type=int, default=2048, help="of a micro-batch, a multiple of 512 (default 2048)")
    parser.add_argument("--layers", type=int, default=24, help="default 24")
    parser.add_argument("--threads", type=int, default=2, help="default 2")
    parser.add_argument("--repeat", type=int, default=1, help="runs of each variant (default 1)")
    options = parser.parse_args(argv)
    losses = []
    context = multiprocessing.get_context("spawn")
    with one_line_errors(PROG):
        for _ in range(options.repeat):
            for name, limit in LIMITS.items():
                with context.Pool(1) as pool:
                    found = pool.apply(measure, (limit, options.tokens, options.layers, options.threads))
                losses.append(found["loss"])
                print(json.dumps({"logits": name, **found}), flush=True)
    return 0 if max(losses) - min(losses) < 1e-2 else 1


if __name__ == "__main__":
    sys.exit(main())
