"""python -m trainers.ppo: RLHF by PPO, GRPO, RLOO, … (algorithm.name). Generate, score, learn, publish; then again.

Roles run as Ray actors (see actors/groups/team.py); this driver owns the algorithm. The weights version is the number of PPO
steps done: step t is answered by version t, or with `rollout.ahead` an older one, and learning from it makes version t + 1.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from actors.groups.team import Team, TeamConfig
from actors.model_folder.checks import read_config, require_rows, window_of
from actors.model_folder.compatibility import require_same_format
from actors.model_folder.source import model_dir
from actors.roles.learner import TrainBatch
from actors.roles.reward_function import sources_of
from actors.weight_sync.publisher import Published, Publisher
from actors.zero.model import Loss
from cluster.connect import connect
from cluster.waiting import RoleDied
from configs.base import load
from configs.errors import one_line_errors
from data.tokenizer.hf_tokenizer import has_tokenizer
from trainers.config.rlhf import PPOConfig
from trainers.config.stages import STAGES
from trainers.preflight.inputs import KINDS
from trainers.preflight.needs import require_fit
from trainers.rlhf.advantages import add_advantages, add_weights
from trainers.rlhf.checkpoints import Savepoints
from trainers.rlhf.journal import Journal, fingerprint
from trainers.rlhf.losses import ClippedPolicyLoss, ClippedValueLoss
from trainers.rlhf.metrics import step_metrics
from trainers.rlhf.prompts import PromptStream
from trainers.rlhf.restart import starting_again
from trainers.rlhf.rewards import KLController, RewardShaper, add_reward
from trainers.rlhf.rollouts import Answered, Rollouts
from trainers.rlhf.samples import write_samples
from trainers.rlhf.supervision import Supervisor
from trainers.runs.collapse import keeping_rows, refuse_collapse
from trainers.runs.evaluation import Evaluator, check_tasks
from trainers.runs.export import export_model, load_chat_tokenizer, load_tokenizer, require_model
from trainers.runs.folder import Run, already_finished
from trainers.runs.phases import Phases
from trainers.runs.pinning import fetch_on_nodes, pin
from trainers.runs.stopping import Stopped, StopRequests

PROG = "python -m trainers.ppo"
LONGEST = "prompts.max_tokens + rollout.max_new_tokens"


def train(config: PPOConfig, run: Run, prompts: PromptStream) -> None:
    """Trains to the end, also if processes of roles die or hang meanwhile: see trainers/rlhf/supervision.py.

    Raises Stopped, after a checkpoint, where an end was asked for.
    """
    with StopRequests() as stop:
        with stop.may_interrupt():
            starting = starting_again("ppo", config.max_failures, lambda: Team(team_config(config, prompts.end_ids)))
        with starting as team:
            stop.watch_nodes(team.watch)
            supervisor = Supervisor(team, stop, config.max_failures, config.failure_window_s)
            supervisor.finish(lambda: ppo(config, run, prompts, team, supervisor, stop))


def ppo(
    config: PPOConfig, run: Run, prompts: PromptStream, team: Team, supervisor: Supervisor, stop: StopRequests
) -> None:
    """PPO (Schulman et al. 2017), or another of trainers/rlhf/algorithms.py, with a KL penalty (Ouyang et al. 2022)."""
    algorithm = config.algorithm
    journal = Journal(run.path, fingerprint(config))
    savepoints = Savepoints(config, run.path, team, journal)
    rollouts = Rollouts(config, team, prompts, journal)
    shaper, kl = RewardShaper(algorithm, config.rollout.max_new_tokens), KLController(algorithm)
    probe = prompts.probe(config.publish.probe_sequences, beyond_window(config))
    publisher = Publisher(config.publish, team.policy, team.rollout, probe, coarser_dtype(config))
    evaluator = Evaluator(config.evaluation, run.path, config.steps, config.cluster.collective_timeout_s)

    def export(folder: Path) -> None:
        export_model(folder, prompts.tokenizer, lambda aside: team.policy.call("export", str(aside)))

    def publish(version: int) -> Published | None:
        """Brings `version` to the engines and has them answer, unless the journal has all those answers."""
        if not rollouts.needs(version) and version < config.steps:
            return None
        published = publisher.publish(version)
        rollouts.start(version)
        return published

    def publish_again(version: int) -> Published | None:
        rollouts.drop()
        return publish(version)

    def take_again(step: int) -> Answered:
        publish_again(step)
        return rollouts.take(step)

    first = supervisor.step = resume(savepoints, run, shaper, kl)
    with closing(rollouts), run.progress(config.steps, first, show=("reward", "kl_to_reference")) as progress:
        supervisor.keep_at(partial(publish, first), partial(publish_again, first))
        for step in range(first, config.steps):
            phases, supervisor.step = Phases(), step
            before = {"kl_coef": kl.coef, "rewards": shaper.state()}
            with saving_when_stopped(savepoints, step, before):
                with phases("generate"), stop.may_interrupt():
                    table, scoring = supervisor.keep_at(partial(rollouts.take, step), partial(take_again, step))
                with phases("score"), stop.may_interrupt():
                    table = supervisor.keep_at(
                        partial(team.score, table, prompts.samples, scoring),
                        partial(team.score, table, prompts.samples),
                    )
            with phases("learn"), keeping_rows(run.path):
                table = shaper.add_score(add_reward(table, config.reward_weights))
                table = add_weights(table, algorithm, config.rollout.max_new_tokens)
                table = add_advantages(table, algorithm, kl.coef)
                figures = team.learn(table, losses(config, step, kl.coef), algorithm.epochs)
            with phases("publish"):
                rollouts.settle()
                published = supervisor.keep_at(partial(publish, step + 1), partial(publish_again, step + 1))
            metrics = step_metrics(table, figures, step + 1, published, kl.coef, rollouts.staleness(step, table))
            kl.observe(metrics.get("kl_to_reference", 0.0), len(table))
            if evaluator.due(step + 1):
                with phases("evaluate"):
                    metrics |= supervisor.keep_at(partial(evaluator.figures, step + 1, export))
            with phases("checkpoint"):
                journal.record_rewards(step, table)
                if step % config.samples_every == 0 or step + 1 == config.steps:
                    write_samples(run.path / "samples", step + 1, prompts.samples(table), table)
                savepoints.commit()  # of an earlier step: the disk has had the time since
                if (step + 1) % config.checkpoint_every == 0 and step + 1 < config.steps:
                    savepoints.begin(step + 1, {"kl_coef": kl.coef, "rewards": shaper.state()})
            metrics |= phases.metrics(metrics["tokens"])
            run.log(step + 1, metrics)
            progress.update(step + 1, metrics)
            refuse_collapse(config.stop, step + 1, metrics)
    export(run.path / "model")
    run.finish({"steps": config.steps, "weights_version": config.steps})


@contextmanager
def saving_when_stopped(savepoints: Savepoints, step: int, state: dict[str, Any]) -> Iterator[None]:
    """Work that Stopped may end: then policy and critic, which it did not change, are saved with the `state` of before."""
    try:
        yield
    except Stopped as stopped:
        try:
            savepoints.save(step, state)
        except RoleDied as error:
            print(f"ppo: no checkpoint of step {step}: {error}; an older one and the journal serve", flush=True)
        print(f"ppo: stopped after step {step} ({stopped.reason}); the same command goes on", flush=True)
        raise


def losses(config: PPOConfig, step: int, kl_coef: float) -> dict[str, Loss[TrainBatch]]:
    """Who learns in `step`, and by which loss."""
    chosen: dict[str, Loss[TrainBatch]] = {}
    if step >= config.critic_warmup_steps:
        chosen["policy"] = ClippedPolicyLoss(config.algorithm, kl_coef)
    if config.algorithm.has_critic:
        chosen["critic"] = ClippedValueLoss(config.algorithm.value_clip_eps)
    return chosen


def read_prompts(config: PPOConfig) -> PromptStream:
    """The prompts, once every model folder is known to be there and made for sequences as long as ours.

    A role's model must have the policy's vocabulary and chat format, as its tokenizer says; of one without, that is printed.
    """
    longest = config.prompts.max_tokens + config.rollout.max_new_tokens
    tokenizer = load_chat_tokenizer(config.policy.model, config.chat)
    for role, settings in config.roles.items():
        if hasattr(settings, "model"):
            key = f"{role}.model"
            folder = require_model(settings.model, longest, f"{LONGEST} =", key, KINDS.get(f"ppo.{key}", "language"))
            require_rows(tokenizer, read_config(folder, key), f"{key}: {folder}")
            if role != "policy" and not has_tokenizer(folder):
                print(f"ppo: {key}: {folder} has no tokenizer to compare with the policy's", flush=True)
            elif role != "policy":
                require_same_format(config.policy.model, tokenizer, folder, load_tokenizer(folder))
    return PromptStream(config, tokenizer)


def beyond_window(config: PPOConfig) -> int:
    """Tokens of a probe that is longer than the policy's sliding window, as far as engines take it; 0 without a window."""
    window = window_of(read_config(model_dir(config.policy.model), "policy.model"))
    return min(window + 64, config.rollout.engine.max_model_len - 1) if window else 0


