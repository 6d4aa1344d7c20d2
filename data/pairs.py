"""Preference pairs: their token ids, which side wins, and how accurately response length alone would rank them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from data.chat import chat_format

CUT_OFF: Final = "cut_off"
"""The flaw whose rejected responses lack the token that ends a turn."""
SIDES: Final = ("chosen", "rejected")


def encode_pair(tokenizer: Any, row: Mapping[str, Any]) -> list[tuple[list[int], list[int]]]:
    """Encodes a pair as (prompt ids, response ids) of the chosen side, then of the rejected side.

    A response ends with the token that ends its turn, unless it is truncated. The two prompts may differ in their last
    token if the tokenizer merges the end of the prompt with the start of the response.

    Args:
        tokenizer: a Hugging Face tokenizer with a chat template.
        row: `prompt`, a chat; `chosen` and `rejected`, the text of each response; and `flaw`.

    Raises:
        DataError: the chat format cannot express the pair.
    """
    encoded = []
    for side in SIDES:
        prompt, response = chat_format(tokenizer).response(
            [*row["prompt"], {"role": "assistant", "content": row[side]}]
        )
        cut_off = side == "rejected" and row["flaw"] == CUT_OFF
        encoded.append((prompt, response[:-1] if cut_off else response))
    return encoded


def wins(chosen: ArrayLike, rejected: ArrayLike) -> NDArray[np.float64]:
    """Returns for each pair whether the chosen side is larger, (P,): 1 if it is, 0 if the other is, 1/2 for a tie.

    Args:
        chosen: scores or lengths, (P,).
        rejected: those of the other side, (P,).
    """
    one, other = np.asarray(chosen, np.float64), np.asarray(rejected, np.float64)
    return (one > other) + 0.5 * (one == other)


def length_baseline(chosen: ArrayLike, rejected: ArrayLike) -> float:
    """Returns the accuracy of ranking pairs by response length alone, longer or shorter first, whichever is better.

    Ties count half.

    Args:
        chosen: lengths of the chosen responses, (P,).
        rejected: lengths of the rejected responses, (P,), in the same unit.
    """
    longer = float(wins(chosen, rejected).mean())
    return max(longer, 1.0 - longer)
