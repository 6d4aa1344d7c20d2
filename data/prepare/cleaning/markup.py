"""Converts HTML in a text to the text that a reader would see.

Whatever is not certainly HTML is kept: `A<B 且 C>D` has no tag.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from typing import Final, NamedTuple

from data.prepare.cleaning.mathml import formulas_as_text
from data.prepare.cleaning.scripts import script

_BLOCKS: Final = frozenset(
    [
        "blockquote",
        "body",
        "br",
        "caption",
        "center",
        "dd",
        "div",
        "dl",
        "dt",
        "figcaption",
        "figure",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "head",
        "hr",
        "html",
        "li",
        "ol",
        "p",
        "pre",
        "table",
        "tbody",
        "tfoot",
        "thead",
        "title",
        "tr",
        "ul",
    ]
)
_CELLS: Final = frozenset(["td", "th", "img"])
_HIDDEN: Final = frozenset(["script", "style", "svg"])
_SCRIPTS: Final = frozenset(["sup", "sub"])
_INLINE: Final = frozenset(
    [
        "a",
        "abbr",
        "b",
        "big",
        "col",
        "colgroup",
        "del",
        "em",
        "font",
        "i",
        "ins",
        "nobr",
        "s",
        "small",
        "span",
        "strike",
        "strong",
        "tt",
        "u",
        "wbr",
    ]
)
_PARTS: Final = frozenset(
    [
        "address",
        "article",
        "aside",
        "details",
        "fieldset",
        "footer",
        "form",
        "header",
        "legend",
        "main",
        "nav",
        "option",
        "section",
        "summary",
    ]
)
"""Sections of a page and other elements that begin a line."""
_BREAKS: Final = _BLOCKS | _PARTS
_WORDS: Final = frozenset(
    [
        "audio",
        "bdi",
        "bdo",
        "button",
        "canvas",
        "cite",
        "code",
        "dfn",
        "iframe",
        "kbd",
        "label",
        "mark",
        "noscript",
        "object",
        "picture",
        "q",
        "rb",
        "rp",
        "rt",
        "ruby",
        "samp",
        "select",
        "textarea",
        "time",
        "var",
        "video",
    ]
)
_EMPTY: Final = frozenset(["area", "base", "embed", "input", "link", "meta", "param", "source", "track"])
_NAMES: Final = _BLOCKS | _CELLS | _HIDDEN | _SCRIPTS | _INLINE | _PARTS | _WORDS | _EMPTY
_PAIRED: Final = _SCRIPTS | _HIDDEN | _PARTS | _WORDS | _EMPTY | frozenset("abisu")
"""Elements that are removed only if they have an end tag or attributes, since their names are also words or quantities.

A lone `<b>` may be a comparison with b, and without an end tag, it is unknown where a superscript's exponent ends.
"""
_SHORT: Final = 2  # maximum length of an element's name that may be a quantity, such as HR or Li
_FLAGS: Final = frozenset(
    [
        "checked",
        "compact",
        "controls",
        "disabled",
        "hidden",
        "ismap",
        "noshade",
        "nowrap",
        "open",
        "reversed",
        "selected",
    ]
)
"""Attributes that have no value. Any other attribute without a value is treated as a word of a sentence."""

_OPENS: Final = re.compile(
    rf"<(?:!--|!doctype\s|(/?)((?:[a-z][a-z0-9]{{0,9}}:)?(?:{'|'.join(sorted(_NAMES))}))(?=[\s/>]))",
    re.IGNORECASE | re.ASCII,
)
_END: Final = re.compile(r"\s*>")
_CDATA: Final = re.compile(r"<!\[CDATA\[(.*?)\]\]>", re.DOTALL)
_INSTRUCTION: Final = re.compile(r"<\?[a-z][a-z0-9:-]{0,30}(?:\s[^<>]*)?\?>", re.IGNORECASE)
_NAMESPACED: Final = re.compile(
    r"<(/?)([A-Za-z]{1,10}:([A-Za-z][A-Za-z0-9_.-]{0,40}))((?:\s+[A-Za-z_:][A-Za-z0-9_:.-]{0,60}\s*=\s*\"[^\"<>]*\")*)\s*(/?)>"
)
"""An XML tag, as written by Word. One without an end tag, attributes, or a slash may be a comparison."""
_LONGEST: Final = 4000  # characters of a tag, its attributes included
_DEEPEST: Final = 32  # maximum nesting of elements of one name, and of superscripts and subscripts
_ENTITY: Final = re.compile(
    r"&(?:#[0-9]{1,7};|#[xX][0-9a-fA-F]{1,6};|[A-Za-z][A-Za-z0-9]{1,24};|(?:nbsp|lt|gt|amp|quot)(?![A-Za-z=;]))"
)


class _Tag(NamedTuple):
    """A tag or comment at characters `start` to `end` of a text.

    `kind` is `open`, `close`, `empty` (a tag that closes itself) or `comment`; `sure` means that no sentence has this
    form.
    """

    start: int
    end: int
    name: str
    kind: str
    sure: bool = False


class _Reader(HTMLParser):
    """A parser of one start tag."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=False)
        self.attributes: list[tuple[str, str | None]] | None = None
        self.source = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self.attributes is None:
            self.attributes, self.source = attrs, self.get_starttag_text() or ""


