"""The best weights so far: the export of the evaluation with the lowest held-out loss, in the run's folder `best/step-N`.

What is best is read from the folders themselves. A run that is resumed from before its best evaluation comes to that
evaluation again; until then, and if it should not, the weights are there.
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
"""In an export, beside its weights: `step`, `metrics` and `report` of the held-out evaluation that was made of them."""


class Best:
    """The folder `best/` of a run. One process asks and writes."""

    def __init__(self, run: Path) -> None:
        self.folder = run / "best"

    def is_beaten_by(self, loss: float) -> bool:
        """Whether `loss` is lower than that of all that is kept."""
        return math.isfinite(loss) and all(loss < kept for kept in self._losses().values())

    def of_step(self, step: int) -> Path:
        """The folder for the export of that evaluation."""
        return self.folder / f"step-{step:08d}"

    def keep_only(self, step: int) -> None:
        """Removes all but the export of `step`. Raises DiskError."""
        with writing(self.folder):
            for path in self.folder.iterdir():
                if path != self.of_step(step):
                    shutil.rmtree(path)

    def path(self) -> Path:
        """The best export. Raises RunError where there is none: no held-out loss was finite."""
        losses = self._losses()
        if not losses:
            raise RunError(f"{self.folder}: no evaluation had a finite held-out loss; look at data.heldout")
        return min(losses, key=lambda path: losses[path])

    def _losses(self) -> dict[Path, float]:
        return {path.parent: _loss(path) for path in sorted(self.folder.glob(f"step-????????/{EVALUATION}"))}


def write_evaluation(folder: Path, evaluation: Evaluation) -> None:
    """Writes what was found of the weights in `folder`. Figures that are not finite become null. Raises DiskError."""
    metrics = {name: value if math.isfinite(value) else None for name, value in evaluation.metrics.items()}
    content = {"step": evaluation.step, "metrics": metrics, "report": evaluation.report}
    with writing(folder / EVALUATION):
        (folder / EVALUATION).write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _loss(path: Path) -> float:
    return float(json.loads(path.read_text(encoding="utf-8"))["metrics"]["heldout_loss"])
