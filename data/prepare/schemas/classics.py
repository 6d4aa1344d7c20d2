"""Digitized classical texts: files of sections, each of which has a `<篇名>` line with its title, followed by a text.

The following is removed from a section: the name of the part of the book, which every section of the part repeats; the
labels that all sections of a book begin with; and the digitizer's marks: `<篇名>`, `\\x` around emphasized words, and
names of picture files.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from data.prepare.reading.readers import Found

_SECTION: Final = "<篇名>"
_OPENS: Final = re.compile(r"(?m)^<篇名>")
_PART: Final = re.compile(r"(?m)^<目录>(?:(?!<篇名>).)*\n?")
_LABEL: Final = re.compile(
    r"(?m)^<篇名>.*\n\s*(?:([^\s：:∶<>\\，。；、【〔〖]{1,16})[：∶:]|(【[^】\n]{1,16}】|〔[^〕\n]{1,16}〕|〖[^〗\n]{1,16}〗|\[[^\]\n]{1,16}\])[：∶:]?)[ \t\u3000]*"
)
_NAME: Final = r"[A-Za-z0-9_.-]{1,60}?\.(?:bmp|gif|jpe?g|png|tiff?|webp|svg)(?![A-Za-z0-9])"
_ANY_NAME: Final = r"[^\s\\<>()（）\[\]，。；：]{1,60}?\.(?:bmp|gif|jpe?g|png|tiff?|webp|svg)(?![A-Za-z0-9])"
_PICTURE: Final = re.compile(
    rf"!\[[^\]\n]{{0,40}}\]\({_ANY_NAME}\)|\[img\]{_ANY_NAME}\[/img\]|<图>{_ANY_NAME}</图>|[(（]{_NAME}[)）]|"
    rf"\\(?![xrnbt][^A-Za-z0-9_.-]){_ANY_NAME}(?:\\(?![xrnbt]))?|(?<![A-Za-z0-9_.-]){_NAME}",
    re.IGNORECASE,
)
_EMPHASIS: Final = re.compile(r"\\[xrnbt]")
_SENTENCE_ENDS: Final = "。！？；：」』”）)】!?;:"
_WRAPPED_FROM: Final = 30  # a printed line of a classic has about 40 characters

_BLOCK: Final = 256  # records whose labels are found together, at most
_BLOCK_CHARACTERS: Final = 4 * 1024 * 1024
_COMMON: Final = 0.1  # minimum share of sections for a label to be one of the book's
_COVERED: Final = 0.9  # minimum share of sections that a book's labels begin together


def is_section(text: str) -> bool:
    """Returns whether a text is from a digitized classical text."""
    return _SECTION in text


def strip_section(text: str, labels: Collection[str] = ()) -> str:
    """Returns a section's text without the digitizer's marks; lines that were broken at the page width are joined.

    Args:
        text: the section.
        labels: the labels to remove, as returned by `section_labels`, without a colon.
    """
    if labels:
        text = _LABEL.sub(lambda found: _unlabeled(found, labels), text)
    text = _PART.sub("", text).replace(_SECTION, "")
    if "." in text:  # picture names contain a dot, few sections do
        text = _PICTURE.sub("", text)
    return _joined(_EMPHASIS.sub("", text))


def _unlabeled(found: re.Match[str], labels: Collection[str]) -> str:
    label = found[1] or found[2]
    return found[0][: found.start(found.lastindex or 0) - found.start()] if label in labels else found[0]


def _joined(text: str) -> str:
    """Joins lines that were broken at the page width: a long line that ends no sentence continues in the next line."""
    joined = ""
    goes_on = False
    for line in text.split("\n"):
        joined += line if goes_on or not joined else "\n" + line
        line = line.rstrip()
        goes_on = len(line) >= _WRAPPED_FROM and line[-1] not in _SENTENCE_ENDS
    return joined


def section_labels(texts: Iterable[str], known: Collection[str] = ()) -> dict[str, int]:
    """Returns the labels that start the texts of sections, such as 内容：, with the number of sections of each.

    A label is returned if it starts at least two sections and 10% of all sections, provided that all such labels
    together start 90% of the sections. If they start fewer, they are treated as content (such as 主治：), and only
    labels in `known` are returned. If any label occurs only once, such as 书名： in a book's first section, the total
    in both percentages is reduced by one section.

    Args:
        texts: texts of one or more sections each.
        known: labels found in earlier blocks; returned whenever they occur, however rarely.
    """
    sections = 0
    found: Counter[str] = Counter()
    for text in texts:
        sections += len(_OPENS.findall(text))
        found.update(plain or bracketed for plain, bracketed in _LABEL.findall(text))
    sections -= 1 in found.values()
    common = {label for label, count in found.items() if count >= max(2, _COMMON * sections)}
    if sum(found[label] for label in common) < _COVERED * sections:
        common = set()
    return {label: found[label] for label in sorted(common.union(known)) if found[label]}


def with_labels(records: Iterable[Found]) -> Iterator[tuple[Found, Mapping[str, int]]]:
    """Yields each record with the labels of the sections around it; records without sections are passed on.

    Sections are processed in blocks, so that the labels of each book in a file are found, and memory use is bounded for
    a file of any size. The first record of a block has the counts of the block; in the others, all counts are 0.
    """
    known: set[str] = set()
    block: list[Found] = []
    texts: list[str] = []
    size = 0
    for record in records:
        new = _sections(record.record)
        if not new and not block:
            yield record, {}
            continue
        block.append(record)
        texts += new
        size += sum(map(len, new))
        if len(block) >= _BLOCK or size >= _BLOCK_CHARACTERS:
            yield from _labeled(block, texts, known)
            block, texts, size = [], [], 0
    yield from _labeled(block, texts, known)


def _labeled(
    block: Sequence[Found], texts: Iterable[str], known: set[str]
) -> Iterator[tuple[Found, Mapping[str, int]]]:
    counts = section_labels(texts, known)
    known.update(counts)
    for index, record in enumerate(block):
        yield record, dict.fromkeys(known, 0) | (counts if index == 0 else {})


def _sections(record: Any) -> list[str]:
    values = record.values() if isinstance(record, Mapping) else ()
    return [value for value in values if isinstance(value, str) and is_section(value)]
