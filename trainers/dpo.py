"""python -m trainers.dpo --config FILE [--a.b=value ...]: direct preference optimization on preference pairs."""

from __future__ import annotations

from trainers.supervised import driver
from trainers.supervised.tasks.dpo import DpoStage

if __name__ == "__main__":
    driver.main(DpoStage, "dpo")
