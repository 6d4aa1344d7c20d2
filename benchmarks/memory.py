"""python -m benchmarks.memory: compares preflight's memory estimates for a PPO run on CPUs with measurements.

Trains models of random weights, with prompts and responses of one length and full micro-batches, so that every role
reaches the estimated peak. Measures the peak resident size of every role's process (VmHWM in /proc/PID/status) over two
steps with publishing, a checkpoint, and the export, and the maximum size of its file pages (RssFile): these are pages
of libraries, whose number depends on the page cache. Prints one JSON line per model.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import ray
import torch

from actors.config import ArchitectureConfig
from actors.modeling.models import load_scorer, new_causal_lm
from cluster.connect import connect
from cluster.head import Head
from cluster.memory import status_bytes
from cluster.polling import PollingThread
from configs.errors import one_line_errors
from configs.logs import configure
from data.chat import encode_prompt
from data.tables import PROMPTS, write_table
from storage.paths import resolve
from trainers.config.rlhf import PPOConfig
from trainers.ppo import read_prompts, train
from trainers.preflight.needs import plan, shape_in_folder
from trainers.runs.export import export_model, load_tokenizer
from trainers.runs.folder import Run

PROG = "python -m benchmarks.memory"
# hidden, intermediate, layers, heads; with the sample clinic's vocabulary, 4, 33, and 88 million parameters
SIZES = {"4M": (256, 688, 4, 4), "34M": (512, 1376, 10, 8), "90M": (768, 2048, 12, 12)}
RESPONSE_TOKENS = 32
_POLL_S = 0.05


class Peak(NamedTuple):
    """Peak resident memory of a process, and the peak of its part in mapped files, `files`, both in bytes."""

    whole: int
    files: int


@dataclass(frozen=True)
class Compared:
    """Peak memory of one rank of a role, in bytes, measured and estimated.

    Of the measured bytes, up to `files` are in mapped files and can be shared with other processes.
    """

    role: str
    measured: int
    estimated: int
    files: int

    @property
    def error(self) -> float:
        """The estimate's relative error; above 0 if it is too high."""
        return self.estimated / self.measured - 1


def compare(tokenizer: Path, architecture: ArchitectureConfig, micro_batch_tokens: int, folder: Path) -> list[Compared]:
    """Trains a model of random weights for two steps, and returns the peaks of every role.

    Writes the inputs to `folder`, and removes the run's folder at the end.

    Args:
        tokenizer: folder of the tokenizer.
        architecture: the shape of the model.
        micro_batch_tokens: tokens of a micro-batch of every role.
        folder: folder of the inputs.
    """
    config = _config(tokenizer, architecture, micro_batch_tokens, folder)
    configure("ppo", config.name)
    prompts = read_prompts(config)
    wanted = plan(config, shape_in_folder, None)
    needs = [need for place in wanted.groups["ppo"] for need in place.needs]
    names = {need.role: f"{config.name}/{need.role}-0" for need in needs}
    with connect(**config.cluster.connection()), Run(config.name, config) as run, _Watch({*names.values()}) as watch:
        train(config, run, prompts)
    shutil.rmtree(run.path)
    peaks = {need.role: watch.peaks[names[need.role]] for need in needs}
    return [Compared(need.role, peaks[need.role].whole, need.host_bytes, peaks[need.role].files) for need in needs]


class _Watch(PollingThread):
    """Context manager that polls the memory peaks of the actors with the names `names`.

    The kernel records a process's peak, so only a peak between the last poll and the end of the process can be missed.
    """

    def __init__(self, names: set[str]) -> None:
        super().__init__("watch", _POLL_S)
        self._names = names
        self._pids: dict[str, int] = {}
        context = ray.get_runtime_context()
        self.peaks: dict[str, Peak] = {}
        self._head, self._job = Head(context.gcs_address), context.get_job_id()

    def poll(self) -> None:
        """Reads the actors' peaks, and their process ids until all are known."""
        if self._pids.keys() != self._names:
            actors = self._head.actors(self._job)
            self._pids = {actor.name: actor.pid for actor in actors if actor.name in self._names and actor.pid}
        for name, pid in self._pids.items():
            before = self.peaks.get(name, Peak(0, 0))
            whole, files = status_bytes(pid, "VmHWM"), status_bytes(pid, "RssFile")
            self.peaks[name] = Peak(max(before.whole, whole), max(before.files, files))

    def stop(self) -> None:
        """Ends the thread and closes the connection to the head."""
        super().stop()
        self._head.close()


def _config(tokenizer: Path, architecture: ArchitectureConfig, tokens: int, folder: Path) -> PPOConfig:
    """Returns the settings of a run of two steps with two minibatches, each of two full micro-batches."""
    model, scorer, table = folder / "model", folder / "scorer", folder / "prompts.parquet"
    words = load_tokenizer(tokenizer)
    export_model(
        model,
        words,
        new_causal_lm(
            architecture, len(words), words.bos_token_id, words.eos_token_id, words.pad_token_id, 0
        ).save_pretrained,
    )
    scores = load_scorer(str(model), torch.float32)
    torch.nn.init.normal_(scores.get_submodule("score").weight)
    export_model(scorer, words, scores.save_pretrained)
    chats = [[{"role": "user", "content": f"我今年{20 + n}岁，最近三天一直头痛，应该怎么办？"}] for n in range(70)]
    length = max(len(encode_prompt(words, chat)) for chat in chats)
    write_table(pa.Table.from_pylist([{"prompt": chat} for chat in chats], PROMPTS), table)
    placement = {"cpus_per_rank": 0.25}
    role: dict[str, Any] = {"placement": placement, "micro_batch_tokens": tokens}
    return PPOConfig.model_validate(
        {
            "name": folder.name,
            "prompts": {"train": (str(table),), "max_tokens": length},
            "steps": 2,
            "prompts_per_step": 4 * (tokens // (length + RESPONSE_TOKENS)),
            "algorithm": {"minibatches": 2},
            "policy": {"model": str(model), **role},
            "critic": {"model": str(scorer), **role},
            "reference": {"model": str(model), **role},
            "reward": {"model": str(scorer), **role},
            "rollout": {
                "placement": placement,
                "max_new_tokens": RESPONSE_TOKENS,
                "engine": {"max_model_len": 512, "kv_cache_bytes": 2**27},
            },
            "checkpoint_every": 1,
        }
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Compares the selected sizes and prints the results."""
    parser = argparse.ArgumentParser(prog=PROG, description=__doc__)
    parser.add_argument("--tokenizer", default="runs/quickstart/clinic/tokenizer", help="(default: %(default)s)")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES), help="(default: all)")
    parser.add_argument("--micro-batch-tokens", type=int, default=1024, help="(default: %(default)s)")
    options = parser.parse_args(argv)
    with one_line_errors(PROG):
        for size in options.sizes:
            hidden, intermediate, layers, heads = SIZES[size]
            architecture = ArchitectureConfig(
                hidden_size=hidden, intermediate_size=intermediate, layers=layers, heads=heads, kv_heads=heads
            )
            with tempfile.TemporaryDirectory(prefix="memory-") as folder:
                found = compare(resolve(options.tokenizer), architecture, options.micro_batch_tokens, Path(folder))
            roles = {
                one.role: {
                    "measured_mib": one.measured >> 20,
                    "estimated_mib": one.estimated >> 20,
                    "error": one.error,
                    "files_mib": one.files >> 20,
                }
                for one in found
            }
            print(json.dumps({"size": size, "micro_batch_tokens": options.micro_batch_tokens, **roles}), flush=True)


if __name__ == "__main__":
    main()
