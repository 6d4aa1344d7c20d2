"""The driver of supervised training: loads the data, runs the ranks with Ray Train, logs metrics and progress.

Pretraining, SFT, reward-model training, and DPO share it and differ only in their `Stage`. The training loop is in
`trainers.supervised.rank`.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig, get_context
from ray.train.torch import TorchTrainer
from ray.train.v2.api.exceptions import TrainingFailedError
from ray.util.queue import Queue

from actors.distributed.devices import prepare_process
from actors.zero.diverged import DivergedError
from cluster.connect import connect
from cluster.environment import for_computing
from cluster.liveness.heartbeat import Heartbeat
from cluster.status.pending import Waiting
from configs.base import load
from configs.errors import ConfigError, one_line_errors
from configs.logs import configure
from configs.program import program
from trainers.config.stages import STAGES
from trainers.config.supervised import SupervisedConfig
from trainers.preflight.verdict import require_fit, require_machine
from trainers.reporting.ending import ending
from trainers.runs.collapse import keeping_rows
from trainers.runs.evaluation import check_tasks
from trainers.runs.folder import Run, already_finished
from trainers.runs.pinning import fetch_on_nodes, pin
from trainers.runs.stopping import StopRequests
from trainers.supervised.metrics_channel import MetricsChannel, Sender
from trainers.supervised.stage import Examples, Job, Stage
from trainers.supervised.torch_world import WorldConfig

logger = logging.getLogger(__name__)

# How often Ray Train polls its workers. With its default of 2 s, the end of a short stage would wait that long.
POLL_INTERVAL_S = "0.25"


def main(stage: type[Stage[Any, Any]], name: str, argv: Sequence[str] | None = None) -> None:
    """Runs a stage's command. An invalid setting or input ends it with a one-line message and exit status 2."""
    prog = program(f"trainers.{name}")
    config = load(name, STAGES, sys.argv[1:] if argv is None else argv, prog)
    assert isinstance(config, SupervisedConfig)
    configure(name, config.name)
    with one_line_errors(prog):
        config = pin(config)
        if not already_finished(config.name, config):
            train(stage(config))


def train(stage: Stage[Any, Any]) -> None:
    """Trains `stage` from its newest checkpoint, or from the start, to the end.

    Creates the run's folder only after data, model, and cluster have passed the preflight checks, so a failed check
    leaves nothing behind.

    Raises:
        ConfigError: a setting or input is invalid, or workers failed more than `max_failures` times.
        RunError: a loss or gradient is not finite.
        Stopped: a stop was requested; a checkpoint has been saved.
    """
    config: SupervisedConfig = stage.config
    require_machine(config)
    check_tasks(config.evaluation)
    examples = stage.examples()
    steps = total_steps(config, examples)
    with connect(**config.cluster.connection()) as cluster:
        if cluster.started_here:  # a local machine is not preempted
            os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
        require_fit(config)
        fetch_on_nodes(config)
        with Run(config.name, config) as run, run.shown():
            for note in examples.notes:
                logger.info("%s", note)
            with StopRequests() as stop, keeping_rows(run.path):
                channel = MetricsChannel(run, steps, stage.show, stop)
                with channel as queue:
                    fit(Job(stage, run.path, steps, examples.order), examples, queue)
                if channel.stopped_at is not None:
                    logger.info("stopped after step %d; run the same command to continue", channel.stopped_at)
                    stop.check()
            run.finish({"steps": steps, **run.metrics()[-1]})
            print(ending(run), flush=True)


def total_steps(config: SupervisedConfig, examples: Examples) -> int:
    """Returns the number of optimizer steps of the stage.

    Raises:
        ConfigError: there is too little data for the settings.
    """
    rows, ranks = examples.train.num_rows, config.placement.ranks
    steps = round(config.epochs * rows / config.batch_size)
    if steps < 1:
        raise ConfigError(
            f"epochs {config.epochs:g} over {rows} training rows are less than one batch_size "
            f"{config.batch_size}; lower batch_size or raise epochs"
        )
    if examples.heldout.num_rows < ranks:
        raise ConfigError(
            f"data.heldout has {examples.heldout.num_rows} rows, fewer than placement.ranks {ranks}; add rows, or lower the ranks"
        )
    return min(steps, config.max_steps or steps)


def fit(job: Job, examples: Examples, queue: Queue) -> None:
    """Runs the ranks to the end. If one dies, restarts all from the newest checkpoint.

    Raises:
        ConfigError: workers failed more than `max_failures` times.
    """
    config: SupervisedConfig = job.stage.config
    placement, gpus = config.placement, config.placement.gpus_per_rank
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", POLL_INTERVAL_S)
    os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = str(config.cluster.start_timeout_s)
    scratch = job.folder / "ray_train"  # Ray Train requires a folder, but our checkpoints are elsewhere
    trainer = TorchTrainer(
        work,
        train_loop_config={
            "job": job,
            "train": ray.put(examples.train),
            "heldout": ray.put(examples.heldout),
            "queue": queue,
        },
        torch_config=WorldConfig(
            backend="nccl" if gpus else "gloo", timeout_s=round(config.cluster.collective_timeout_s)
        ),
        scaling_config=ScalingConfig(
            num_workers=placement.ranks,
            use_gpu=gpus > 0,
            resources_per_worker={"CPU": placement.cpus_per_rank, **({"GPU": gpus} if gpus else {})},
        ),
        run_config=RunConfig(
            name=scratch.name,
            storage_path=str(scratch.parent),
            worker_runtime_env={"env_vars": for_computing(placement.threads, gpus > 0)},
            failure_config=FailureConfig(
                max_failures=config.max_failures, controller_failure_limit=config.max_failures
            ),
        ),
    )
    logger.info("starting %d ranks and loading the model", placement.ranks)
    try:
        # In a thread, because in the main thread `fit` replaces the handler of Ctrl-C by one that drops the current step.
        with Waiting(), ThreadPoolExecutor(1) as pool:
            pool.submit(trainer.fit).result()
    except TrainingFailedError as error:
        trace = job.folder / "error.txt"
        trace.write_text(str(error))
        last = [line.strip() for line in str(error).splitlines() if line.strip()][-1]
        raise ConfigError(
            f"the workers failed {config.max_failures + 1} times, more than max_failures "
            f"{config.max_failures}; last error: {last} (see {trace})"
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def work(settings: dict[str, Any]) -> None:
    """Trains on one rank; Ray Train calls it on every rank."""
    job, queue = settings["job"], settings["queue"]
    config: SupervisedConfig = job.stage.config
    rank = get_context().get_world_rank()
    configure(f"{config.recipe_key}-{rank}", config.name)
    prepare_process(config.placement.threads)
    from trainers.supervised.rank import Rank  # imports DeepSpeed, which needs the prepared process

    train, heldout = ray.get([settings["train"], settings["heldout"]])
    sender = Sender(queue, config.cluster.collective_timeout_s)
    try:
        with Heartbeat(config.name, "trainer", rank):
            Rank(job, train, heldout, sender.send, sender.wait_logged, sender.stop_requested).run()
    except DivergedError as error:  # raised on every rank; a retry would diverge again
        queue.put(("diverged", 0, {"error": error}))
