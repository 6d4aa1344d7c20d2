"""Supervised fine-tuning on chats: the assistant's turns are learnt, everything else is only read.

python -m trainers.sft --config configs/laptop.yaml [--a.b=value ...]
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from actors.devices import DTYPES
from cluster.paths import resolve
from data.chat import encode_chat
from data.packing import fit_lengths
from data.tables import MAY_LACK, SFT, DataError, read_table
from trainers.export import load_tokenizer, require_model
from trainers.stage import Examples, LanguageStage, from_sources, list_row, ordered
from trainers.supervised_config import SftConfig

if TYPE_CHECKING:
    from actors.packed import PackedBatch, PackedModule


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
        chats = read_table([resolve(path) for path in paths], SFT, may_lack=MAY_LACK).column("messages").to_pylist()
        encoded = []
        for row, messages in enumerate(chats):
            try:
                encoded.append(encode_chat(self.tokenizer, messages, self.config.learn == "last_answer"))
            except DataError as error:
                raise DataError(f"{field}: row {row}: {error}") from error
        limit = self.config.data.max_tokens
        fit = fit_lengths([len(ids) for ids, _ in encoded], limit, self.config.data.too_long, field)
        tokens = [encoded[row][0][:limit] for row in fit.kept]
        targets = [encoded[row][1][:limit] for row in fit.kept]
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


if __name__ == "__main__":
    from trainers import sft, supervised

    supervised.main(sft.SftStage, "sft")  # not this module's own class: workers import it by its name
