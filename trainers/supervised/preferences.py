"""Reads, checks, and encodes preference pairs for reward-model training and DPO, without loading a model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from data.packing import fit_lengths
from data.pairs import SIDES, encode_pair
from data.tables import MAY_LACK, PREFERENCE_WITH_MARGIN, DataError, read_table
from storage.paths import table_path
from trainers.config.supervised import ChatData


def encode_pairs(tokenizer: Any, data: ChatData, field: str, paths: tuple[str, ...]) -> tuple[pa.Table, str]:
    """Encodes the pairs in the tables `paths`. Returns a table with one row per pair, and a note for the user.

    Columns: `chosen` and `rejected`, list<int32>, the token ids of prompt and response; `chosen_response_tokens` and
    `rejected_response_tokens`, the number of response tokens before truncation; `flaw`; `margin`, fp32; `size`, the
    number of tokens of both sides; `weight`, 1. If a side is too long, the prompt is truncated at its start, equally on
    both sides; a response that is still too long is also truncated at its start.

    Args:
        tokenizer: a tokenizer with a chat template.
        data: the settings for samples that are too long.
        field: the setting that names the tables, for messages.
        paths: the tables, as named in a recipe.

    Raises:
        DataError: a pair cannot be read or encoded, or is too long and `too_long` is `refuse`; the message names the
            setting and the row.
    """
    rows = read_table([table_path(path) for path in paths], PREFERENCE_WITH_MARGIN, may_lack=MAY_LACK).to_pylist()
    pairs = []
    for index, row in enumerate(rows):
        try:
            _check_margin(row)
            pairs.append(encode_pair(tokenizer, row))
        except DataError as error:
            raise DataError(f"{field}: row {index}: {error}") from error
    longer = [max(len(prompt) + len(response) for prompt, response in pair) for pair in pairs]
    fit = fit_lengths(longer, data.max_tokens, data.too_long, field)
    kept = [pairs[index] for index in fit.kept]
    cuts = [max(0, longer[index] - data.max_tokens) for index in fit.kept]
    responses = {side: [pair[place][1] for pair in kept] for place, side in enumerate(SIDES)}
    sides = {
        side: [
            (pair[place][0][cut:] + pair[place][1])[-data.max_tokens :] for cut, pair in zip(cuts, kept, strict=True)
        ]
        for place, side in enumerate(SIDES)
    }
    sizes = [len(chosen) + len(rejected) for chosen, rejected in zip(*sides.values(), strict=True)]
    columns = {
        **{side: pa.array(tokens, pa.list_(pa.int32())) for side, tokens in sides.items()},
        **{f"{side}_response_tokens": pa.array(map(len, of), pa.int32()) for side, of in responses.items()},
        "flaw": pa.array([rows[index]["flaw"] for index in fit.kept], pa.string()),
        "margin": pa.array([rows[index]["margin"] for index in fit.kept], pa.float32()),
        "size": pa.array(sizes, pa.int32()),
        "weight": pa.array([1] * len(kept), pa.int32()),
    }
    margins = sum(rows[index]["margin"] > 0 for index in fit.kept)
    return pa.table(columns), f"{fit}, {sum(sizes):,} tokens" + (f", {margins} with a margin" if margins else "")


def _check_margin(row: Mapping[str, Any]) -> None:
    """Raises DataError if a pair's margin is negative or not finite."""
    if not 0.0 <= row["margin"] < math.inf:
        raise DataError(f"margin {row['margin']}: must be 0 or more, because chosen is the better response")
