"""python -m trainers.ppo: RLHF with PPO, GRPO, RLOO, … (algorithm.name).

The training loop is in trainers/rlhf/loop.py; this command reads the settings, starts the roles, and runs the loop.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from actors.config import FrozenRoleConfig, TrainedRoleConfig
from actors.groups.role_groups import RoleGroups, RoleGroupsConfig
from actors.model_folder.checks import require_rows
from actors.model_folder.compatibility import require_same_format
from actors.model_folder.config_json import read_config
from actors.roles.reward_function import sources_of
from actors.roles.worker import RunContext
from cluster.connect import connect
from configs.base import load
from configs.errors import one_line_errors
from configs.logs import configure
from configs.program import program
from data.tokenizer.hf_tokenizer import has_tokenizer
from trainers.config.rlhf import PPOConfig
from trainers.config.stages import STAGES
from trainers.preflight.inputs import KINDS
from trainers.preflight.verdict import require_fit, require_machine
from trainers.reporting.ending import ending
from trainers.rlhf.loop import Loop
from trainers.rlhf.observer import Observer
from trainers.rlhf.prompts import PromptStream
from trainers.rlhf.recovery import Recovery
from trainers.runs.evaluation import check_tasks
from trainers.runs.export import load_chat_tokenizer, load_tokenizer, require_model
from trainers.runs.folder import Run, already_finished
from trainers.runs.pinning import fetch_on_nodes, pin
from trainers.runs.restart import starting_again
from trainers.runs.stopping import StopRequests

logger = logging.getLogger(__name__)

PROG = program("trainers.ppo")
LONGEST = "prompts.max_tokens + rollout.max_new_tokens"


def train(config: PPOConfig, run: Run, prompts: PromptStream, observers: Sequence[Observer] = ()) -> None:
    """Trains to the end, even if processes of roles die or hang in the meantime; see trainers/rlhf/recovery.py.

    Raises:
        Stopped: a stop was requested; unless no step was completed, a checkpoint has been saved if possible.
        RunError: processes of a role were lost more often than `max_failures` allows, or the run collapsed.
    """
    with StopRequests() as stop:
        with stop.may_interrupt():
            starting = starting_again(
                config.max_failures, lambda: RoleGroups(role_groups_config(config, prompts.end_ids))
            )
        with starting as roles:
            stop.watch_nodes(roles.watch)
            recovery = Recovery(roles, stop, config.max_failures, config.failure_window_s)
            recovery.finish(lambda: Loop(config, run, prompts, roles, recovery, stop, observers).train())


def read_prompts(config: PPOConfig) -> PromptStream:
    """Checks the models of all roles, then reads the prompts.

    Every model must exist, support the longest possible sequence, and have the policy's vocabulary and chat format
    according to its tokenizer. Logs a warning for a model without a tokenizer.

    Raises:
        ConfigError: a model or a setting is invalid.
        DataError: a prompt cannot be read or encoded, or is too long.
    """
    longest = config.prompts.max_tokens + config.rollout.max_new_tokens
    tokenizer = load_chat_tokenizer(config.policy.model, config.chat)
    for role, settings in config.roles.items():
        if isinstance(settings, TrainedRoleConfig | FrozenRoleConfig):
            key = f"{role}.model"
            folder = require_model(settings.model, longest, f"{LONGEST} =", key, KINDS.get(f"ppo.{key}", "language"))
            require_rows(tokenizer, read_config(folder, key), f"{key}: {folder}")
            if role != "policy" and not has_tokenizer(folder):
                logger.warning("%s: %s has no tokenizer to compare with the policy's", key, folder)
            elif role != "policy":
                require_same_format(config.policy.model, tokenizer, folder, load_tokenizer(folder))
    return PromptStream(config, tokenizer)


def role_groups_config(config: PPOConfig, end_ids: tuple[int, ...]) -> RoleGroupsConfig:
    """Returns the part of the stage's settings that the roles need."""
    return RoleGroupsConfig(
        run=config.name,
        context=RunContext(
            config.roles,
            config.policy.model,
            config.seed,
            end_ids,
            updates=config.updates,
            native_transfer="nccl" if config.publish.transport == "vllm_nccl" else None,
            in_flight=config.rollout.in_flight,
            policy_columns=config.policy_columns,
            sleep_level=config.sleep_level,
        ),
        placement_groups=config.placement_groups,
        start_timeout_s=config.cluster.start_timeout_s,
        call_timeout_s=config.cluster.collective_timeout_s,
        hang_timeout_s=config.cluster.hang_timeout_s,
        sleep=config.sleep,
    )


def main(argv: Sequence[str] | None = None, observers: Sequence[Observer] = ()) -> None:
    """Reads the settings, connects to the cluster, opens the run, and trains."""
    config = load("ppo", STAGES, sys.argv[1:] if argv is None else argv, PROG)
    assert isinstance(config, PPOConfig)
    configure("ppo", config.name)
    with one_line_errors(PROG):
        config = pin(config)
        if already_finished(config.name, config):
            return
        require_machine(config)
        prompts = read_prompts(config)
        check_tasks(config.evaluation)
        sources_of(config.reward_function)  # checks the reward functions before anything starts
        with connect(**config.cluster.connection()):
            require_fit(config)
            fetch_on_nodes(config)
            with Run(config.name, config) as run, run.shown():
                train(config, run, prompts, observers)
                print(ending(run), flush=True)


if __name__ == "__main__":
    main()