def strip_html(text: str, plain: Callable[[str], str] = str) -> str:
    """Returns the text without tags, comments, scripts, style sheets, and SVG images, with its entities decoded.

    Blocks begin a line, table cells are separated by a blank, and superscripts and subscripts are converted by
    `script`. Everything else remains unchanged.

    Args:
        text: any text.
        plain: applied to the character of a decoded entity, such as a non-breaking space.
    """
    text = _without_xml(text) if "<" in text else text
    tags = _markup(text) if "<" in text and _OPENS.search(text) else []
    if not tags:
        return _decoded(text, plain)
    parts: list[list[str]] = [[]]  # the last list belongs to the innermost superscript or subscript
    place = 0
    for tag in tags:
        if tag.start > place:
            parts[-1].append(_decoded(text[place : tag.start], plain))
        place = tag.end
        if tag.name in _SCRIPTS and tag.kind == "open":
            parts.append([])
        elif tag.name in _SCRIPTS and tag.kind == "close":
            content = "".join(parts.pop())
            parts[-1].append(script(tag.name, content))
        elif tag.name in _BREAKS and not _last(parts[-1]).endswith("\n"):
            parts[-1].append("\n")
        elif tag.name in _CELLS and tag.kind != "close" and not _last(parts[-1])[-1:].isspace():
            parts[-1].append(" ")
    return "".join([*parts[0], _decoded(text[place:], plain)])


def _without_xml(text: str) -> str:
    """Returns the text with MathML formulas written out, and without XML constructs that are not HTML elements."""
    if "math" in text or "MATH" in text:
        text = formulas_as_text(text)
    if "<!" in text or "<?" in text:
        text = _INSTRUCTION.sub("", _CDATA.sub(r"\1", text))
    return _NAMESPACED.sub(lambda found: "" if _is_xml(found) else found[0], text)


def _is_xml(found: re.Match[str]) -> bool:
    if found[3].lower() in _NAMES:
        return False
    return bool(found[1] or found[4] or found[5]) or f"</{found[2]}>" in found.string


def _last(parts: list[str]) -> str:
    return parts[-1] if parts else "\n"  # no break is needed at the start of a text


def _decoded(text: str, plain: Callable[[str], str]) -> str:
    if "&" not in text:
        return text
    return _ENTITY.sub(lambda found: plain(html.unescape(found[0])), text)


