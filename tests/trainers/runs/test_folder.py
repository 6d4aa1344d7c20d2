from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import Field
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from configs.base import Section, read
from configs.errors import ConfigError
from storage.durable import DiskError
from trainers.runs.folder import Run, already_finished, read_metrics


class Optimizer(Section):
    lr: float = 1e-4


class SFT(Section):
    recipe_key: ClassVar[str] = "sft"
    may_change: ClassVar[frozenset[str]] = frozenset({"ranks"})
    seed: int = 0
    ranks: int = 1
    optimizer: Optimizer = Field(Optimizer())


def lines(run: Run) -> list[tuple[int, float | None]]:
    return [(line["step"], line["loss"]) for line in run.metrics()]


def test_a_run_keeps_its_settings_and_metrics(runs):
    config = SFT(seed=3)
    with Run("quick/sft", config) as run:
        assert run.path == runs / "quick" / "sft"
        assert run.finished is None
        run.log(1, {"loss": 2.5})
        run.log(2, {"loss": float("nan")})
    assert read("sft", {"sft": SFT}, ["--config", str(run.path / "config.yaml")]) == config
    stored = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in stored] == [(1, 2.5), (2, None)]
    assert stored[0]["time"] <= stored[1]["time"]
    with Run("quick/sft", config) as again:
        again.log(3, {"loss": 2.0})
        assert lines(again) == [(1, 2.5), (2, None), (3, 2.0)]


def test_settings_must_be_those_of_the_start(runs):
    Run("sft", SFT()).close()
    before = (runs / "sft" / "config.yaml").read_bytes()
    with pytest.raises(ConfigError) as caught:
        Run("sft", SFT(optimizer=Optimizer(lr=0.5)))
    assert str(caught.value).startswith(
        f"{runs}/sft/config.yaml: this run was started with sft.optimizer.lr = 0.0001, not 0.5; continue it with"
    )
    assert (runs / "sft" / "config.yaml").read_bytes() == before
    Run("sft", SFT()).close()  # the refusal gave the lock free


def test_all_changed_settings_are_named(runs):
    Run("sft", SFT()).close()
    with pytest.raises(ConfigError) as caught:
        Run("sft", SFT(seed=3, ranks=3, optimizer=Optimizer(lr=0.5)))
    assert "sft.optimizer.lr = 0.0001, not 0.5" in str(caught.value)
    assert "sft.seed = 0, not 3" in str(caught.value)
    assert "sft.ranks" not in str(caught.value)  # it may change
    assert str(caught.value).endswith(
        "continue it with the old values, start another run with --name=sft-2, or delete the folder"
    )


def test_where_a_run_computes_may_change_until_it_is_finished(runs, caplog):
    Run("sft", SFT()).close()
    with Run("sft", SFT(ranks=3)) as run:
        assert caplog.messages == ["continuing with sft.ranks = 3 instead of 1"]
        caplog.clear()
        assert read("sft", {"sft": SFT}, ["--config", str(run.path / "config.yaml")]) == SFT(ranks=3)
        run.finish({})
    Run("sft", SFT(ranks=2)).close()
    assert caplog.messages == []
    assert read("sft", {"sft": SFT}, ["--config", str(runs / "sft" / "config.yaml")]) == SFT(ranks=3)
    with pytest.raises(ConfigError, match="started with sft.seed = 0, not 1"):
        Run("sft", SFT(seed=1, ranks=2))


class Long(Section):
    recipe_key: ClassVar[str] = "long"
    may_grow: ClassVar[frozenset[str]] = frozenset({"steps", "epochs"})
    steps: int | None = 10
    epochs: float = 1.0
    decays: bool = False

    @property
    def length_matters(self) -> bool:
        return self.decays


@pytest.mark.parametrize("longer", [{"steps": 11}, {"steps": None}, {"epochs": 1.5}, {"steps": 11, "epochs": 2.0}])
@pytest.mark.parametrize("finished", [False, True])
def test_a_run_may_become_longer(finished: bool, longer: dict[str, Any], runs: Path) -> None:
    with Run("long", Long()) as run:
        run.log(1, {"loss": 1.0})
        if finished:
            run.finish({})
    assert already_finished("long", Long()) is finished
    assert not already_finished("long", Long(**longer))
    with Run("long", Long(**longer)) as run:
        assert run.finished is None
        assert lines(run) == [(1, 1.0)]
        run.finish({})
    assert already_finished("long", Long(**longer))


