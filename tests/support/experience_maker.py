"""openrlhf's class that computes advantages, imported without flash-attn, which exists for CUDA only.

Importing the class imports openrlhf's models, which import five names of flash-attn. Nothing that the tests call uses
them, so modules with these names and nothing behind them stand in for flash-attn while the class is imported.
"""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

# Transformers and peft check once whether flash-attn is installed: before the stand-ins exist.
import peft  # noqa: F401
import transformers.modeling_utils  # noqa: F401

from actors.distributed.devices import choose_accelerator

choose_accelerator()

_NAMES = {
    "flash_attn": (),
    "flash_attn.bert_padding": ("index_first_axis", "pad_input", "rearrange", "unpad_input"),
    "flash_attn.utils": (),
    "flash_attn.utils.distributed": ("all_gather",),
}

_stand_ins = {} if importlib.util.find_spec("flash_attn") else {name: ModuleType(name) for name in _NAMES}
for _name, _module in _stand_ins.items():
    _module.__dict__.update(dict.fromkeys(_NAMES[_name]))
sys.modules.update(_stand_ins)
try:
    from openrlhf.trainer.ppo_utils.experience_maker import RemoteExperienceMaker
finally:
    for _name in _stand_ins:
        del sys.modules[_name]

__all__ = ["RemoteExperienceMaker"]
