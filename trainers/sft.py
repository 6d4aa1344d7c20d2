"""python -m trainers.sft --config FILE [--a.b=value ...]: supervised fine-tuning on chats."""

from __future__ import annotations

from trainers.supervised import driver
from trainers.supervised.tasks.sft import SftStage

if __name__ == "__main__":
    driver.main(SftStage, "sft")
