"""python -m trainers.pretrain --config FILE [--a.b=value ...]: pretraining, from random weights or a base model."""

from __future__ import annotations

from trainers.supervised import driver
from trainers.supervised.tasks.pretrain import PretrainStage

if __name__ == "__main__":
    driver.main(PretrainStage, "pretrain")
