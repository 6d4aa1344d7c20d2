"""A byte-level BPE tokenizer trained on a clinic's texts, saved in Hugging Face's format with the chat template.

Given words, such as entity names, are split off before BPE, so that a name has the same tokens, one or a few, wherever
it stands. Without that, merges run over a name's edges (…炎的) in such repetitive text, and a small model meets one
entity in many disguises: of the entities in held-out text, plain BPE of 4,096 tokens kept 90% in their usual tokens, a
Unigram model 77%, this one all, at no more tokens a character. Bytes are the base alphabet: no text is unknown, and
decoding is exact.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

from tokenizers import AddedToken, Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Split
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from data.chat import BOT, CHAT_TEMPLATE, HUMAN

SPECIAL: Final = ("<unk>", "<s>", "</s>", "<pad>")
LONGEST_TOKEN: Final = 18  # bytes: six Chinese characters, the longest entity name
CONTEXT: Final = 4096
# Sentences, lines and numbers end a token; digits stand alone.
BOUNDARIES: Final = r"[，。：；、？！“”\n\s;:,]|\d"


def train_tokenizer(texts: Iterable[str], names: Sequence[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Train a tokenizer.

    Args:
        texts: training text; role markers and special tokens must not be in it.
        names: words that are split off whole before merges are learnt; the longest wins where several fit.
        vocabulary: its size, special tokens and role markers included.

    Raises:
        ValueError: the texts give fewer merges than asked for, so that the size is missed.
    """
    tokenizer = Tokenizer(BPE(unk_token="<unk>"))
    longest_first = "|".join(re.escape(name) for name in sorted(set(names), key=lambda name: (-len(name), name)))
    steps = [Split(Regex(pattern), "isolated") for pattern in (BOUNDARIES, longest_first) if pattern]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*steps, ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[*SPECIAL, HUMAN, BOT],
        initial_alphabet=ByteLevel.alphabet(),
        max_token_length=LONGEST_TOKEN,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    # Declared anew as not "special": decoding shows them, so that an answer that goes on with a turn of its own is seen.
    tokenizer.add_tokens([AddedToken(mark, normalized=False, special=False) for mark in (HUMAN, BOT)])
    if tokenizer.get_vocab_size() != vocabulary:
        raise ValueError(
            f"the texts give a vocabulary of {tokenizer.get_vocab_size()}, not {vocabulary}; "
            "ask for a smaller vocabulary or give more text"
        )
    return wrap(tokenizer)


def wrap(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """Give a tokenizer its special tokens' roles, the chat template and the context length."""
    settings: dict[str, Any] = {
        "unk_token": "<unk>",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "model_max_length": CONTEXT,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    untyped: Any = PreTrainedTokenizerFast  # transformers gives its constructor no types
    wrapped: PreTrainedTokenizerFast = untyped(tokenizer_object=tokenizer, **settings)
    return wrapped
