"""Samples of a run's responses as text: samples/step-XXXXXXXX.jsonl, one line per response."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa

from actors.modeling.rows import lengths
from actors.rewards.sample import Sample
from actors.table import reward_sources
from storage.durable import make_folder, replace_file


def write_samples(folder: Path, step: int, samples: list[Sample], table: pa.Table) -> None:
    """Writes the responses of `step`, highest reward first, with the reward from every source.

    Raises:
        DiskError: the file cannot be written.
    """
    sources = reward_sources(table)
    rewards, tokens = table.column("reward").to_pylist(), lengths(table, "response").tolist()
    parts = [
        dict(zip(sources, values, strict=True))
        for values in zip(*(table.column(n).to_pylist() for n in sources), strict=True)
    ]
    lines = [
        {
            "step": step,
            "prompt": sample["prompt"],
            "response": sample["response"],
            "tokens": count,
            "finished": sample["finished"],
            "reward": reward,
            "parts": {name.removeprefix("reward_"): value for name, value in of.items()},
        }
        for sample, reward, count, of in zip(samples, rewards, tokens, parts, strict=True)
    ]
    lines.sort(key=lambda line: -line["reward"])
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    make_folder(folder)
    replace_file(folder / f"step-{step:08d}.jsonl", text.encode(), synced=False)  # a repeated step writes it again
