"""Pretraining: next-token prediction on medical text packed into blocks, from random weights or from a base model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from data.chat import apply_settings
from data.packing import cut_documents, pack_blocks
from data.tables import PRETRAIN, read_table
from storage.paths import table_path
from trainers.config.supervised import PretrainConfig
from trainers.runs.export import load_tokenizer, require_model
from trainers.supervised.stage import Examples, LanguageStage, from_sources, list_row, ordered

if TYPE_CHECKING:
    from actors.modeling.packed import PackedBatch
    from actors.modeling.packed_models import PackedModule


class PretrainStage(LanguageStage[PretrainConfig]):
    """The pretraining stage. A training row is a block of `block_tokens` tokens; a held-out row is one document."""

    def __init__(self, config: PretrainConfig) -> None:
        super().__init__(config)
        self.start_export = "random" if config.export_start else None

    def examples(self) -> Examples:
        data = self.config.data
        if self.config.model is not None:
            require_model(self.config.model, data.block_tokens, "data.block_tokens")
        self.tokenizer = load_tokenizer(self.config.tokenizer or self.config.model or "")
        apply_settings(self.tokenizer, self.config.chat)  # for the export; pretraining has no chats
        train, rows, notes = from_sources(data, self._blocks)
        heldout = _with_costs(cut_documents(self._encode(data.heldout), data.block_tokens))
        order, mixture = ordered(data, rows, self.config.seed)
        return Examples(train, heldout, order, (*notes, *mixture))

    def module(self) -> PackedModule:
        from actors.modeling.models import new_causal_lm
        from actors.modeling.packed_models import PackedLM
        from actors.zero.loading import load_to_train

        if self.config.model is not None:
            return load_to_train(PackedLM, self.config.model, self.config.zero, self.config.dropout)
        assert self.config.architecture is not None  # exactly one of model and architecture is set
        ids = self.tokenizer
        special = ids.bos_token_id, ids.eos_token_id, ids.pad_token_id
        return PackedLM(new_causal_lm(self.config.architecture, len(ids), *special, self.config.seed))

    def batch(self, table: pa.Table, rows: list[int]) -> PackedBatch:
        from actors.modeling.packed import PackedBatch

        lengths = [length for row in rows for length in table.column("lengths")[row].as_py()]
        tokens = np.concatenate([list_row(table, "tokens", row) for row in rows])
        documents = np.split(tokens, np.cumsum(lengths)[:-1])
        return PackedBatch.of(sorted(documents, key=len))  # see `packed_attention`

    def _blocks(self, field: str, paths: tuple[str, ...]) -> tuple[pa.Table, str]:
        """Returns the documents in the tables `paths`, packed into blocks, and a note for the user."""
        documents, size = self._encode(paths), self.config.data.block_tokens
        blocks = _with_costs(pack_blocks(documents, size, self.config.seed))
        tokens = sum(map(len, documents))
        return blocks, f"{len(documents):,} documents, {tokens:,} tokens in {blocks.num_rows:,} blocks of {size:,}"

    def _encode(self, paths: tuple[str, ...]) -> list[np.ndarray]:
        """Returns the token ids of every document, each followed by the end token."""
        texts = read_table([table_path(path) for path in paths], PRETRAIN).column("text").to_pylist()
        encoded = self.tokenizer(texts, add_special_tokens=False, return_attention_mask=False, verbose=False)[
            "input_ids"
        ]
        return [np.array([*ids, self.tokenizer.eos_token_id], dtype=np.int32) for ids in encoded]


def _with_costs(blocks: pa.Table) -> pa.Table:
    """Adds `size` and `weight`: every token but the first of each sequence is predicted."""
    sizes = pa.compute.list_value_length(blocks.column("tokens"))
    sequences = pa.compute.list_value_length(blocks.column("lengths"))
    return blocks.append_column("size", sizes).append_column("weight", pa.compute.subtract(sizes, sequences))
