"""The quickstart's evaluations: which tasks run after which stage, and their results so far."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evals.report.table import STAGES

_LANGUAGE = ("perplexity", "choice", "ner", "open")
_ALIGNED = (*_LANGUAGE, "cami")
MODELS = {
    "random": "pretrain/random",
    **{stage: f"{stage}/model" for stage in ("pretrain", "sft", "reward", "ppo")},
}
"""Folders of the models below the quickstart's folder."""


@dataclass(frozen=True)
class Evaluation:
    """One run of `evals.run`: the stage after which it runs, the names of its models, and its tasks."""

    stage: str
    models: tuple[str, ...]
    tasks: tuple[str, ...]

    def arguments(self, root: Path, seed: int) -> list[str]:
        """Returns the command-line arguments of `evals.run`."""
        named = [argument for name in self.models for argument in ("--model", f"{name}={root / MODELS[name]}")]
        seconds = {"reward": ("--reward-model", "reward"), "kl": ("--reference", "sft")}
        for task, (option, name) in seconds.items():
            if task in self.tasks:
                named += [option, str(root / MODELS[name])]
        return [
            *named,
            *("--tasks", ",".join(self.tasks), "--data", f"{root}/clinic", "--seed", str(seed)),
            *("--json", str(self.path(root))),
        ]

    def path(self, root: Path) -> Path:
        """Returns the file of the results."""
        return root / "evals" / f"{self.stage}.json"


EVALUATIONS = {
    "pretrain": Evaluation("pretrain", ("random", "pretrain"), _LANGUAGE),
    "sft": Evaluation("sft", ("sft",), _ALIGNED),
    # From here on there is a reward model, and it scores the earlier models, too.
    "reward": Evaluation("reward", ("random", "pretrain", "sft", "reward"), ("pairwise", "reward", "kl")),
    "ppo": Evaluation("ppo", ("ppo",), (*_ALIGNED, "reward", "kl")),
}


@dataclass(frozen=True)
class Answer:
    """A question of the held-out open questions, its reference, and each model's response, by name."""

    question: str
    reference: str
    responses: Mapping[str, str]


def read_results(root: Path) -> dict[str, dict[str, Any]]:
    """Returns the results of all evaluations so far: by model, `{"tasks": {task: metrics}}`."""
    models: dict[str, dict[str, Any]] = {}
    for evaluation in EVALUATIONS.values():
        path = evaluation.path(root)
        if path.exists():
            for name, result in json.loads(path.read_text(encoding="utf-8"))["models"].items():
                known = models.setdefault(name, {**result, "tasks": {}})
                known["tasks"] |= result["tasks"]
    return models


def answers_of(models: Mapping[str, Mapping[str, Any]]) -> list[Answer]:
    """Returns the same questions with the response of every model that was asked them, in the order of the stages."""
    asked: dict[str, list[dict[str, str]]] = {
        name: models[name]["tasks"]["open"]["samples"]
        for name in STAGES
        if "open" in models.get(name, {}).get("tasks", {})
    }
    first = next(iter(asked.values()), [])
    return [
        Answer(sample["question"], sample["reference"], {name: own[place]["answer"] for name, own in asked.items()})
        for place, sample in enumerate(first)
    ]
