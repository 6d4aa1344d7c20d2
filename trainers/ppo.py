"""python -m trainers.ppo: RLHF by PPO. Generate, score, learn, publish; then again.

Roles run as Ray actors (see actors/team.py); this driver owns the algorithm. The weights version is the number of PPO
steps done, so step t is answered by version t and learning from it makes version t + 1.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from actors.checkpoint import CheckpointStore
from actors.group import bundles
from actors.learner import TrainBatch
from actors.team import Team, TeamConfig
from actors.weights.publisher import Publisher
from actors.zero import Loss
from cluster.connect import connect, require_resources
from cluster.placement import total
from configs.base import load, one_line_errors
from trainers.advantages import add_advantages
from trainers.config import STAGES, PPOConfig
from trainers.export import export_model, load_tokenizer, require_model
from trainers.journal import Journal
from trainers.losses import ClippedPolicyLoss, ClippedValueLoss
from trainers.phases import Phases
from trainers.ppo_metrics import step_metrics
from trainers.prompts import PromptStream
from trainers.restart import starting_again
from trainers.run import Run, already_finished

PROG = "python -m trainers.ppo"


def train(config: PPOConfig, run: Run, prompts: PromptStream) -> None:
    """Trains to the end. Roles whose process died start again, at most `config.max_failures` times a run.

    They go on from the newest checkpoint and learn from the journal what they had learnt since, so nothing changes.
    """

    def work() -> None:
        with Team(team_config(config)) as team:
            ppo(config, run, prompts, team)

    starting_again("ppo", config.max_failures, work)


def ppo(config: PPOConfig, run: Run, prompts: PromptStream, team: Team) -> None:
    """PPO (Schulman et al. 2017) with a KL penalty to the reference in the reward (Ouyang et al. 2022)."""
    journal = Journal(run.path / "journal")
    checkpoints = CheckpointStore(run.path / "checkpoints", config.keep_checkpoints)
    losses: dict[str, Loss[TrainBatch]] = {
        "policy": ClippedPolicyLoss(config.algorithm.clip_eps),
        "critic": ClippedValueLoss(config.algorithm.value_clip_eps),
    }
    publisher = Publisher(config.publish, team.policy, team.rollout, prompts.probe(config.publish.probe_sequences))
    first = resume(team, checkpoints, run)
    published = publisher.publish(first)
    with run.progress(config.steps, first, show=("reward", "kl_to_reference")) as progress:
        for step in range(first, config.steps):
            phases = Phases()
            with phases("generate"):
                table = journal.recall(step, step)
                if table is None:
                    table = journal.record(step, step, team.generate(prompts.batch(step), version=step))
            with phases("score"):
                table = team.score(table)
            with phases("learn"):
                table = add_advantages(table, config.algorithm)
                learning = losses if step >= config.critic_warmup_steps else {"critic": losses["critic"]}
                figures = team.learn(table, learning, config.algorithm.epochs)
            with phases("publish"):
                published = publisher.publish(step + 1)
            with phases("checkpoint"):
                if (step + 1) % config.checkpoint_every == 0 and step + 1 < config.steps:
                    team.save(checkpoints.begin(step + 1))
                    checkpoints.commit(step + 1, {"step": step + 1})
            metrics = step_metrics(table, figures, published, phases.seconds)
            run.log(step + 1, metrics)
            progress.update(step + 1, metrics)
    export_model(run.path / "model", prompts.tokenizer, lambda aside: team.policy.call("export", str(aside)))
    run.finish({"steps": config.steps, "weights_version": published.version})


def read_prompts(config: PPOConfig) -> PromptStream:
    """The prompts, once every model folder is known to be there and made for sequences as long as ours."""
    longest = config.prompts.max_tokens + config.rollout.max_new_tokens
    for role in ("policy", "critic", "reference", "reward"):
        require_model(getattr(config, role).model, longest, "prompts.max_tokens + rollout.max_new_tokens =")
    return PromptStream(config, load_tokenizer(config.policy.model))


def resume(team: Team, checkpoints: CheckpointStore, run: Run) -> int:
    """Restores the newest checkpoint, if there is one; returns the step to go on with."""
    newest = checkpoints.latest()
    if newest is None:
        run.rewind(0)
        return 0
    folder, state = newest
    team.load(folder)
    run.rewind(state["step"])
    return state["step"]


def team_config(config: PPOConfig) -> TeamConfig:
    """What the roles need of the stage's settings."""
    return TeamConfig(
        run=config.name,
        policy=config.policy,
        critic=config.critic,
        reference=config.reference,
        reward=config.reward,
        rollout=config.rollout,
        updates=config.updates,
        minibatches=config.algorithm.minibatches,
        seed=config.seed,
        native_transfer="nccl" if config.publish.transport == "vllm_nccl" else None,
        start_timeout_s=config.cluster.start_timeout_s,
        call_timeout_s=config.cluster.collective_timeout_s,
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Reads the settings, opens the run, joins the cluster, trains."""
    config = load("ppo", STAGES, sys.argv[1:] if argv is None else argv, PROG)
    assert isinstance(config, PPOConfig)
    with one_line_errors(PROG):
        if already_finished(config.name, config):
            return
        prompts = read_prompts(config)
        with connect(**config.cluster.connection()):
            require_resources(
                total({role: bundles(placement) for role, placement in team_config(config).placements().items()}),
                "lower ranks, cpus_per_rank or gpus_per_rank of policy, critic, reference, reward or rollout "
                "(each under .placement), or join a larger cluster",
            )
            with Run(config.name, config) as run, run.shown():
                train(config, run, prompts)
                print(f"ppo: done, {run.path / 'model'}", flush=True)


if __name__ == "__main__":
    main()
