"""python -m trainers.ppo: RLHF by PPO, GRPO, RLOO, … (algorithm.name). Generate, score, learn, publish; then again.

Roles run as Ray actors (see actors/team.py); this driver owns the algorithm. The weights version is the number of PPO
steps done: step t is answered by version t, or with `rollout.ahead` an older one, and learning from it makes version t + 1.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from actors.judge import sources_of
from actors.learner import TrainBatch
from actors.team import Team, TeamConfig
from actors.weights.publisher import Publisher
from actors.zero import Loss
from cluster.connect import connect
from configs.base import load, one_line_errors
from trainers.advantages import add_advantages, add_weights
from trainers.collapse import keeping_rows, refuse_collapse
from trainers.config import STAGES
from trainers.export import export_model, load_tokenizer, require_model
from trainers.journal import Journal, fingerprint
from trainers.losses import ClippedPolicyLoss, ClippedValueLoss
from trainers.phases import Phases
from trainers.ppo_metrics import step_metrics
from trainers.preflight import require_fit
from trainers.prompts import PromptStream
from trainers.restart import starting_again
from trainers.rewards import KLController, RewardShaper, add_reward
from trainers.rlhf_config import PPOConfig
from trainers.rollouts import Rollouts
from trainers.run import Run, already_finished
from trainers.samples import write_samples
from trainers.savepoints import Savepoints

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
    """PPO (Schulman et al. 2017), or another of trainers/algorithms.py, with a KL penalty (Ouyang et al. 2022)."""
    algorithm = config.algorithm
    journal = Journal(run.path, fingerprint(config))
    savepoints = Savepoints(config, run.path, team, journal)
    rollouts = Rollouts(config, team, prompts, journal)
    shaper, kl = RewardShaper(algorithm, config.rollout.max_new_tokens), KLController(algorithm)
    publisher = Publisher(config.publish, team.policy, team.rollout, prompts.probe(config.publish.probe_sequences))
    first = resume(savepoints, run, shaper, kl)
    published = publisher.publish(first)
    rollouts.start(first)
    with run.progress(config.steps, first, show=("reward", "kl_to_reference")) as progress:
        for step in range(first, config.steps):
            phases = Phases()
            with phases("generate"):
                table, scoring = rollouts.take(step)
            with phases("score"):
                table = team.score(table, prompts.samples, scoring)
                table = shaper.add_score(add_reward(table, config.reward_weights))
            with phases("learn"), keeping_rows(run.path):
                table = add_weights(table, algorithm, config.rollout.max_new_tokens)
                table = add_advantages(table, algorithm, kl.coef)
                figures = team.learn(table, losses(config, step, kl.coef), algorithm.epochs)
            with phases("publish"):
                rollouts.settle()
                published = publisher.publish(step + 1)
                rollouts.start(step + 1)
            metrics = step_metrics(table, figures, published, kl.coef, rollouts.staleness(step, table))
            kl.observe(metrics.get("kl_to_reference", 0.0), len(table))
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
    export_model(run.path / "model", prompts.tokenizer, lambda aside: team.policy.call("export", str(aside)))
    run.finish({"steps": config.steps, "weights_version": published.version})


def losses(config: PPOConfig, step: int, kl_coef: float) -> dict[str, Loss[TrainBatch]]:
    """Who learns in `step`, and by which loss."""
    chosen: dict[str, Loss[TrainBatch]] = {}
    if step >= config.critic_warmup_steps:
        chosen["policy"] = ClippedPolicyLoss(config.algorithm, kl_coef)
    if config.algorithm.has_critic:
        chosen["critic"] = ClippedValueLoss(config.algorithm.value_clip_eps)
    return chosen


def read_prompts(config: PPOConfig) -> PromptStream:
    """The prompts, once every model folder is known to be there and made for sequences as long as ours."""
    longest = config.prompts.max_tokens + config.rollout.max_new_tokens
    for settings in config.roles.values():
        if hasattr(settings, "model"):
            require_model(settings.model, longest, "prompts.max_tokens + rollout.max_new_tokens =")
    return PromptStream(config, load_tokenizer(config.policy.model))


def resume(savepoints: Savepoints, run: Run, shaper: RewardShaper, kl: KLController) -> int:
    """Restores the newest state that can be gone on from, if there is one; returns the step to go on with."""
    step, state = savepoints.restore()
    if state is not None:
        shaper.restore(state["rewards"])
        kl.coef = state["kl_coef"]
    run.rewind(step)
    return step


def team_config(config: PPOConfig) -> TeamConfig:
    """What the roles need of the stage's settings."""
    return TeamConfig(
        run=config.name,
        roles=config.roles,
        sites=config.sites,
        updates=config.updates,
        minibatches=config.algorithm.minibatches,
        knows_logprobs=config.knows_logprobs,
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
        sources_of(config.judge)  # refuses a function that is none, before anything starts
        with connect(**config.cluster.connection()):
            require_fit(config)
            with Run(config.name, config) as run, run.shown():
                train(config, run, prompts)
                print(f"ppo: done, {run.path / 'model'}", flush=True)


if __name__ == "__main__":
    main()
