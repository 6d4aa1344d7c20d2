"""A tokenizer for models that are given token ids: engines require one."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def save_tokenizer(folder: Path, size: int) -> None:
    """Writes a tokenizer of `size` numbers to the folder of a model."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({str(number): number for number in range(size)}, unk_token="0"))  # noqa: S106 - a token of the vocabulary
    untyped: Any = PreTrainedTokenizerFast
    untyped(tokenizer_object=words).save_pretrained(folder)
