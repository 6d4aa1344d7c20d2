"""Runs of trainers.ppo trained to their end, roles that serve one run after another, and weights."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from actors.groups.learners import Learners
from actors.groups.role_groups import WORKERS, RoleGroups, RoleGroupsConfig
from trainers.config.rlhf import PPOConfig
from trainers.ppo import read_prompts, train
from trainers.runs.folder import Run


class WarmRoles:
    """Stands in for `RoleGroups` in trainers.ppo: gives the same processes, back at their first weights, to every run.

    Starting processes is most of what a short run takes. Only policy and reward functions get new settings; a run that
    needs other engines starts its own processes, which serve the runs after it if they need the same engines.
    """

    def __init__(self, roles: RoleGroups, folder: Path) -> None:
        """`roles` have just been started; their weights are kept in `folder`."""
        self.roles, self._start = roles, folder
        self._with_other_engines: RoleGroups | None = None
        _learners(roles).save(folder)

    @contextmanager
    def __call__(self, config: RoleGroupsConfig) -> Iterator[RoleGroups]:
        roles = self._roles_with(_engines(config)) or self._start_others(config)
        before, context = roles.config.context.roles, config.context
        other_columns = context.policy_columns != roles.config.context.policy_columns
        for role in ("policy", "reward_function"):
            if role in context.roles and (context.roles[role] != before[role] or (role == "policy" and other_columns)):
                roles.groups[role].call("setup", *WORKERS[role].setup_arguments(role, context))
        roles.config = replace(config, context=replace(context, roles={**before, **context.roles}))
        _learners(roles).load(self._start)
        roles.updated.clear()
        yield roles

    def close(self) -> None:
        """Ends the processes with other engines than those that this was given."""
        if self._with_other_engines is not None:
            self._with_other_engines.stop()

    def _roles_with(self, engines: dict[str, Any]) -> RoleGroups | None:
        for roles in (self.roles, self._with_other_engines):
            if roles is not None and _engines(roles.config) == engines:
                return roles
        return None

    def _start_others(self, config: RoleGroupsConfig) -> RoleGroups:
        self.close()
        self._with_other_engines = RoleGroups(config)
        return self._with_other_engines


def _learners(roles: RoleGroups) -> Learners:
    return Learners(roles, minibatches=1, skips_policy=False)


def _engines(config: RoleGroupsConfig) -> dict[str, Any]:
    """The rollout's settings that its processes hold; the others are the driver's."""
    return config.context.roles["rollout"].model_dump(exclude={"ahead", "chunk_rows"})


def finished_run(config: PPOConfig) -> Path:
    """The folder of the run, which this trains or resumes."""
    with Run(config.name, config) as run:
        train(config, run, read_prompts(config))
        return run.path


def weights(run: Path) -> dict[str, torch.Tensor]:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(run / "model").state_dict()


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def evaluated(model: Path, task: str, data: Path, *options: str) -> dict[str, Any]:
    """What `evals.run` finds of a task, in a process of its own: vLLM, when it ends, ends the process's torch world too."""
    output = data / "found.json"
    command = [sys.executable, "-m", "evals.run", f"--model={model}", f"--tasks={task}", f"--data={data}"]
    subprocess.run([*command, f"--json={output}", *options], check=True, timeout=300)
    found: dict[str, Any] = json.loads(output.read_text())["tasks"][task]
    return found
