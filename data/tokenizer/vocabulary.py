"""Extends the vocabulary of an existing tokenizer with new pieces, trained on texts by byte-pair encoding.

This continues the tokenizer's training: its own pieces are the base symbols of a second byte-pair encoding, whose
merges are appended to the old ones. Old merges come first, so a text without new pieces keeps its tokens. For
tokenizers that fall back to bytes for unknown characters, such as LLaMA's, the most frequent of these characters become
pieces first. Ziya extended LLaMA's 32,000 pieces to a Chinese vocabulary of 39,410 in this way.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Final

from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

from data.tables import DataError

LONGEST: Final = 18  # bytes of a new piece: six Chinese characters
_LETTERS: Final = 0x10000  # first code point that stands for a piece; there is room for a million
_BETWEEN: Final = "\n"
_LEAST: Final = 2  # minimum occurrences of a new piece
_BATCH: Final = 1000

Pair = tuple[str, str]


def extend(
    tokenizer: Tokenizer, texts: Callable[[], Iterable[str]], more: int, character_share: float = 0.5
) -> Tokenizer:
    """Returns a tokenizer with `more` additional pieces, whose ids follow the old ones.

    Args:
        tokenizer: a byte-pair encoding, of bytes or of characters; it is not modified.
        texts: returns the texts; called twice if characters may be unknown.
        more: the number of new pieces.
        character_share: maximum share of new pieces that are characters that were unknown.

    Raises:
        DataError: the tokenizer is not a byte-pair encoding, or the texts give fewer than `more` new pieces that occur
            at least twice.
    """
    state = json.loads(tokenizer.to_str())
    model = state["model"]
    if model["type"] != "BPE":
        raise DataError(f"the tokenizer is a {model['type']} model; only byte-pair encodings (BPE) can be extended")
    vocabulary, in_bytes = model["vocab"], not model.get("byte_fallback")
    first = size = max(tokenizer.get_vocab().values()) + 1
    if not in_bytes:
        for character in _unknown(tokenizer, texts(), int(more * character_share)):
            vocabulary[character], size = size, size + 1
        tokenizer = Tokenizer.from_str(json.dumps(state))
    merges = []
    for left, right in _merges(tokenizer, texts(), 2 * more):
        piece = left + right
        if left not in vocabulary or right not in vocabulary or len(piece if in_bytes else piece.encode()) > LONGEST:
            continue  # too long, or built from a piece that is
        if piece not in vocabulary:
            if size == first + more:
                break
            vocabulary[piece], size = size, size + 1
        merges.append([left, right])
    if size < first + more:
        raise DataError(f"the texts give {size - first} new tokens, not {more}; ask for fewer or give more text")
    model["merges"] += merges
    return Tokenizer.from_str(json.dumps(state))


def old_pieces(old: Tokenizer, new: Tokenizer) -> dict[int, list[int]]:
    """Maps every id that only the new tokenizer has to the old ids that stand for the same text, in order.

    Raises:
        DataError: the new tokenizer is not an extension of the old one: an old id stands for something else.
    """
    before, after = old.get_vocab(), new.get_vocab()
    for piece, number in before.items():
        if after.get(piece) != number:
            raise DataError(f"the tokenizers do not match: id {number} is {piece!r} in one and not in the other")
    parts = {left + right: (left, right) for left, right in reversed(_pairs(json.loads(new.to_str())["model"]))}
    found: dict[str, list[int]] = {}

    def ids(piece: str) -> list[int]:
        if piece in before:
            return [before[piece]]
        if piece not in found:
            if piece in parts:
                found[piece] = [number for part in parts[piece] for number in ids(part)]
            else:
                found[piece] = [token.id for token in old.model.tokenize(piece)]
        return found[piece]

    return {
        number: ids(piece) for piece, number in sorted(after.items(), key=lambda item: item[1]) if piece not in before
    }


def _unknown(tokenizer: Tokenizer, texts: Iterable[str], most: int) -> list[str]:
    """Returns the characters for which the tokenizer has no piece, the most frequent first."""
    vocabulary, counts = tokenizer.get_vocab(), Counter[str]()
    for text in texts:
        counts.update(text)
    missing = [(-count, one) for one, count in counts.items() if one not in vocabulary and not one.isspace()]
    return [one for count, one in sorted(missing) if -count >= _LEAST][:most]


def _merges(tokenizer: Tokenizer, texts: Iterable[str], most: int) -> list[Pair]:
    """Returns merges of the tokenizer's pieces in the order in which they are trained, at most `most`."""
    pieces = {number: piece for piece, number in tokenizer.get_vocab().items()}
    letters: Tokenizer = Tokenizer(BPE())
    letters.pre_tokenizer = pre_tokenizers.Split(_BETWEEN, "removed")
    used: set[str] = set()
    with tempfile.NamedTemporaryFile("w", encoding="utf-8") as file:
        for word in _words(tokenizer, texts):
            used.update(word)
            file.write(word + _BETWEEN)
        file.flush()
        trainer = BpeTrainer(vocab_size=len(used) + most, min_frequency=_LEAST, show_progress=False)
        letters.train([file.name], trainer)

    def spelled(word: str) -> str:
        return "".join(pieces[ord(letter) - _LETTERS] for letter in word)

    return [(spelled(left), spelled(right)) for left, right in _pairs(json.loads(letters.to_str())["model"])]


def _words(tokenizer: Tokenizer, texts: Iterable[str]) -> Iterator[str]:
    """Yields stretches of text that merges may not cross, as characters that stand for pieces.

    Added tokens and single bytes are left out.
    """
    apart = set(tokenizer.get_added_tokens_decoder())
    apart |= {number for piece, number in tokenizer.get_vocab().items() if piece.startswith("<0x") and len(piece) == 6}
    rest = iter(texts)
    while batch := list(islice(rest, _BATCH)):
        for encoding in tokenizer.encode_batch(batch, add_special_tokens=False):
            word, of = "", None
            for number, index in zip(encoding.ids, encoding.word_ids, strict=True):
                if (index != of or number in apart) and word:
                    yield word
                    word = ""
                of = index
                if number not in apart:
                    word += chr(_LETTERS + number)
            if word:
                yield word


def _pairs(model: dict[str, Any]) -> list[Pair]:
    """Returns the merges of a byte-pair encoding's saved state."""
    pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"])
    return [(left, right) for left, right in pairs]
