"""Supervised fine-tuning (SFT) on chats: trains on the assistant's turns, with all other tokens masked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from data.chat import chat_format
from data.packing import Fit, fit_lengths
from data.tables import MAY_LACK, SFT, DataError, column_values, read_table
from storage.paths import table_path
from trainers.config.supervised import SftConfig
from trainers.runs.export import load_chat_tokenizer, require_model
from trainers.supervised.stage import Examples, LanguageStage, encoded, list_row

if TYPE_CHECKING:
    from actors.modeling.packed import PackedBatch
    from actors.modeling.packed_models import PackedModule


Chat = list[dict[str, str]]
Samples = list[tuple[list[int], list[int]]]


class SftStage(LanguageStage[SftConfig]):
    """The SFT stage. A row is one chat, whose loss mask selects the responses to train on and their end tokens.

    A chat yields several rows if the chat template renders earlier turns differently when others follow.
    """

    def examples(self) -> Examples:
        require_model(self.config.model, self.config.data.max_tokens, "data.max_tokens")
        self.tokenizer = load_chat_tokenizer(self.config.model, self.config.chat)
        return encoded(self.config.data, self._encode, self.config.seed)

    def module(self) -> PackedModule:
        from actors.modeling.packed_models import PackedLM
        from actors.zero.loading import load_to_train

        return load_to_train(PackedLM, self.config.model, self.config.zero, self.config.dropout)

    def batch(self, table: pa.Table, rows: list[int]) -> PackedBatch:
        from actors.modeling.packed import PackedBatch

        sizes = dict(zip(rows, column_values(table.select(["size"]).take(rows), "size"), strict=True))
        rows = sorted(rows, key=lambda row: sizes[row])  # see `packed_attention`
        tokens, targets = ([list_row(table, column, row) for row in rows] for column in ("tokens", "targets"))
        return PackedBatch.of(tokens, targets)

    def _encode(self, field: str, paths: tuple[str, ...]) -> tuple[pa.Table, str]:
        """Encodes the chats in the tables `paths`. Returns a table and a note for the user.

        Columns: `tokens` and `targets` (the loss mask), list<int32> of equal length; `size`; `weight`.

        Args:
            field: the setting that names the tables, for messages.

        Raises:
            DataError: a chat cannot be encoded, is too long and `data.too_long` is `refuse`, or has no response within
                `data.max_tokens`.
        """
        read = read_table([table_path(path) for path in paths], SFT, may_lack=MAY_LACK)
        chats, encoded = column_values(read, "messages"), []
        for row, messages in enumerate(chats):
            try:
                encoded.append(self._samples(messages))
            except DataError as error:
                raise DataError(f"{field}: row {row}: {error}") from error
        limit = self.config.data.max_tokens
        fit = fit_lengths(list(map(_longest, encoded)), limit, self.config.data.too_long, field)
        fit = self._cut(field, chats, encoded, fit)
        rows = [row for row in fit.kept for _ in encoded[row]]
        tokens, targets = ([sample[side] for row in fit.kept for sample in encoded[row]] for side in (0, 1))
        weights = [sum(mask[1:]) for mask in targets]
        if 0 in weights:
            row = rows[weights.index(0)]
            raise DataError(
                f"{field}: row {row} has no response within data.max_tokens {limit}; remove the row or raise "
                "data.max_tokens"
            )
        columns = {
            "tokens": pa.array(tokens, pa.list_(pa.int32())),
            "targets": pa.array(targets, pa.list_(pa.int32())),
            "size": pa.array(map(len, tokens), pa.int32()),
            "weight": pa.array(weights, pa.int32()),
        }
        note = f"{fit}, {sum(map(len, tokens)):,} tokens of which {sum(weights):,} are trained on"
        if len(rows) > len(fit.kept):
            note += (
                f"; {len(rows)} sequences, since the chat template renders earlier turns differently when others follow"
            )
        return pa.table(columns), note

    def _samples(self, messages: Chat) -> Samples:
        return chat_format(self.tokenizer).samples(messages, self.config.train_on == "last_response")

    def _cut(self, field: str, chats: list[Chat], encoded: list[Samples], fit: Fit) -> Fit:
        """Shortens chats that exceed `data.max_tokens` by whole turns at their end, and encodes them again.

        Updates `encoded`. A chat whose first response does not fit is dropped.

        Raises:
            DataError: no chat remains.
        """
        limit = self.config.data.max_tokens
        whole: dict[int, int] = {}
        for row in fit.kept:
            if _longest(encoded[row]) <= limit:
                continue
            whole[row] = 0
            for turns in range(len(chats[row]) - 1, 0, -1):
                if chats[row][turns - 1]["role"] != "assistant":
                    continue
                shorter = self._samples(chats[row][:turns])
                if _longest(shorter) <= limit:
                    whole[row], encoded[row] = turns, shorter
                    break
        kept = [row for row in fit.kept if whole.get(row, 1)]
        if not kept:
            raise DataError(
                f"{field}: no chat's first response ends within data.max_tokens {limit}; raise data.max_tokens"
            )
        lost = len(fit.kept) - len(kept)
        turns = sum(len(chats[row]) - turns for row, turns in whole.items() if turns)
        return Fit(kept, fit.cut - lost, fit.dropped + lost, turns)


def _longest(samples: Samples) -> int:
    return max(len(ids) for ids, _ in samples)
