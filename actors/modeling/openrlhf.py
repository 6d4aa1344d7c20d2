"""The only module that imports openrlhf: its established losses, KL estimators, and length balancing.

openrlhf's API changes between patch releases, so no other module imports it, and
`tests/actors/modeling/test_openrlhf.py` checks what this one relies on.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

import openrlhf
import torch


@contextmanager
def _alone() -> Iterator[None]:
    """Makes modules of openrlhf importable inside the block without what their neighbors need.

    The `__init__` of a subpackage would import all of openrlhf's models, and with them flash-attn, which exists for
    CUDA only, and peft and half of Transformers. `openrlhf.models.utils` imports DeepSpeed for one function and compiles
    another, which imports Inductor; neither function is used here. All of this would take seconds in every process, the
    driver included, so empty modules and a decorator that does nothing stand in for it.
    """
    root = Path(openrlhf.__path__[0])
    stand_ins = {name: ModuleType(name) for name in ("openrlhf.models", "openrlhf.utils", "deepspeed")}
    for name in ("models", "utils"):
        stand_ins[f"openrlhf.{name}"].__path__ = [str(root / name)]
    stand_ins = {name: module for name, module in stand_ins.items() if name not in sys.modules}
    sys.modules.update(stand_ins)
    try:
        with patch.object(torch, "compile", lambda function: function):
            yield
    finally:
        for name in stand_ins:
            del sys.modules[name]


with _alone():
    from openrlhf.models.loss import DPOLoss, PairWiseLoss, PolicyLoss, ValueLoss
    from openrlhf.models.utils import compute_approx_kl
    from openrlhf.utils.seqlen_balancing import get_seqlen_balanced_partitions

__all__ = [
    "DPOLoss",
    "PairWiseLoss",
    "PolicyLoss",
    "ValueLoss",
    "compute_approx_kl",
    "get_seqlen_balanced_partitions",
]
