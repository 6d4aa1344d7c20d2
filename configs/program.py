"""How a command was started, `chimed NAME` or `python -m MODULE`, so that its messages and help use the same form.

Code and docstrings write `python -m MODULE`; what is printed goes through `spelled`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

_MODULE: Final = re.compile(r"\bpython -m ([A-Za-z_][\w.]*\w)")
_names: dict[str, str] = {}  # the names of commands by module; empty unless the process was started as `chimed`


def use_chimed(names: Mapping[str, str]) -> None:
    """Makes `program` and `spelled` write `chimed NAME`, in this process.

    Args:
        names: each command's name by its module, such as `{"trainers.ppo": "ppo"}`.
    """
    _names.update(names)


def program(module: str) -> str:
    """Returns what starts a module's command, as the user would type it: the prefix of its messages."""
    return spelled(f"python -m {module}")


def spelled(text: str) -> str:
    """Returns `text` with `python -m MODULE` replaced by `chimed NAME` if the process was started as `chimed`."""
    return _MODULE.sub(lambda found: f"chimed {_names[found[1]]}" if found[1] in _names else found[0], text)
