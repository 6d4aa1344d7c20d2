"""Reads doctor-patient conversations in published formats, as prompts with the doctor's turns as references.

The formats are those that `python -m data.prepare` reads as chats: HET-MC's `.dialog`, question-and-answer records, and
records with a `history` list, `conversations`, or `messages`, as JSON lists, JSON Lines, or Parquet.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from data.chat import Message, check_messages
from data.prepare.options import Options
from data.prepare.reading.readers import read
from data.prepare.reading.sources import Piece, describe
from data.prepare.schemas.convert import row_of
from data.prepare.schemas.values import UnknownColumnsError
from data.tables import DataError
from evals.tasks.faults import Fault, repeated

_CHATS = Options("chat")


@dataclass(frozen=True)
class Exchange:
    """A chat that ends with the patient's turn, and the doctor's reply as the reference."""

    where: str
    """FILE:LINE, and the number of the doctor's turn."""
    chat: list[Message]
    reference: str
    last: bool
    """Whether the reference is the doctor's last turn in the conversation."""
    fault: str = ""
    """Why the exchange is unusable, so that it is not asked and scores 0; empty if it is usable."""


@dataclass(frozen=True)
class Dialogues:
    """The exchanges of each conversation, in order."""

    conversations: list[list[Exchange]]
    faults: list[Fault] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    """SHA-256 by path, of every file that was read."""


def read_dialogues(path: Path) -> Dialogues:
    """Reads the conversations of one file.

    A record that is not a conversation is reported as a fault and kept as one exchange, which scores 0.

    Raises:
        DataError: the file is unreadable, or has no conversation.
    """
    source = describe(str(path))
    if source.unreadable:
        raise DataError(f"{path}: {source.unreadable}")
    faults: list[Fault] = []
    conversations = []
    for found in read(Piece(source), _CHATS):
        where = f"{path.name}:{found.line}"
        try:
            if found.bad:
                raise DataError(found.bad)
            turns: list[Message] = row_of(found.record, _CHATS)["messages"]
        except DataError as error:
            reason = error.reason if isinstance(error, UnknownColumnsError) else str(error)
            faults.append(Fault("no conversation", where, reason))
            conversations.append([Exchange(where, [], "", True, "no conversation")])
            continue
        conversations.append(list(_exchanges(where, turns, faults)))
    asked = [(e.where, str(e.chat) + e.reference) for own in conversations for e in own[-1:] if not e.fault]
    faults += repeated(asked, "conversation given twice")
    if not conversations:
        raise DataError(f"{path}: there are no conversations in it; leave the file out or fill it")
    if all(own[0].fault == "no conversation" for own in conversations):
        raise DataError(
            f"{path}: none of its {len(conversations)} records is a conversation ({faults[0].where}: {faults[0].detail}); "
            "name the columns question and answer, or give messages; python -m data.prepare --kind chat makes such a file"
        )
    return Dialogues(conversations, faults, {str(path): source.sha256})


def _exchanges(where: str, turns: list[Message], faults: list[Fault]) -> Iterator[Exchange]:
    """Yields one exchange per turn of the doctor; the doctor's turns before the patient's first turn are dropped."""
    first = next((place for place, turn in enumerate(turns) if turn["role"] != "assistant"), len(turns))
    if first:
        faults.append(Fault("begins with the doctor", where, "turns before the patient's first turn are left out"))
    turns = turns[first:]
    answers = [place for place, turn in enumerate(turns) if turn["role"] == "assistant"]
    if not answers:
        faults.append(Fault("no answer", where))
        yield Exchange(where, [], "", True, "no answer")
    for number, place in enumerate(answers, start=1):
        spot, fault = f"{where}, answer {number}", ""
        try:
            check_messages(turns[:place])
        except DataError as error:
            fault = "unusable turn"
            faults.append(Fault(fault, spot, str(error)))
        reference = turns[place]["content"].strip()
        if not reference and not fault:
            fault = "empty reference"
            faults.append(Fault(fault, spot))
        yield Exchange(spot, list(turns[:place]), reference, place == answers[-1], fault)
