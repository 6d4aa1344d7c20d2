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

from actors.groups.team import Team, TeamConfig
from trainers.config.rlhf import PPOConfig
from trainers.ppo import read_prompts, train
from trainers.runs.folder import Run


class WarmTeam:
    """Stands in for `Team` in trainers.ppo: gives the same processes, back at their first weights, to every run.

    Starting processes is most of what a short run takes. What they are told anew are settings of policy and judge; a run
    that wants other engines starts a team of its own.
    """

    def __init__(self, team: Team, folder: Path) -> None:
        """`team` has just been started; its weights are kept in `folder`."""
        self.team, self._start = team, folder
        team.save(folder)

    @contextmanager
    def __call__(self, config: TeamConfig) -> Iterator[Team]:
        roles = self.team.config.roles
        if _engines(config) != _engines(self.team.config):
            with Team(config) as own:
                yield own
            return
        again = {"policy": (config.updates, config.roles["rollout"].temperature), "judge": ()}
        for role, more in again.items():
            if role in config.roles and config.roles[role] != roles[role]:
                self.team.groups[role].call("setup", config.roles[role], *more)
        self.team.config = replace(config, roles={**roles, **config.roles})
        self.team.load(self._start)
        self.team.updated.clear()
        yield self.team


def _engines(config: TeamConfig) -> dict[str, Any]:
    """The rollout's settings that its processes hold; the others are the driver's."""
    return config.roles["rollout"].model_dump(exclude={"ahead", "chunk_rows"})


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
