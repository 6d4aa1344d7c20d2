"""Valid files, damaged in hundreds of ways: nothing crashes, and no row is lost that the damage did not touch."""

from __future__ import annotations

import gzip
import io
import json
import random
import zlib
from collections.abc import Callable

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.prepare.options import Options
from data.prepare.pipeline.pools import Here
from data.prepare.pipeline.run import prepare
from data.tables import DataError

ROWS = 60
GROUP = 6
VARIANTS = 50
WORDS = "头痛发热咳嗽乏力胸闷腹泻心悸失眠纳差便秘盗汗自汗"


def said(n):
    return f"第{n}例：" + "".join(random.Random(n).choices(WORDS, k=30))


TEXTS = [said(n) for n in range(ROWS)]
RECORDS = [{"text": text} for text in TEXTS]
JSONL = [json.dumps(record, ensure_ascii=False).encode() for record in RECORDS]


def parts_left(parts: list[bytes], separator: bytes = b"\n") -> Callable[[bytes], set[int]]:
    """Rows whose bytes stand alone between separators."""
    return lambda content: {n for n, part in enumerate(parts) if part in set(content.strip().split(separator))}


def elements_left(content: bytes) -> set[int]:
    """Elements of the list that are whole; where one of them is broken, its neighbors are."""
    return {n for n, part in enumerate(JSONL) if part in content}


def gzipped_left(content: bytes) -> set[int]:
    """Lines that come before the damage."""
    unpack, out = zlib.decompressobj(31), b""
    try:
        for place in range(len(content)):
            out += unpack.decompress(content[place : place + 1])
    except zlib.error:
        pass
    return parts_left(JSONL)(out[: out.rfind(b"\n") + 1])


def parquet_file() -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(RECORDS), sink, row_group_size=GROUP, compression="none", use_dictionary=False)
    return sink.getvalue().to_pybytes()


PARQUET = parquet_file()


def groups_left(content: bytes) -> set[int]:
    """Rows of the row groups whose bytes are as they were, where the file's end, which says where they lie, is too."""
    metadata = pq.ParquetFile(io.BytesIO(PARQUET)).metadata
    end = max(_span(metadata, group)[1] for group in range(metadata.num_row_groups))
    if content[end:] != PARQUET[end:] or content[:4] != PARQUET[:4]:
        return set()
    spans = [(group, *_span(metadata, group)) for group in range(metadata.num_row_groups)]
    left = {group for group, start, stop in spans if content[start:stop] == PARQUET[start:stop]}
    return {n for n in range(ROWS) if n // GROUP in left}


def _span(metadata, group):
    column = metadata.row_group(group).column(0)
    return column.data_page_offset, column.data_page_offset + column.total_compressed_size


CSV = [b"text", *(f'"{text}"'.encode() for text in TEXTS)]
DIALOG = [f"P\t{text}\t1\nD\t多休息\t0".encode() for text in TEXTS]
LIST = b"[\n" + b",\n".join(JSONL) + b"\n]\n"

FILES: dict[str, tuple[bytes, Callable[[bytes], set[int]]]] = {
    "a.jsonl": (b"\n".join([*JSONL, b""]), parts_left(JSONL)),
    "a.txt": ("\n".join([*TEXTS, ""]).encode("gb18030"), parts_left([text.encode("gb18030") for text in TEXTS])),
    "a.csv": (b"\n".join([*CSV, b""]), parts_left(CSV[1:])),
    "a.json": (LIST, elements_left),
    "a.dialog": (b"\n\n".join(DIALOG) + b"\n", parts_left(DIALOG, b"\n\n")),
    "a.jsonl.gz": (gzip.compress(b"\n".join([*JSONL, b""])), gzipped_left),
    "a.parquet": (PARQUET, groups_left),
}


def damaged(content: bytes, rng: random.Random) -> bytes:
    place, length = rng.randrange(len(content)), rng.randrange(1, 40)
    before, after = content[:place], content[place:]
    return rng.choice(
        [
            lambda: before + bytes([after[0] ^ 1 << rng.randrange(8)]) + after[1:],
            lambda: before,
            lambda: before + after[length:],
            lambda: before + rng.randbytes(length) + after[length:],
            lambda: before + after[:length] + after,
            lambda: before + rng.choice([b'"', b"\n", b"\r", b"{", b"[", b"}", b"\xff", b"\\", b","]) + after,
        ]
    )()


@pytest.mark.parametrize("name", FILES)
def test_damage_costs_what_it_is_in(tmp_path, found, name):
    content, left = FILES[name]
    rng = random.Random(name)
    assert left(content) == set(range(ROWS))
    for variant in range(VARIANTS):
        changed = damaged(content, rng)
        got = {text_of(one.record) for one in found(name, changed, text_unit="line") if not one.bad}
        lost = [n for n in sorted(left(changed)) if TEXTS[n] not in got]
        assert lost == [], f"variant {variant} of {name}"


def text_of(record):
    if isinstance(record, dict) and record.get("messages"):
        return record["messages"][0]["content"]
    return record.get("text") if isinstance(record, dict) else None


@pytest.mark.parametrize("name", FILES)
def test_a_preparation_of_damaged_files_ends_with_rows_or_in_one_line(tmp_path, name):
    content, _ = FILES[name]
    rng = random.Random(name)
    path = tmp_path / name
    for _ in range(5):
        path.write_bytes(damaged(content, rng))
        for on_bad in ("skip", "fail"):
            options = Options("text", text_unit="line", on_bad=on_bad)
            said = ""
            try:
                prepare([str(path)], tmp_path / "out", options, Here())
            except DataError as error:
                said = str(error)
            assert not said or (str(path) in said or "no row is left" in said)
            assert "\n" not in said
