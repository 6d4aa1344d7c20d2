from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from cluster.status.view import RunView
    from trainers.supervised.stage import Stage

Message = tuple[str, int, dict[str, Any]]


@pytest.fixture(scope="session")
def data(clinic: Path) -> Any:
    """The data section of a stage that reads the tables `name`."""
    return lambda name: {
        "train": [str(clinic / f"{name}.train.parquet")],
        "heldout": [str(clinic / f"{name}.heldout.parquet")],
    }


@pytest.fixture(scope="session")
def reward_model(clinic: Path) -> Path:
    """A scorer with a random head: it has opinions, though no reasons."""
    import torch

    from actors.modeling.models import load_scorer

    model = load_scorer(str(clinic / "model"), torch.float32)
    torch.nn.init.normal_(model.get_submodule("score").weight, generator=torch.Generator().manual_seed(3))
    model.save_pretrained(clinic / "scorer")
    return clinic / "scorer"


def train_here(*arguments: Any) -> None:
    """Runs a `Rank` of these arguments to its end, as the only rank of this process's world."""
    from trainers.supervised.rank import Rank

    rank = Rank(*arguments)
    try:
        rank.run()
    finally:
        # DeepSpeed's hooks keep an engine and its 2 GB of address space alive: after a dozen no process can be forked.
        rank.model.engine.destroy()
        del rank
        gc.collect()


@pytest.fixture(scope="session")
def train(world: None) -> Callable[..., list[Message]]:
    """Runs a stage's one rank in this process; what it sent.

    With `die_at` it dies when that step has been reported, with `stop_at` it is asked to stop.
    """
    from trainers.supervised.driver import total_steps
    from trainers.supervised.stage import Job

    def run(
        stage: Stage[Any, Any],
        folder: Path,
        die_at: int | None = None,
        wait_logged: Callable[[int], None] = lambda _: None,
        stop_at: int | None = None,
    ) -> list[Message]:
        examples = stage.examples()
        sent: list[Message] = []

        def send(kind: str, done: int, metrics: dict[str, Any]) -> None:
            sent.append((kind, done, metrics))
            if kind == "step" and done == die_at:
                raise SystemExit("stands for a process that dies")

        train_here(
            Job(stage, folder, total_steps(stage.config, examples), examples.order),
            examples.train,
            examples.heldout,
            send,
            wait_logged,
            lambda: sent[-1][:2] == ("step", stop_at),
        )
        return sent

    return run


@pytest.fixture
def trains_here(world: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes supervised stages train their one rank in this process.

    Ray Train starts eight processes for it, which take longer than a short run.
    """
    from trainers.supervised.metrics_channel import Sender

    def fit(job: Any, examples: Any, queue: Any) -> None:
        sender = Sender(queue, timeout_s=60)
        train_here(job, examples.train, examples.heldout, sender.send, sender.wait_logged, sender.stop_requested)

    monkeypatch.setattr("trainers.supervised.driver.fit", fit)


@pytest.fixture
def shown(ray_cluster: None) -> Callable[[str], list[RunView]]:
    """What `python -m cluster.status` would show now of the run of a name: one view, or none."""
    import ray

    from cluster.head import Head
    from cluster.status.view import snapshot

    def show(name: str) -> list[RunView]:
        with Head(ray.get_runtime_context().gcs_address) as head:
            return [run for run in snapshot(head).runs if run.name == name]

    return show


@pytest.fixture
def watched(shown: Callable[[str], list[RunView]]) -> Any:
    """A context that collects what is shown of a run while it runs in this process."""

    @contextmanager
    def watch(name: str) -> Iterator[list[RunView]]:
        views: list[RunView] = []
        ended = threading.Event()

        def collect() -> None:
            while not ended.wait(0.2):
                views.extend(shown(name))

        thread = threading.Thread(target=collect)
        thread.start()
        try:
            yield views
        finally:
            ended.set()
            thread.join()

    return watch