def _markup(text: str) -> list[_Tag]:
    """Returns the HTML tags of a text, in order.

    Superscripts and subscripts nest properly. A script, style sheet, or SVG image is one comment.
    """
    tags = _without_hidden(list(_tags(text)))
    partner = _partners(tags)
    kept = []
    for index, tag in enumerate(tags):
        if tag.kind == "open":
            taken = (
                index in partner
                or (tag.name not in _PAIRED and _apart(text, tag))
                or (tag.sure and tag.name not in _SCRIPTS | _HIDDEN)
            )
        else:
            taken = tag.kind != "close" or tag.name not in _SCRIPTS or index in partner
        if taken:
            kept.append(tag)
    return kept


def _apart(text: str, tag: _Tag) -> bool:
    """Returns whether a tag without an end tag is HTML; `x<hr>y` may instead be a comparison of three quantities."""
    if len(tag.name) > _SHORT or tag.name == "br":
        return True
    around = text[tag.start - 1 : tag.start], text[tag.end : tag.end + 1]
    return not all(one.isascii() and one.isalnum() for one in around)


def _tags(text: str) -> Iterator[_Tag]:
    """Yields everything that has the form of a tag or a comment, in order."""
    place = 0
    comments = True  # False after a comment without an end, since no later one can have an end either
    while found := _OPENS.search(text, place):
        start, place = found.start(), found.end()
        name = (found[2] or "").lower().rpartition(":")[2]
        if not found[2]:
            comment = found[0] == "<!--"
            end = text.find("-->" if comment else ">", place) if comments or not comment else -1
            comments = comments and end >= 0
            if end >= 0:
                place = end + (3 if comment else 1)
                yield _Tag(start, place, "", "comment")
        elif found[1]:
            if closed := _END.match(text, place):
                place = closed.end()
                yield _Tag(start, place, name, "close")
        elif tag := _start_tag(text, start, name):
            place = tag.end
            yield tag


def _start_tag(text: str, start: int, name: str) -> _Tag | None:
    """Returns the start tag at `start`; None if its name is followed by words rather than attributes."""
    bare = start + 1 + len(name)
    if text.startswith(">", bare):
        return _Tag(start, bare + 1, name, "open")
    stop = text.find("<", start + 1, start + _LONGEST)
    reader = _Reader()
    reader.feed(text[start : start + _LONGEST if stop < 0 else stop])
    if reader.attributes is None:
        return None
    for attribute, value in reader.attributes:
        if not attribute.isascii() or (value is None and attribute not in _FLAGS):
            return None
    kind = "empty" if reader.source.endswith("/>") else "open"
    sure = any(value is not None for _, value in reader.attributes) and ('="' in reader.source or "='" in reader.source)
    return _Tag(start, start + len(reader.source), name, kind, sure)


def _without_hidden(tags: list[_Tag]) -> list[_Tag]:
    """Returns the tags, with each script, style sheet, or SVG image and its content replaced by one comment."""
    ends = {name: [tag for tag in reversed(tags) if tag.name == name and tag.kind == "close"] for name in _HIDDEN}
    kept: list[_Tag] = []
    place = 0
    for tag in tags:
        if tag.start < place:
            continue
        if tag.name in _HIDDEN and tag.kind == "open":
            closing = ends[tag.name]
            while closing and closing[-1].start < tag.start:
                closing.pop()
            if closing:
                place = closing[-1].end
                tag = _Tag(tag.start, place, "", "comment")
        kept.append(tag)
    return kept


def _partners(tags: list[_Tag]) -> set[int]:
    """Returns the indices of the start and end tags that belong together.

    Superscripts and subscripts share one stack, because they must nest.
    """
    waiting: dict[str, list[int]] = {}
    unclosed: Counter[str] = Counter()
    found: set[int] = set()
    for index, tag in enumerate(tags):
        stack = waiting.setdefault("scripts" if tag.name in _SCRIPTS else tag.name, [])
        if tag.kind == "open" and len(stack) < _DEEPEST:
            stack.append(index)
            unclosed[tag.name] += 1
        elif tag.kind == "close" and unclosed[tag.name]:
            while (opening := tags[stack[-1]].name) != tag.name:
                unclosed[opening] -= 1
                stack.pop()
            unclosed[tag.name] -= 1
            found |= {stack.pop(), index}
    return found
