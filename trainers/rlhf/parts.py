"""The parts of an RLHF run: roles, rollouts, rewards, publisher, checkpoints, and evaluation, built from its settings."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from actors.groups.learners import Learners
from actors.groups.role_groups import RoleGroups
from actors.groups.scoring import Scorers
from actors.model_folder.checks import window_of
from actors.model_folder.config_json import read_config
from actors.model_folder.source import model_dir
from actors.weight_sync.publisher import Publisher
from trainers.config.rlhf import PPOConfig
from trainers.rlhf.checkpoints import Checkpoints
from trainers.rlhf.journal import Journal, fingerprint
from trainers.rlhf.observer import Observer
from trainers.rlhf.prompts import PromptStream
from trainers.rlhf.recovery import Recovery
from trainers.rlhf.rewards import KLController, RewardShaper
from trainers.rlhf.rollouts import Rollouts
from trainers.rlhf.schemas import Schemas
from trainers.runs.evaluation import Evaluator
from trainers.runs.export import export_model
from trainers.runs.folder import Run
from trainers.runs.phases import Phases
from trainers.runs.stopping import StopRequests


class RunParts:
    """Base class of `Loop` with everything that its steps use.

    Args:
        config: the run's settings.
        run: the open run, whose folder holds all outputs.
        prompts: prompts, tokenizer, and chat format.
        roles: the running processes of all roles.
        recovery: replaces lost processes.
        stop: requests to stop the run.
        observers: called at the beginning of every phase and after the export.
    """

    def __init__(
        self, config: PPOConfig, run: Run, prompts: PromptStream, roles: RoleGroups, recovery: Recovery, stop: StopRequests,
        observers: Sequence[Observer] = (),
    ) -> None:  # fmt: skip
        self.config, self.run, self.prompts, self.roles = config, run, prompts, roles
        self.recovery, self.stop, self.observers = recovery, stop, observers
        self.schemas = Schemas.of(config)
        self.journal = Journal(run.path, fingerprint(config))
        self.learners = Learners(roles, config.algorithm.minibatches, skips_policy=not config.policy_columns)
        scorers = Scorers(
            roles.groups,
            config.roles,
            prompts.samples,
            config.algorithm.minibatches,
            config.rollout.chunk_rows,
            in_turn=config.sleep,
        )
        self.rollouts = Rollouts(config, roles.rollout, scorers, prompts, self.journal)
        self.shaper = RewardShaper(config.algorithm, config.rollout.max_new_tokens)
        self.kl = KLController(config.algorithm)
        self.checkpoints = Checkpoints(
            config, run.path, self.learners, self.journal, {"rewards": self.shaper, "kl": self.kl}
        )
        self.publisher = _publisher(config, roles, prompts)
        self.evaluator = Evaluator(config.evaluation, run.path, config.steps, config.cluster.collective_timeout_s)

    def finish(self) -> None:
        """Exports the trained policy and marks the run as finished."""
        self.export(self.run.path / "model")
        for observer in self.observers:
            observer.exported(self.run.path / "model", self.roles)
        self.run.finish({"steps": self.config.steps, "weights_version": self.config.steps})

    def export(self, folder: Path) -> None:
        """Writes the policy to `folder` in Hugging Face format."""
        export_model(folder, self.prompts.tokenizer, lambda aside: self.roles.policy.call("export", str(aside)))

    def phases(self, step: int) -> Phases:
        """Returns the phase timer of `step`, which notifies the observers of each phase."""
        return Phases(*(partial(observer.phase_begins, step) for observer in self.observers))


def _publisher(config: PPOConfig, roles: RoleGroups, prompts: PromptStream) -> Publisher:
    """Returns the publisher that sends the weights of the policy to the engines."""
    probe = prompts.probe(config.publish.probe_sequences, _beyond_window(config))
    dtypes = (config.policy.zero.dtype, config.rollout.engine.dtype)
    coarser = "bfloat16" if "bfloat16" in dtypes else "float32"
    return Publisher(config.publish, roles.policy, roles.rollout, probe, coarser, roles.turns)


def _beyond_window(config: PPOConfig) -> int:
    """Returns the length, in tokens, of a probe that exceeds the policy's sliding window; 0 if it has no such window.

    The length is at most the engines' `max_model_len` - 1.
    """
    window = window_of(read_config(model_dir(config.policy.model), "policy.model"))
    return min(window + 64, config.rollout.engine.max_model_len - 1) if window else 0
