"""python -m trainers.reward --config FILE [--a.b=value ...]: trains a reward model on preference pairs."""

from __future__ import annotations

from trainers.supervised import driver
from trainers.supervised.tasks.reward import RewardStage

if __name__ == "__main__":
    driver.main(RewardStage, "reward")