@pytest.mark.parametrize(
    ("before", "after", "refused"),
    [
        (Long(), Long(steps=9), "long.steps = 10, not 9; continue it with the old value,"),
        (Long(steps=None), Long(steps=99), "long.steps = null, not 99; continue it with the old value,"),
        (Long(), Long(epochs=0.5, steps=11), "long.epochs = 1.0, not 0.5; continue it with the old value,"),
        (
            Long(),
            Long(steps=11, decays=True),
            "long.steps = 10, not 11; long.decays = false, not true; continue it with the old values,",
        ),
        (
            Long(decays=True),
            Long(decays=True, steps=11),
            "long.steps = 10, not 11; its learning rate decays towards its last step, so it cannot be made longer; "
            "continue it with the old value, start another run with --name=long-2,",
        ),
    ],
)
def test_a_run_becomes_neither_shorter_nor_longer_where_its_length_matters(
    before: Long, after: Long, refused: str, runs: Path
) -> None:
    with Run("long", before) as run:
        run.finish({})
    with pytest.raises(ConfigError, match=re.escape(refused)):
        Run("long", after)
    assert already_finished("long", before)


def test_a_setting_added_since_the_start_has_its_default(runs):
    Run("sft", SFT()).close()
    (runs / "sft" / "config.yaml").write_text("sft:\n  seed: 0\n")
    Run("sft", SFT()).close()
    with pytest.raises(ConfigError, match="started with sft.optimizer.lr = 0.0001, not 0.5"):
        Run("sft", SFT(optimizer=Optimizer(lr=0.5)))


def test_rewinding_forgets_later_steps_here_and_in_tensorboard():
    with Run("sft", SFT()) as run:
        for step in range(1, 6):
            run.log(step, {"loss": float(step)})
    with Run("sft", SFT()) as run:
        run.rewind(3)
        assert lines(run) == [(1, 1.0), (2, 2.0), (3, 3.0)]
        run.log(4, {"loss": 40.0})
        assert lines(run)[-1] == (4, 40.0)
    events = EventAccumulator(str(run.path / "tb")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("Outcome/loss")] == [(1, 1), (2, 2), (3, 3), (4, 40)]


def test_infinities_are_left_out_of_the_plot():
    with Run("sft", SFT()) as run:
        run.log(1, {"loss": math.inf, "kl": 0.5})
    assert EventAccumulator(str(run.path / "tb")).Reload().Tags()["scalars"] == ["Other/kl"]


def test_tensorboard_groups_metrics_by_the_sections_of_the_report_and_has_the_settings():
    with Run("sft", SFT(optimizer=Optimizer(lr=0.5))) as run:
        run.log(1, {"grad_norm": 1.0, "heldout_perplexity": 2.0, "seconds_update": 3.0, "eval/exam_accuracy": 0.5})
    events = EventAccumulator(str(run.path / "tb")).Reload()
    tags = ["Optimizer/grad_norm", "Outcome/heldout_perplexity", "Time/seconds_update", "Outcome/eval/exam_accuracy"]
    assert events.Tags()["scalars"] == tags
    (content,) = [events.SummaryMetadata(tag).plugin_data.content for tag in events.Tags().get("tensors", [])] or [b""]
    stored = HParamsPluginData.FromString(content).session_start_info.hparams
    assert stored["optimizer.lr"].number_value == 0.5
    assert stored["ranks"].number_value == 1


def test_a_torn_last_line_is_dropped(runs):
    with Run("sft", SFT()) as run:
        run.log(1, {"loss": 1.0})
    with (runs / "sft" / "metrics.jsonl").open("a") as metrics:
        metrics.write('{"step": 2, "lo')
    assert [line["step"] for line in read_metrics(runs / "sft")] == [1]
    with Run("sft", SFT()) as run:
        run.log(2, {"loss": 2.0})
        assert lines(run) == [(1, 1.0), (2, 2.0)]


def test_a_broken_line_is_named(runs):
    Run("sft", SFT()).close()
    (runs / "sft" / "metrics.jsonl").write_text('{"step": 1}\nnonsense\n')
    with pytest.raises(ConfigError, match="metrics.jsonl:2: is not valid JSON"):
        list(read_metrics(runs / "sft"))
    assert list(read_metrics(runs / "none")) == []


