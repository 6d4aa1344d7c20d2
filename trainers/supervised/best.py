"""Keeps the best weights so far: the export with the lowest held-out loss, in `best/step-N` of the run's folder.

The best loss is read from the exported folders, not from a checkpoint. So a run that resumes from before its best
evaluation keeps that export, whether or not it reaches the evaluation again.
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

from configs.errors import RunError
from storage.durable import writing
from trainers.supervised.stage import Evaluation

EVALUATION = "evaluation.json"
"""File in an export with the `step`, `metrics`, and `report` of the held-out evaluation of its weights."""


class Best:
    """The folder `best/` of a run. Only one process may use it."""

    def __init__(self, run: Path) -> None:
        self.folder = run / "best"

    def is_beaten_by(self, loss: float) -> bool:
        """Returns whether `loss` is finite and lower than the loss of every stored export."""
        return math.isfinite(loss) and all(loss < kept for kept in self._losses().values())

    def of_step(self, step: int) -> Path:
        """Returns the folder for the export of the evaluation after `step` steps."""
        return self.folder / f"step-{step:08d}"

    def keep_only(self, step: int) -> None:
        """Removes all exports except that of `step`. Raises DiskError if that fails."""
        with writing(self.folder):
            for path in self.folder.iterdir():
                if path != self.of_step(step):
                    shutil.rmtree(path)

    def path(self) -> Path:
        """Returns the folder of the best export. Raises RunError if there is none: no held-out loss was finite."""
        losses = self._losses()
        if not losses:
            raise RunError(
                f"{self.folder}: no evaluation had a finite held-out loss; check data.heldout, or lower optimizer.lr"
            )
        return min(losses, key=lambda path: losses[path])

    def _losses(self) -> dict[Path, float]:
        return {path.parent: _loss(path) for path in sorted(self.folder.glob(f"step-????????/{EVALUATION}"))}


def write_evaluation(folder: Path, evaluation: Evaluation) -> None:
    """Writes the evaluation of the weights in `folder` to the same folder; non-finite metrics become null.

    Raises:
        DiskError: the file cannot be written.
    """
    metrics = {name: value if math.isfinite(value) else None for name, value in evaluation.metrics.items()}
    content = {"step": evaluation.step, "metrics": metrics, "report": evaluation.report}
    with writing(folder / EVALUATION):
        (folder / EVALUATION).write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _loss(path: Path) -> float:
    return float(json.loads(path.read_text(encoding="utf-8"))["metrics"]["heldout_loss"])
