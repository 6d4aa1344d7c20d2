"""Supervised fine-tuning on chats: the assistant's turns are learnt, everything else is only read.

python -m trainers.sft --config configs/laptop.yaml [--a.b=value ...]
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from actors.devices import DTYPES
from cluster.paths import table_path
from data.chat import encode_chat, turns_within
from data.packing import Fit, fit_lengths
from data.tables import MAY_LACK, SFT, DataError, read_table
from trainers.export import load_tokenizer, require_model
from trainers.stage import Examples, LanguageStage, from_sources, list_row, ordered
from trainers.supervised_config import SftConfig

if TYPE_CHECKING:
    from actors.packed import PackedBatch, PackedModule


Chats = list[list[dict[str, str]]]


class SftStage(LanguageStage[SftConfig]):
    """A row is one chat; it is predicted where its loss mask is 1: the answers to learn and their end marks."""

    def examples(self) -> Examples:
        require_model(self.config.model, self.config.data.max_tokens, "data.max_tokens")
        self.tokenizer = load_tokenizer(self.config.model)
        data = self.config.data
        train, rows, notes = from_sources(data, self._encode)
        heldout, note = self._encode("data.heldout", data.heldout)
        order, mixture = ordered(data, rows, self.config.seed)
        return Examples(train, heldout, order, (*notes, f"held out: {note}", *mixture))

    def module(self) -> PackedModule:
        from actors.models import load_causal_lm
        from actors.packed import PackedLM

        return PackedLM(load_causal_lm(self.config.model, DTYPES[self.config.zero.dtype]))

    def batch(self, table: pa.Table, rows: list[int]) -> PackedBatch:
        from actors.packed import PackedBatch

        rows = sorted(rows, key=lambda row: table.column("size")[row].as_py())  # see `packed_attention`
        tokens, targets = ([list_row(table, column, row) for row in rows] for column in ("tokens", "targets"))
        return PackedBatch.of(tokens, targets)

    def _encode(self, field: str, paths: tuple[str, ...]) -> tuple[pa.Table, str]:
        """Columns `tokens` and `targets`, both list<int32> of one length, `size` and `weight`; and a note."""
        chats = read_table([table_path(path) for path in paths], SFT, may_lack=MAY_LACK).column("messages").to_pylist()
        encoded = []
        for row, messages in enumerate(chats):
            try:
                encoded.append(encode_chat(self.tokenizer, messages, self.config.learn == "last_answer"))
            except DataError as error:
                raise DataError(f"{field}: row {row}: {error}") from error
        limit = self.config.data.max_tokens
        fit = fit_lengths([len(ids) for ids, _ in encoded], limit, self.config.data.too_long, field)
        fit = self._cut(field, chats, encoded, fit)
        tokens, targets = ([encoded[row][side] for row in fit.kept] for side in (0, 1))
        weights = [sum(mask[1:]) for mask in targets]
        if 0 in weights:
            row = fit.kept[weights.index(0)]
            raise DataError(
                f"{field}: row {row} has no answer within data.max_tokens {limit}; leave it out or raise the limit"
            )
        columns = {
            "tokens": pa.array(tokens, pa.list_(pa.int32())),
            "targets": pa.array(targets, pa.list_(pa.int32())),
            "size": pa.array(map(len, tokens), pa.int32()),
            "weight": pa.array(weights, pa.int32()),
        }
        return pa.table(columns), f"{fit}, {sum(map(len, tokens)):,} tokens of which {sum(weights):,} are learnt"

    def _cut(self, field: str, chats: Chats, encoded: list[tuple[list[int], list[int]]], fit: Fit) -> Fit:
        """Encodes longer chats anew without their last turns, so that what stays is whole; none may be left of one."""
        limit = self.config.data.max_tokens
        long = [row for row in fit.kept if len(encoded[row][0]) > limit]
        whole = {row: turns_within(self.tokenizer, chats[row], limit) for row in long}
        for row, turns in whole.items():
            if turns:
                encoded[row] = encode_chat(self.tokenizer, chats[row][:turns], self.config.learn == "last_answer")
        kept = [row for row in fit.kept if whole.get(row, 1)]
        if not kept:
            raise DataError(f"{field}: no chat's first answer ends within data.max_tokens {limit}; raise it")
        lost = len(fit.kept) - len(kept)
        turns = sum(len(chats[row]) - turns for row, turns in whole.items() if turns)
        return Fit(kept, fit.cut - lost, fit.dropped + lost, turns)


if __name__ == "__main__":
    from trainers import sft, supervised

    supervised.main(sft.SftStage, "sft")  # not this module's own class: workers import it by its name