def flip(path):
    """Flips a bit of the middle byte."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


def test_a_damaged_line_is_named_and_left_out(runs, caplog):
    with Run("sft", SFT()) as run:
        for step in (1, 2, 3):
            run.log(step, {"loss": float(step)})
    path = runs / "sft" / "metrics.jsonl"
    first, second, third = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + b"\xff" + second[1:] + third)
    with pytest.raises(ConfigError, match=r"metrics.jsonl:2: is not valid JSON"):
        list(read_metrics(runs / "sft"))
    with Run("sft", SFT()) as run:
        assert lines(run) == [(1, 1.0), (3, 3.0)]
    assert caplog.messages == [f"{path}:2: damaged (not a line of metrics); removing the line"]
    assert path.read_bytes() == first + third


def test_damaged_settings_are_refused_in_one_line(runs):
    Run("sft", SFT()).close()
    path = runs / "sft" / "config.yaml"
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"seed: 0", b"seed: 4"))
    with pytest.raises(ConfigError) as caught:
        Run("sft", SFT())
    assert str(caught.value) == (
        f"{path}: damaged or changed (its last line is not the SHA-256 of the lines before it); restore the file, or delete it "
        "to continue with the settings of this command"
    )
    path.unlink()
    Run("sft", SFT()).close()
    assert path.read_bytes() == whole


def test_every_changed_byte_of_the_settings_is_refused_or_harmless(runs):
    Run("sft", SFT()).close()
    path = runs / "sft" / "config.yaml"
    whole = path.read_bytes()
    accepted = []
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        with suppress(ConfigError):
            Run("sft", SFT()).close()
            accepted.append(place)
    assert all(place > whole.index(b"# SHA-256") for place in accepted)  # the word of the comment, not what it is about


def test_a_damaged_word_of_the_end_is_put_aside(runs, caplog):
    with Run("sft", SFT()) as run:
        run.finish({"loss": 1.5})
    flip(runs / "sft" / "DONE")
    with Run("sft", SFT()) as run:
        assert run.finished is None
        run.finish({"loss": 1.5})
    (said,) = caplog.messages
    assert said.startswith(
        f"{runs}/sft/DONE: damaged; renamed to DONE.damaged, and the run continues from its newest intact checkpoint"
    )
    caplog.clear()
    with Run("sft", SFT()) as run:
        assert run.finished == {"loss": 1.5}
    assert caplog.messages == []


def test_a_full_disk_is_one_line_and_the_next_driver_goes_on(runs, file_size_limit):
    with Run("sft", SFT()) as run:
        run.log(1, {"loss": 1.0})
        path = runs / "sft" / "metrics.jsonl"
        file_size_limit(path.stat().st_size + 10)
        with pytest.raises(
            DiskError, match=rf"{path}: cannot be written \(File too large\); make room, then run the same command"
        ):
            run.log(2, {"loss": 2.0})
    file_size_limit(2**30)
    with Run("sft", SFT()) as run:
        run.log(2, {"loss": 2.0})
        assert lines(run) == [(1, 1.0), (2, 2.0)]


def test_a_finished_run_says_so(runs):
    with Run("sft", SFT()) as run:
        run.finish({"loss": 1.5, "名": "好"})
    with Run("sft", SFT()) as again:
        assert again.finished == {"loss": 1.5, "名": "好"}
        assert again.finished_text() == (
            f"{runs}/sft is finished; nothing to do: look at it with chimed report {runs}/sft, or train again with --name=sft-2"
        )
    assert not list((runs / "sft").glob("*.new"))


def test_one_driver_at_a_time(runs):
    code = (
        "import fcntl, os\n"
        f"lock = os.open({str(runs / 'sft' / '.lock')!r}, os.O_RDWR)\n"
        "try: fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB); print('free')\n"
        "except BlockingIOError: print('held by', os.read(lock, 32).decode().strip())"
    )

    def seen_by_another_process() -> str:
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()

    with Run("sft", SFT()) as run:
        assert seen_by_another_process() == f"held by {os.getpid()}"
        with pytest.raises(ConfigError, match=rf"another process \(pid {os.getpid()}\) is writing to this run"):
            Run("sft", SFT())
        run.log(1, {"loss": 1.0})
    assert seen_by_another_process() == "free"


@pytest.mark.parametrize("name", ["", "../x", "/x", "runs/x"])
def test_names_that_are_no_folder_below_runs_are_refused(name):
    with pytest.raises(ConfigError, match="give a name such as quickstart/ppo"):
        Run(name, SFT())