def coarser_dtype(config: PPOConfig) -> str:
    """The less precise of what the policy and the engines compute in."""
    return "bfloat16" if "bfloat16" in (config.policy.zero.dtype, config.rollout.engine.dtype) else "float32"


def resume(savepoints: Savepoints, run: Run, shaper: RewardShaper, kl: KLController) -> int:
    """Restores the newest state that can be gone on from, if there is one; returns the step to go on with."""
    step, state = savepoints.restore()
    if state is not None:
        shaper.restore(state["rewards"])
        kl.coef = state["kl_coef"]
    run.rewind(step)
    return step


def team_config(config: PPOConfig, end_ids: tuple[int, ...]) -> TeamConfig:
    """What the roles need of the stage's settings."""
    return TeamConfig(
        run=config.name,
        roles=config.roles,
        sites=config.sites,
        updates=config.updates,
        minibatches=config.algorithm.minibatches,
        knows_logprobs=config.knows_logprobs,
        seed=config.seed,
        end_ids=end_ids,
        native_transfer="nccl" if config.publish.transport == "vllm_nccl" else None,
        start_timeout_s=config.cluster.start_timeout_s,
        call_timeout_s=config.cluster.collective_timeout_s,
        hang_timeout_s=config.cluster.hang_timeout_s,
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Reads the settings, opens the run, joins the cluster, trains."""
    config = load("ppo", STAGES, sys.argv[1:] if argv is None else argv, PROG)
    assert isinstance(config, PPOConfig)
    with one_line_errors(PROG):
        config = pin(config)
        if already_finished(config.name, config):
            return
        prompts = read_prompts(config)
        check_tasks(config.evaluation)
        sources_of(config.judge)  # refuses a function that is none, before anything starts
        with connect(**config.cluster.connection()):
            require_fit(config)
            fetch_on_nodes(config)
            with Run(config.name, config) as run, run.shown():
                train(config, run, prompts)
                print(f"ppo: done, {run.path / 'model'}", flush=True)


if __name__ == "__main__":
    main()
