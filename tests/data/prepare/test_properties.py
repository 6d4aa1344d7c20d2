"""What holds for every input, as hypothesis looks for one where it does not."""

from __future__ import annotations

import gzip
import json
import tempfile
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.files import json_list
from data.files.lines import lines
from data.prepare.cleaning.text import normalize, remove_markup
from data.prepare.options import Options
from data.prepare.privacy.masking import mask
from data.prepare.reading.readers import read
from data.prepare.reading.sources import describe, pieces_of
from data.prepare.schemas.convert import row_of
from data.tables import DataError

settings.register_profile("bounded", max_examples=25, deadline=None, database=None, derandomize=True)
settings.load_profile("bounded")

# Any character that UTF-8 can hold, what a reader may trip over more often than chance has it.
CHARACTERS = st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from('头痛，。"\\,\t{}[]<>/&\u3000\r ０Ａ'))
TEXTS = st.text(CHARACTERS, max_size=40)
RECORDS = st.lists(st.fixed_dictionaries({"question": TEXTS, "answer": TEXTS}), min_size=1, max_size=12)
ENCODINGS = st.sampled_from(["utf-8", "gb18030"])


def read_bytes(name, content, piece_bytes=2**24, **options):
    """The records that a file of this name and content gives, and the lines of what is bad."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(content)
        pieces = pieces_of(describe(str(path)), piece_bytes)
        found = [one for piece in pieces for one in read(piece, Options("chat", **options))]
    return [one.record for one in found if not one.bad], [one.line for one in found if one.bad]


def chunked(content, sizes):
    place = 0
    for size in sizes:
        yield content[place : place + size]
        place += size
    yield content[place:]


@given(st.lists(st.text(CHARACTERS.filter(lambda one: one not in "\0\n\r\ufeff"))), ENCODINGS, st.data())
def test_lines_are_those_of_the_text_however_it_is_cut(texts, encoding, data):
    content = "\n".join(texts).encode(encoding)
    sizes = data.draw(st.lists(st.integers(0, 20)))
    found = list(lines(chunked(content, sizes), encoding, 10_000))
    assert [text for _, text, _ in found] == (texts if texts and texts[-1] else texts[:-1])
    assert [number for number, _, _ in found] == list(range(1, len(found) + 1))
    assert not any(bad for *_, bad in found)


@given(st.lists(st.binary(max_size=30).filter(lambda one: b"\n" not in one)), ENCODINGS, st.integers(1, 30), st.data())
def test_each_line_is_judged_by_itself(parts, encoding, longest, data):
    sizes = data.draw(st.lists(st.integers(0, 20)))
    found = list(lines(chunked(b"\n".join([*parts, b""]), sizes), encoding, longest))
    assert len(found) == len(parts)
    for part, (_, text, bad) in zip(parts, found, strict=True):
        try:
            wanted = (
                part.decode(encoding).removeprefix("\ufeff").rstrip("\r")
                if len(part) <= longest and 0 not in part
                else None
            )
        except UnicodeDecodeError:
            wanted = None
        assert (text, bool(bad)) == (wanted or "", wanted is None)


@given(RECORDS, st.integers(1, 400))
def test_json_lines_give_their_records_in_pieces_of_any_size(records, piece_bytes):
    content = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()
    assert read_bytes("a.jsonl", content, piece_bytes) == (records, [])
    assert read_bytes("a.jsonl.gz", gzip.compress(content)) == (records, [])
    assert read_bytes("a.jsonl.zst", pa.Codec("zstd").compress(content, asbytes=True)) == (records, [])


@given(RECORDS, st.integers(1, 60), st.sampled_from([None, 1]), st.booleans())
def test_json_lists_give_their_records_in_chunks_of_any_size(records, chunk, indent, plain):
    content = json.dumps(records, ensure_ascii=plain, indent=indent).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_list, "CHUNK", chunk)
        patch.setattr("data.files.lines.CHUNK", chunk)
        assert read_bytes("a.json", content) == (records, [])


# A line's end inside a cell is any that the csv module knows; the readers make one kind of all.
CELLS = st.text(CHARACTERS.filter(lambda one: one not in "\r\0\ufeff"), max_size=30)


@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=12), st.sampled_from([("csv", ","), ("tsv", "\t")]))
def test_tables_of_text_give_their_cells(rows, kind):
    name, delimiter = kind
    quoted = [[cell.replace('"', '""') for cell in row] for row in [("question", "answer"), *rows]]
    content = "".join(delimiter.join(f'"{cell}"' for cell in row) + "\n" for row in quoted).encode()
    assert read_bytes(f"a.{name}", content) == ([{"question": one, "answer": other} for one, other in rows], [])


@given(RECORDS, st.integers(1, 5), st.integers(1, 4000))
def test_parquet_gives_its_rows_in_pieces_of_any_size(records, group, piece_bytes):
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(records), sink, row_group_size=group)
    assert read_bytes("a.parquet", sink.getvalue().to_pybytes(), piece_bytes) == (records, [])


TURNS = st.lists(
    st.tuples(st.sampled_from("PD"), st.text(CHARACTERS.filter(lambda one: one not in "\0\r\n\t\ufeff"), min_size=1)),
    min_size=1,
    max_size=8,
)


@given(st.lists(TURNS, min_size=1, max_size=5))
def test_dialogues_give_every_word_of_every_speaker(dialogues):
    blocks = ["\n".join(f"{speaker}\t{said}\t1" for speaker, said in turns) for turns in dialogues]
    records, bad = read_bytes("a.dialog", "\n\n".join(blocks).encode())
    assert bad == []
    assert len(records) == len(dialogues)
    for record, turns in zip(records, dialogues, strict=True):
        roles = [turn["role"] for turn in record["messages"]]
        assert all(one != other for one, other in pairwise(roles))
        assert "\n".join(turn["content"] for turn in record["messages"]) == "\n".join(said for _, said in turns)


NESTED = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["role", "from", "content", "value"]), inner)
    ),
    max_leaves=8,
)
COLUMNS = [
    "text",
    "messages",
    "conversations",
    "question",
    "answer",
    "history",
    "chosen",
    "rejected",
    "prompt",
    "system",
]


@given(st.dictionaries(st.sampled_from(COLUMNS), NESTED), st.sampled_from(["text", "chat", "preference", "prompts"]))
@settings(max_examples=80)
def test_any_record_is_a_row_or_refused(record, kind):
    options = Options(kind)
    try:
        row = row_of(record, options)
    except DataError:
        return
    assert list(pa.Table.from_pylist([row], options.schema).to_pylist()[0]) == options.schema.names
    assert set(row) == set(options.schema.names)


@given(st.text(CHARACTERS | st.sampled_from("\n\n\u2028\xa0\x85")))
@settings(max_examples=50)
def test_cleaning_twice_changes_nothing(text):
    clean = normalize(text)
    assert normalize(clean) == clean
    assert len(clean.splitlines()) <= len(text.splitlines()) or "\u2028" in text
    masked, _ = mask(clean)
    assert mask(masked) == (masked, Counter())
    assert "<篇名>" not in remove_markup("<篇名>" + clean)
