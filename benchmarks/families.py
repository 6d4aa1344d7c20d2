"""python -m benchmarks.families [FAMILY …] [--vllm]: compares packed training of each family with Transformers.

For a miniature of each family (the family's layer types, random weights, sequences longer than its window) in fp32,
prints the largest difference between our log-probability of a token and that of Transformers on the exported folder,
before and after one update; with `--vllm`, also that of vLLM on the folder after the update, and after a second update
whose weights are published to the running engine, with the sums of the weights' bits compared. Families that packed
training does not support are listed with the reason. The output is a Markdown table; the exit status is 1 if a
difference exceeds the limit.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from actors.config import EngineConfig
from actors.modeling.attention import ATTENTION
from actors.modeling.checkpoint_format import in_checkpoint_format
from actors.modeling.miniature import VOCABULARY, miniature
from actors.modeling.packed import PackedBatch
from actors.modeling.packed_models import PackedLM
from actors.modeling.selfcheck import LENGTHS, MARKS, check_packing, plain_logprobs, randomize
from actors.weight_bits import SentBits
from benchmarks.tokens import save_tokenizer
from configs.errors import ConfigError, first_line, one_line_errors

PROG = "python -m benchmarks.families"
FAMILIES = (
    "llama", "qwen2", "qwen3", "qwen2_moe", "qwen3_moe", "mistral", "mixtral", "gemma", "gemma2", "gemma3_text", "phi3",
    "glm", "glm4", "olmo2", "granite", "gpt_oss", "deepseek_v3", "exaone4", "cohere2", "smollm3", "seed_oss", "bloom",
    "minimax", "qwen3_next", "llama4_text", "mamba", "falcon", "stablelm",
)  # fmt: skip
LIMIT = 1e-4
VLLM_HEAD = 64  # smallest head size that vLLM's CPU kernels support
HEADER = ("family", "packed", "updated", "vLLM", "published")


def compare(family: str, folder: Path, vllm: bool) -> tuple[str, ...]:
    """Returns a row of the table: differences in nats per token, or why packed training rejects the family."""
    config = AutoConfig.for_model(family)
    try:
        check_packing(config, family)
    except ConfigError as error:
        return (family, f"refused: {str(error).partition('here: ')[2]}", "", "", "")
    torch.manual_seed(0)
    small = miniature(config, head=VLLM_HEAD)
    model = AutoModelForCausalLM.from_config(small, attn_implementation=ATTENTION, dtype=torch.float32)
    with torch.no_grad():
        randomize(model)
    sequences = [torch.randint(MARKS, VOCABULARY, (length,)) for length in LENGTHS]
    batch = PackedBatch.of([sequence.numpy() for sequence in sequences])
    found = []
    for name in ("start", "trained"):
        model.save_pretrained(folder / name)
        found.append(_difference(_packed(model, batch), _plain(folder / name, sequences)))
        if name == "start":
            _update(model, batch)
    cells = [f"{difference:.1e}" for difference in found]
    if not vllm:
        return (family, *cells, "", "")
    # All before vLLM starts, which may change Transformers' classes in this process.
    exported = _packed(model, batch)
    _update(model, batch)
    weights = in_checkpoint_format(model, dict(model.named_parameters()))
    return (family, *cells, *_in_vllm(folder / "trained", sequences, exported, weights, _packed(model, batch)))


@torch.no_grad()
def _packed(model: torch.nn.Module, batch: PackedBatch) -> Tensor:
    return PackedLM(model.eval())(batch)[0]


@torch.no_grad()
def _plain(folder: Path, sequences: list[Tensor]) -> Tensor:
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()
    return torch.cat([plain_logprobs(model, sequence) for sequence in sequences])


def _update(model: torch.nn.Module, batch: PackedBatch) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    (-PackedLM(model.train())(batch)[0].mean()).backward()
    optimizer.step()


def _in_vllm(
    folder: Path, sequences: list[Tensor], exported: Tensor, weights: dict[str, Tensor], updated: Tensor
) -> tuple[str, str]:
    """Returns the differences of vLLM on a folder, and after it got new weights, from what is expected of each."""
    from actors.inference.engine import Engine

    save_tokenizer(folder, VOCABULARY)
    try:
        engine = Engine(str(folder), EngineConfig(max_model_len=64, max_concurrent=4, kv_cache_bytes=2**24))
    except Exception as error:  # noqa: BLE001  vLLM raises various exceptions for unsupported families and sizes
        return f"refused: {first_line(error)[:100]}", ""

    def difference(expected: Tensor) -> str:
        scores = engine.score([sequence.tolist() for sequence in sequences])
        found = torch.tensor([score for sequence in scores for score in sequence])
        return f"{_difference(expected, found):.1e}"

    loaded = difference(exported)
    sent = SentBits(torch.float32)
    try:
        for block in sent.over_blocks([weights]):
            engine.load_weights(block.items())
        published = difference(updated) + (
            "" if engine.bits == sent.total else f", bits {engine.bits} for {sent.total}"
        )
    except Exception as error:  # noqa: BLE001  vLLM's loaders raise various exceptions for names that they do not know
        published = f"{type(error).__name__}: {first_line(error)[:100]}"
    engine.close()
    return loaded, published


def _difference(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max())


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog=PROG, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("families", nargs="*", metavar="FAMILY", default=list(FAMILIES), help="model_type of a config")
    parser.add_argument("--vllm", action="store_true", help="load each export in vLLM, too")
    options = parser.parse_args(argv)
    wrong = False
    with one_line_errors(PROG):
        for row in _rows(options.families, options.vllm):
            print(f"| {' | '.join(row)} |", flush=True)
            wrong |= any(map(_is_wrong, row[1:]))
    return int(wrong)


def _rows(families: Sequence[str], vllm: bool) -> Iterator[tuple[str, ...]]:
    yield HEADER
    yield ("---",) * len(HEADER)
    for family in families:
        with tempfile.TemporaryDirectory() as folder:
            yield compare(family, Path(folder), vllm)


def _is_wrong(cell: str) -> bool:
    """Returns whether a cell is a difference that exceeds the limit, or says that a publish failed."""
    try:
        return float(cell) > LIMIT
    except ValueError:
        return bool(cell) and not cell.startswith(("refused", "---", *HEADER))


if __name__ == "__main__":
    sys.exit(main())
