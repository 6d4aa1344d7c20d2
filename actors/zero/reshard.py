"""Loads a DeepSpeed checkpoint on a different number of ranks than wrote it, through DeepSpeed's universal checkpoints.

A universal checkpoint holds every parameter unsharded, with AdamW's two moments; each rank loads its share (Lian et al.
2024).
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
from actors.zero.checkpoint import is_checkpoint
from storage.durable import writing


@contextmanager
def resharded(folder: Path) -> Iterator[Path]:
    """Converts the checkpoint in `folder`/zero to a universal one in a temporary folder next to the checkpoint.

    Collective: all ranks enter the context, and rank 0 converts.

    Raises:
        DiskError: the universal checkpoint cannot be written.
    """
    # Not inside the checkpoint, which must have no files but its own; `CheckpointStore.begin` removes what a killed
    # process leaves here.
    checkpoint = next((path for path in (folder, *folder.parents) if is_checkpoint(path)), folder)
    aside = checkpoint.with_name(f"aside-universal-{checkpoint.name}-{folder.name}")
    first = torch.distributed.get_rank() == 0
    try:
        if first:
            with writing(aside):
                shutil.rmtree(aside, ignore_errors=True)
                aside.mkdir()
                _convert(folder / "zero", aside / "zero")
        host_group().barrier("redistributing the checkpoint")
        yield aside
        host_group().barrier("loading the redistributed checkpoint")
    finally:
        if first:
            shutil.rmtree(aside, ignore_errors=True)


def load_universal(engine: Any, folder: Path) -> dict[str, Any]:
    """Loads a universal checkpoint into `engine`; returns the client state that was saved with it.

    DeepSpeed then gives every parameter group the settings of the first, and under ZeRO-3 one shared step counter,
    which every parameter would increment. This function restores each group's weight decay and gives every parameter a
    separate counter.
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
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):  # hides a page of progress output
        ds_to_universal.main(options)
