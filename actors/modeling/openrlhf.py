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

import openrlhf

from actors.distributed.devices import choose_accelerator


@contextmanager
def _bare_packages(*names: str) -> Iterator[None]:
    """Makes modules of openrlhf's subpackages importable without running the subpackages' `__init__`, inside the block.

    Their `__init__` would import all of openrlhf's models, and with them flash-attn, which exists for CUDA only, and
    peft and half of Transformers, which take seconds to import in every process.
    """
    root = Path(openrlhf.__path__[0])
    bare = {f"openrlhf.{name}": root / name for name in names if f"openrlhf.{name}" not in sys.modules}
    for name, path in bare.items():
        sys.modules[name] = ModuleType(name)
        sys.modules[name].__path__ = [str(path)]
    try:
        yield
    finally:
        for name in bare:
            del sys.modules[name]


choose_accelerator()
with _bare_packages("models", "utils"):
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
