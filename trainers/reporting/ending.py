"""The end of a training command: the run's last metrics, and commands to look at the result."""

from __future__ import annotations

from typing import Any

from trainers.runs.folder import Run
from trainers.runs.progress import held_out_metrics

_HEADLINES = (
    "loss",
    "accuracy",
    "reward",
    "kl_to_reference",
    "response_tokens",
    "truncated",
    "cut_off_share",
    "tokens_per_second",
)


def ending(run: Run) -> str:
    """Returns the text that a stage prints when it has finished: the model's folder, metrics, and next commands."""
    model = run.path / "model"
    commands = {f"chimed report {run.path}": "its curves and samples, as an HTML page"}
    if run.config.recipe_key != "reward":
        commands |= {
            f"chimed serve model={model}": "a chat page and an OpenAI-compatible API",
            f"chimed eval --model {model}": "exams, NER, dialogues, and attitude scales",
        }
    metrics = {name: f"{value:.4g}" for name, value in headline_metrics(run.metrics()).items()}
    return "\n".join([*_aligned(metrics), *_aligned(commands), f"{run.config.recipe_key}: done, {model}"])


def headline_metrics(lines: list[dict[str, Any]]) -> dict[str, float]:
    """Returns the metrics that a stage prints when it ends.

    These are the metrics in `_HEADLINES` from the last line, and the last value of every held-out metric. Null values
    are omitted.

    Args:
        lines: the lines of metrics.jsonl.
    """
    last = lines[-1] if lines else {}
    training = {name: last[name] for name in _HEADLINES if last.get(name) is not None}
    held_out = {name: value for line in lines for name, value in held_out_metrics(line).items()}
    return training | {name: value for name, value in held_out.items() if value is not None}


def _aligned(pairs: dict[str, str]) -> list[str]:
    width = max(map(len, pairs), default=0)
    return [f"  {name:{width}}  {text}" for name, text in pairs.items()]
