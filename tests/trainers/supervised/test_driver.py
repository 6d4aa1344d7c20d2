from __future__ import annotations

import contextlib
import json
import math
import re
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest
import torch
from ranks import on_ranks
from safetensors.torch import load_file
from short_sft import SETTINGS

from storage.paths import runs_root
from trainers.config.supervised import PretrainConfig, SftConfig
from trainers.runs.folder import read_metrics
from trainers.supervised.driver import main, total_steps
from trainers.supervised.stage import Job
from trainers.supervised.tasks.sft import SftStage

# In micro-batches of 64 tokens one rank adds up the same pieces as two ranks do.
SMALL = ("--data.max_tokens=64", "--micro_batch_tokens=64")


@pytest.fixture(scope="module")
def recipe(clinic: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe with an SFT stage of 8 steps that can run on one or two ranks."""
    section = {
        "name": "t",
        "model": str(clinic / "model"),
        "data": {
            "train": [str(clinic / "sft.train.parquet")],
            "heldout": [str(clinic / "sft.heldout.parquet")],
            "max_tokens": 512,
        },
        "batch_size": 4,
        "epochs": 1,
        "eval_every": 4,
        "checkpoint_every": 2,
        "optimizer": {"lr": 1e-2},
    }
    path = tmp_path_factory.mktemp("sft") / "recipe.yaml"
    path.write_text(json.dumps({"sft": section}))
    return path


@pytest.fixture(scope="module")
def whole(recipe: Path, ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run on one rank that nothing interrupted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHIMED_RUNS", str(tmp_path_factory.mktemp("whole")))
        main(SftStage, "sft", ["--config", str(recipe), *SMALL])
        return runs_root() / "t"


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--sft.lr=1", "no such key"),
        ("--batch_size=three", "batch_size"),
        ("--model=/nowhere/model", "model folder: there is no folder /nowhere/model"),
        ("--data.train=[/nowhere.parquet]", "/nowhere.parquet: no such file"),
        ("--data.max_tokens=1024", "data.max_tokens 1024 exceeds the context of 512 tokens"),
    ],
)
def test_bad_input_ends_in_one_line_and_leaves_nothing(
    flag: str, message: str, recipe: Path, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refused([flag], recipe, runs, capsys)


@pytest.mark.slow
def test_more_than_the_cluster_has_ends_in_one_line_and_leaves_nothing(
    recipe: Path, runs: Path, capsys: pytest.CaptureFixture[str], ray_cluster: None
) -> None:
    line = refused(["--placement.cpus_per_rank=64"], recipe, runs, capsys)
    assert "needs 64 CPU but the Ray cluster has" in line


def refused(flags: list[str], recipe: Path, runs: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line in which the stage refuses to start."""
    with pytest.raises(SystemExit) as ended:
        main(SftStage, "sft", ["--config", str(recipe), *flags])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("python -m trainers.sft: error: ")
    assert not (runs / "t").exists()
    return line


@pytest.mark.long
@pytest.mark.slow
def test_a_diverging_loss_ends_in_one_line_and_keeps_its_rows(
    recipe: Path, runs: Path, capsys: pytest.CaptureFixture[str], ray_cluster: None
) -> None:
    flags = ["--optimizer.lr=1e30", "--optimizer.warmup_steps=0", "--checkpoint_every=1"]
    with pytest.raises(SystemExit) as ended:
        main(SftStage, "sft", ["--config", str(recipe), *flags])
    assert ended.value.code == 1
    line = capsys.readouterr().err.strip().splitlines()[-1]
    rows = runs / "t" / "not_finite.parquet"
    assert re.match(
        r"python -m trainers.sft: error: sft: the (loss|gradient) is n\w+.* at optimizer step 2; its rows", line
    )
    assert line.endswith(f"rows: {rows}")
    assert len(pq.read_table(rows)) == 4
    assert (runs / "t" / "checkpoints" / "step-00000001").is_dir()
    assert not (runs / "t" / "DONE").exists()


@pytest.mark.long
@pytest.mark.slow
def test_two_ranks_give_the_losses_and_weights_of_one(recipe: Path, whole: Path, runs: Path, ray_cluster: None) -> None:
    main(SftStage, "sft", ["--config", str(recipe), *SMALL, "--placement.ranks=2"])
    one, two = (list(read_metrics(run)) for run in (whole, runs / "t"))
    assert [line["loss"] for line in one] == pytest.approx([line["loss"] for line in two], rel=1e-6)
    assert one[-1]["heldout_loss"] == pytest.approx(two[-1]["heldout_loss"], rel=1e-6)
    first, second = (load_file(run / "model" / "model.safetensors") for run in (whole, runs / "t"))
    assert all(torch.allclose(first[name], second[name], rtol=1e-4, atol=1e-5) for name in first)


@pytest.mark.long
@pytest.mark.slow
def test_a_killed_worker_is_replaced_and_the_result_is_the_same(
    recipe: Path, whole: Path, runs: Path, watched: Any, shown: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    killer = threading.Thread(target=kill_a_worker_after, args=(runs / "killed", 3))
    killer.start()
    with watched("killed") as views:
        main(SftStage, "sft", ["--config", str(recipe), *SMALL, "--name=killed"])
    killer.join()
    ranks = [(rank.role, rank.rank, rank.state, rank.restarts) for view in views for rank in view.ranks]
    assert {("driver", 0, "alive", 0), ("trainer", 0, "alive", 0), ("trainer", 0, "alive", 1)} <= set(ranks)
    assert {(view.stage, view.steps) for view in views if view.step} == {("sft", 8)}
    assert shown("killed") == []
    assert "WARNING sft runs/killed: workers were replaced; continuing from step" in capsys.readouterr().err
    spared, killed = (list(read_metrics(run)) for run in (whole, runs / "killed"))
    assert [line["step"] for line in killed] == list(range(1, 9))
    assert [line["loss"] for line in killed] == [line["loss"] for line in spared]
    first, second = (load_file(run / "model" / "model.safetensors") for run in (whole, runs / "killed"))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.long
@pytest.mark.slow
def test_a_finished_run_says_so_and_changes_nothing(
    recipe: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CHIMED_RUNS", str(whole.parent))
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.name != ".lock"}
    main(SftStage, "sft", ["--config", str(recipe), *SMALL])
    assert "is finished; nothing to do" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.name != ".lock"} == before
    with pytest.raises(SystemExit):
        main(SftStage, "sft", ["--config", str(recipe), *SMALL, "--batch_size=2"])
    assert "started with sft.batch_size = 4, not 2" in capsys.readouterr().err


@pytest.mark.long
@pytest.mark.slow
def test_a_finished_run_that_becomes_longer_equals_a_run_of_that_length(
    recipe: Path, ray_cluster: None, trains_here: None, runs: Path
) -> None:
    def go(name: str, steps: int) -> Path:
        constant = ["--optimizer.schedule=constant", "--optimizer.warmup_steps=2"]
        main(SftStage, "sft", ["--config", str(recipe), *SMALL, *constant, f"--name={name}", f"--max_steps={steps}"])
        return runs / name

    go("longer", 3)
    longer, whole = go("longer", 6), go("whole", 6)
    first, second = (load_file(run / "model" / "model.safetensors") for run in (longer, whole))
    assert all(torch.equal(first[name], second[name]) for name in first)
    losses = [[(line["step"], line["loss"]) for line in read_metrics(run)] for run in (longer, whole)]
    assert losses[0] == losses[1]
    assert [step for step, _ in losses[0]] == [1, 2, 3, 4, 5, 6]


@pytest.mark.long
@pytest.mark.slow
def test_a_run_whose_rate_decays_becomes_longer_only_if_its_schedule_may_be_planned_again(
    recipe: Path, ray_cluster: None, trains_here: None, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def go(*changes: str) -> list[float]:
        cosine = ["--optimizer.schedule=cosine", "--optimizer.warmup_steps=0", "--checkpoint_every=2", "--name=planned"]
        main(SftStage, "sft", ["--config", str(recipe), *SMALL, *cosine, *changes])
        return [line["lr"] for line in read_metrics(runs / "planned")]

    short = go("--max_steps=3")
    with pytest.raises(SystemExit):
        go("--max_steps=6")
    assert "cannot be made longer, except with --replan=true" in capsys.readouterr().err
    longer = go("--max_steps=6", "--replan=true")
    assert longer[:2] == short[:2]  # the checkpoint is of step 2
    peak = short[0]
    expected = [peak * (0.1 + 0.9 * (1 + math.cos(math.pi * step / 6)) / 2) for step in range(2, 6)]
    assert longer[2:] == pytest.approx(expected)


def stopped_after(rank: int, world: int, clinic: str, folder: str, step: str) -> dict[int, float]:
    """The losses of a run on these ranks, which all end when `step` has been reported; from its newest checkpoint on."""
    from trainers.supervised.rank import Rank

    values = SETTINGS | {
        "model": f"{clinic}/model",
        "data": {
            "train": [f"{clinic}/sft.train.parquet"],
            "heldout": [f"{clinic}/sft.heldout.parquet"],
            "max_tokens": 64,
        },
        "batch_size": 6,
        "epochs": 1.5,
        "placement": {"ranks": world},
    }
    sft = SftStage(SftConfig.model_validate_json(json.dumps(values)))
    examples, found = sft.examples(), {}

    def send(kind: str, done: int, metrics: dict[str, Any]) -> None:
        if kind == "step":
            found[done] = metrics["loss"]
        if done == int(step):
            raise InterruptedError

    job = Job(sft, Path(folder), total_steps(sft.config, examples), examples.order)
    one = Rank(job, examples.train, examples.heldout, send)
    one.send = send  # on every rank
    with contextlib.suppress(InterruptedError):
        one.run()
    return found


@pytest.mark.long
@pytest.mark.slow
def test_a_run_goes_on_with_other_numbers_of_ranks(clinic: Path, tmp_path: Path) -> None:
    def go(ranks: int, folder: str, step: int) -> dict[int, float]:
        return on_ranks(ranks, __file__, "stopped_after", tmp_path, clinic, tmp_path / folder, step)

    whole = go(1, "whole", 99)
    assert list(whole) == list(range(1, 9))
    parts = [go(2, "changing", 3), go(3, "changing", 5), go(1, "changing", 99)]
    assert [list(part) for part in parts] == [[1, 2, 3], [3, 4, 5], [5, 6, 7, 8]]
    for part in parts:
        assert part == pytest.approx({step: whole[step] for step in part}, rel=1e-5)
    first, second = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "changing"))
    assert all(torch.allclose(first[name], second[name], rtol=1e-4, atol=1e-5) for name in first)


def kill_a_worker_after(run: Path, step: int) -> None:
    """Kills, as the system would, the training process below this one once the run has logged `step`."""
    while not any(line["step"] >= step for line in read_metrics(run)):
        time.sleep(0.01)
    for process in psutil.Process().children(recursive=True):
        if process.name().startswith("ray::RayTrain"):
            process.kill()


def test_ranks_do_not_share_a_gpu() -> None:
    with pytest.raises(ValueError, match="gpus_per_rank 0.5 with placement.ranks 2: .* set gpus_per_rank to 1"):
        PretrainConfig.model_validate(
            {
                "name": "shared",
                "data": {"train": ("a.parquet",), "heldout": ("b.parquet",)},
                "model": "m",
                "placement": {"ranks": 2, "gpus_per_rank": 0.5},
            }
        )
