"""One round of rejection-sampling fine-tuning: its folder and files, and the starting model of its fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data.tables import MAY_LACK, SFT, read_table
from storage.paths import table_path
from trainers.config.rejection import RejectionConfig
from trainers.config.supervised import ChatData, SftConfig
from trainers.rlhf.prompts import shuffled


@dataclass(frozen=True)
class Round:
    """Round `number`, counted from 0, of the run whose folder is `run`."""

    config: RejectionConfig
    run: Path
    number: int

    @property
    def folder(self) -> Path:
        """The round's folder."""
        return self.run / f"round-{self.number}"

    @property
    def chosen(self) -> Path:
        """The SFT table of the chosen responses. It is written last, so if it exists, the other files do too."""
        return self.folder / "chosen.parquet"

    @property
    def replay(self) -> Path:
        """The table of replay rows, if any are mixed in."""
        return self.folder / "replay.parquet"

    @property
    def report(self) -> Path:
        """The metrics of the selection; see `trainers.rejection.selection.report`."""
        return self.folder / "report.json"

    @property
    def model(self) -> Path:
        """The folder of the model that the round trains."""
        return self.folder / "sft" / "model"

    @property
    def policy(self) -> str:
        """The folder or Hub id of the model that generates the responses."""
        return str(self._earlier(self.number - 1).model) if self.number else self.config.model

    def fine_tuning(self) -> SftConfig:
        """Returns the settings of the round's SFT."""
        tables = [one.chosen for one in self._learned()] + ([self.replay] if self.config.replay else [])
        start = self.config.model if self.config.from_start else self.policy
        return sft_config(self.config, f"{self.config.name}/round-{self.number}/sft", start, tuple(map(str, tables)))

    def draw_replay(self, chosen: int) -> pa.Table:
        """Draws as many rows from the replay tables as make up `replay_share` of the round's training rows.

        The rows are drawn from a shuffled order that continues from round to round.

        Args:
            chosen: the number of responses that this round has chosen.
        """
        learned = chosen + sum(_rows(one.chosen) for one in self._learned() if one.number < self.number)
        share = self.config.replay_share
        drawn = sum(_rows(self._earlier(number).replay) for number in range(self.number))
        table = read_table([table_path(path) for path in self.config.replay], SFT, may_lack=MAY_LACK)
        rows = islice(shuffled(len(table), self.config.seed, drawn), round(learned * share / (1 - share)))
        return table.take(list(rows))

    def _learned(self) -> list[Round]:
        """Returns the rounds whose chosen responses this round trains on, in order; the last is this round itself."""
        first = 0 if self.config.from_start else self.number
        return [self._earlier(number) for number in range(first, self.number + 1)]

    def _earlier(self, number: int) -> Round:
        return Round(self.config, self.run, number)


def sft_config(config: RejectionConfig, name: str, model: str, tables: tuple[str, ...]) -> SftConfig:
    """Returns the settings to fine-tune `model` on `tables` according to the stage's section `sft`.

    Only the last response of a chat is trained on: it was chosen, while earlier turns belong to the prompt.
    """
    data = ChatData(**dict(config.sft.data), train=tables)
    settings = dict(config.sft) | {"data": data, "train_on": "last_response"}
    return SftConfig(name=name, seed=config.seed, cluster=config.cluster, chat=config.chat, model=model, **settings)


def _rows(path: Path) -> int:
    return pq.read_metadata(path).num_rows
