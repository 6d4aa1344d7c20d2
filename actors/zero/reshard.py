"""A DeepSpeed checkpoint read by another number of ranks than wrote it: by way of DeepSpeed's universal checkpoint.

That has every parameter whole, with AdamW's two moments; each rank takes its share (Lian et al. 2024).
"""

from __future__ import annotations

import shutil
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import torch

from actors.distributed.host_group import host_group
from storage.durable import writing


@contextmanager
def resharded(folder: Path) -> Iterator[Path]:
    """A universal checkpoint made of the one in `folder`/zero, in a folder beside, which is removed at the end.

    All ranks enter; rank 0 writes. Raises DiskError.
    """
    aside = folder.with_name(f"aside-universal-{folder.name}")
    first = torch.distributed.get_rank() == 0
    if first:
        with writing(aside):
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir()
            _convert(folder / "zero", aside / "zero")
    host_group().barrier("redistributing the checkpoint")
    yield aside
    host_group().barrier("loading the redistributed checkpoint")
    if first:
        shutil.rmtree(aside)


def load_universal(engine: Any, folder: Path) -> dict[str, Any]:
    """Loads it; returns what was saved beside weights and optimizer.

    DeepSpeed gives every group of parameters the first one's settings then, and all of ZeRO-3's one step counter, which
    each would count up; they get their own weight decay back, and a counter each.
    """
    decays = [group["weight_decay"] for group in engine.optimizer.param_groups]
    engine._config.load_universal_checkpoint = True
    try:
        _, state = engine.load_checkpoint(str(folder), tag="zero")
    finally:
        engine._config.load_universal_checkpoint = False
    for group, decay in zip(engine.optimizer.param_groups, decays, strict=True):
        group["weight_decay"] = decay
    for moments in engine.optimizer.optimizer.state.values():
        moments["step"] = moments["step"].clone()
    return dict(state)


def _convert(source: Path, target: Path) -> None:
    from deepspeed.checkpoint import ds_to_universal

    options = Namespace(
        input_folder=str(source),
        output_folder=str(target),
        num_extract_workers=1,  # in this process: it has threads, so it should not be forked
        num_merge_workers=1,
        keep_temp_folder=False,
        strict=True,
        inject_missing_state=True,
    )
    target.mkdir()
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):  # a page of progress
        ds_to_universal.main(options)
