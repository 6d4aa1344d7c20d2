"""One round of rejection-sampling fine-tuning: its folder, what is in it, and what its fine-tuning starts from."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data.tables import MAY_LACK, SFT, read_table
from storage.paths import table_path
from trainers.config.rlhf import RejectionConfig
from trainers.config.supervised import ChatData, SftConfig
from trainers.rlhf.prompts import shuffled


@dataclass(frozen=True)
class Round:
    """Round `number`, from 0, of the run whose folder is `run`."""

    config: RejectionConfig
    run: Path
    number: int

    @property
    def folder(self) -> Path:
        """The round's folder."""
        return self.run / f"round-{self.number}"

    @property
    def chosen(self) -> Path:
        """The SFT table of the answers that are learned. It is written last: when it is there, so is the rest."""
        return self.folder / "chosen.parquet"

    @property
    def replay(self) -> Path:
        """The rows that are mixed in, if any are."""
        return self.folder / "replay.parquet"

    @property
    def report(self) -> Path:
        """What the selection came to; see `trainers.rejection.selection.report`."""
        return self.folder / "report.json"

    @property
    def model(self) -> Path:
        """The folder of the model that the round makes."""
        return self.folder / "sft" / "model"

    @property
    def policy(self) -> str:
        """The folder of the model that answers."""
        return str(self._earlier(self.number - 1).model) if self.number else self.config.model

    def fine_tuning(self) -> SftConfig:
        """The settings of the round's SFT."""
        tables = [one.chosen for one in self._learned()] + ([self.replay] if self.config.replay else [])
        start = self.config.model if self.config.from_start else self.policy
        return sft_config(self.config, f"{self.config.name}/round-{self.number}/sft", start, tuple(map(str, tables)))

    def draw_replay(self, chosen: int) -> pa.Table:
        """Rows of the replay tables, so many that they are `replay_share` of what the round learns.

        `chosen` is how many answers it chose. The rows come in a shuffled order that goes on from round to round.
        """
        learned = chosen + sum(_rows(one.chosen) for one in self._learned() if one.number < self.number)
        share = self.config.replay_share
        drawn = sum(_rows(self._earlier(number).replay) for number in range(self.number))
        table = read_table([table_path(path) for path in self.config.replay], SFT, may_lack=MAY_LACK)
        rows = islice(shuffled(len(table), self.config.seed, drawn), round(learned * share / (1 - share)))
        return table.take(list(rows))

    def _learned(self) -> list[Round]:
        """The rounds whose choices this one learns, itself the last."""
        first = 0 if self.config.from_start else self.number
        return [self._earlier(number) for number in range(first, self.number + 1)]

    def _earlier(self, number: int) -> Round:
        return Round(self.config, self.run, number)


def sft_config(config: RejectionConfig, name: str, model: str, tables: tuple[str, ...]) -> SftConfig:
    """SFT of `model` on `tables` as the stage's section `sft` says.

    Of a chat only the last answer is learned: it is what was chosen, earlier ones came with the prompt.
    """
    data = ChatData(**dict(config.sft.data), train=tables)
    settings = dict(config.sft) | {"data": data, "learn": "last_answer"}
    return SftConfig(name=name, seed=config.seed, cluster=config.cluster, chat=config.chat, model=model, **settings)


def _rows(path: Path) -> int:
    return pq.read_metadata(path).num_rows
