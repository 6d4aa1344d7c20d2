"""The end of a training command: the run's key metrics, and commands to look at the result."""

from __future__ import annotations

from trainers.reporting.record import read_record
from trainers.runs.folder import Run
from trainers.runs.panels import key_metrics


def ending(run: Run) -> str:
    """Returns the text that a stage prints when it has finished: the model's folder, metrics, and next commands."""
    model = run.path / "model"
    commands = {f"chimed report {run.path}": "its curves and samples, as an HTML page"}
    if run.config.recipe_key != "reward":
        commands |= {
            f"chimed serve model={model}": "a chat page and an OpenAI-compatible API",
            f"chimed eval --model {model}": "exams, NER, dialogues, and attitude scales",
        }
    metrics = {name: f"{value:.4g}" for name, value in key_metrics(read_record(run.path).series).items()}
    return "\n".join([*_aligned(metrics), *_aligned(commands), f"{run.config.recipe_key}: done, {model}"])


def _aligned(pairs: dict[str, str]) -> list[str]:
    width = max(map(len, pairs), default=0)
    return [f"  {name:{width}}  {text}" for name, text in pairs.items()]
