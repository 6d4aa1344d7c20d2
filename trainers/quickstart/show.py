"""What the quickstart prints between its parts: what a stage is for, and its results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evals.report.table import STAGES, partial_markdown
from trainers.quickstart.results import EVALUATIONS, answers_of

PURPOSES = {
    "clinic": "The data: a tokenizer, and synthetic Chinese medical text for every stage and evaluation.",
    "pretrain": "Continued pretraining teaches the language of medical text, here from random weights: perplexity falls.",
    "sft": "Supervised fine-tuning teaches to answer: choice accuracy, NER F1, and ROUGE-L rise.",
    "reward": "The reward model learns which of two answers people prefer, to score the answers of the next stage.",
    "ppo": "PPO trains the SFT model towards higher rewards, with a penalty on the distance (KL) from it.",
}
WIDTH = 100
"""Characters of a printed response; the HTML page has all of it."""


def before_and_after(stage: str, models: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns the results after a stage: the table so far, and responses of the models before and after the stage.

    Args:
        stage: the stage that has ended.
        models: the results of all evaluations so far.
    """
    lines = ["", partial_markdown(models)]
    asked = [name for name in STAGES if "open" in models.get(name, {}).get("tasks", {})]
    shown = asked[-2:] if EVALUATIONS[stage].models[-1] in asked else []
    width = max((len(STAGES[name]) for name in shown), default=0)
    for answer in answers_of(models) if shown else []:
        lines.append(f"  {answer.question}")
        lines += [f"    {STAGES[name]:>{width}}: {_line(answer.responses[name])}" for name in shown]
    return "\n".join(lines) + "\n"


def _line(text: str) -> str:
    """Returns a response as one printable line of at most `WIDTH` characters."""
    line = "".join(character if character.isprintable() else " " for character in " ".join(text.split()))
    if not line:
        return "(nothing)"
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…"
