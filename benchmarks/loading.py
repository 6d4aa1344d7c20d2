"""python -m benchmarks.loading: compares the memory for loading a whole model on every rank and in shards of ZeRO-3.

Loads a checkpoint of random weights in bfloat16 (by default 0.67 GB) on two ranks joined by gloo. Each variant runs in
new processes: every rank loads the whole model in float32, as the roles of RLHF formerly did; the whole model in
`--dtype`, as the supervised stages formerly did; or only its shards. Prints one JSON line per rank. `read_mib` is the
peak anonymous memory until the model is loaded, and `made_mib` until DeepSpeed has created the optimizer, both in MiB
above the memory before loading; `bytes_per_parameter` is the former in bytes per parameter. `mapped_mib` is the size of
the pages of the weight files that the loaded model still uses; parameters are such pages unless their dtype is
converted. `seconds` is the time to load. The exit status is 1 unless the weights are bit-identical in all variants.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import chain
from typing import Any

from cluster.memory import status_bytes
from cluster.polling import PollingThread
from configs.errors import one_line_errors

PROG = "python -m benchmarks.loading"
RANKS = 2
MIB = 2**20
_POLL_S = 0.002


class _Peak(PollingThread):
    """Context manager that measures this process's peak anonymous memory, in bytes above its size at the start."""

    def __init__(self) -> None:
        super().__init__("peak", _POLL_S)
        self.bytes = 0
        self._before = self._now()

    def poll(self) -> None:
        """Updates the peak."""
        self.bytes = max(self.bytes, self._now() - self._before)

    @staticmethod
    def _now() -> int:
        return status_bytes(os.getpid(), "RssAnon")


def measure(rank: int, port: int, folder: str, way: str, dtype: Any) -> dict[str, Any]:
    """Runs one rank of one variant and returns its metrics.

    Args:
        rank: the rank.
        port: port at which rank 0 listens.
        folder: the checkpoint's folder.
        way: `shards`, or the dtype in which every rank loads the whole model.
        dtype: the dtype of training.
    """
    from actors.distributed.devices import DTYPES, join_world, prepare_process

    prepare_process(1)
    join_world(rank, RANKS, "127.0.0.1", port, 600.0)
    import torch

    from actors.config import OptimizerConfig, ZeroConfig
    from actors.modeling.models import load_causal_lm
    from actors.modeling.packed_models import PackedLM
    from actors.zero.loading import load_to_train
    from actors.zero.model import ZeroModel
    from actors.zero.settings import import_deepspeed
    from actors.zero.sharding import whole_shape

    import_deepspeed()  # before the measurement, because the import itself takes memory
    zero = ZeroConfig(dtype=dtype)
    files = status_bytes(os.getpid(), "RssFile")
    with _Peak() as peak:
        began = time.perf_counter()
        if way == "shards":
            module = load_to_train(PackedLM, folder, zero)
        else:
            module = PackedLM(load_causal_lm(folder, DTYPES[way]))
        torch.distributed.barrier()
        seconds = time.perf_counter() - began
        read = peak.bytes
        mapped = status_bytes(os.getpid(), "RssFile") - files
        model = ZeroModel(module, zero, OptimizerConfig(), 1)
    digest = hashlib.sha256()
    for name, tensor in chain.from_iterable(block.items() for block in model.weight_blocks()):
        digest.update(name.encode() + tensor.view(torch.uint8).numpy().tobytes())
    torch.distributed.barrier()
    return {
        "read_mib": read // MIB,
        "mapped_mib": max(0, mapped) // MIB,
        "made_mib": peak.bytes // MIB,
        "bytes_per_parameter": round(read / sum(whole_shape(p).numel() for p in module.parameters()), 2),
        "seconds": round(seconds, 1),
        "sha256": digest.hexdigest()[:16],
    }


def make(folder: str, layers: int) -> None:
    """Writes the checkpoint: 65.5 million parameters in the embedding and output head, and 16.8 million per layer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=layers, num_attention_heads=16, vocab_size=32_000
    )
    LlamaForCausalLM(config).bfloat16().save_pretrained(folder, max_shard_size="200MB")


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints all variants; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog=PROG, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", type=int, default=16, help="of 16.8 million parameters each (default: %(default)s)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16", help="(default: %(default)s)")
    options = parser.parse_args(argv)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    context = multiprocessing.get_context("spawn")
    digests = set()
    with one_line_errors(PROG), tempfile.TemporaryDirectory(prefix="loading-") as folder:
        with context.Pool(1) as pool:
            pool.apply(make, (folder, options.layers))
        for way in dict.fromkeys(("float32", options.dtype, "shards")):
            with socket.create_server(("127.0.0.1", 0)) as server:
                port = server.getsockname()[1]
            with context.Pool(RANKS, maxtasksperchild=1) as pool:
                given = [(rank, port, folder, way, options.dtype) for rank in range(RANKS)]
                for rank, found in enumerate(pool.starmap(measure, given, chunksize=1)):
                    digests |= {found["sha256"]} if rank == 0 else set()
                    print(json.dumps({"way": way, "dtype": options.dtype, "rank": rank, **found}), flush=True)
    return 0 if len(digests) == 1 else 1


if __name__ == "__main__":
    sys.exit(main())
