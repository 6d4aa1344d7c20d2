"""Converts superscripts and subscripts of HTML to plain text, so that exponents and indices keep their values."""

from __future__ import annotations

from typing import Final

_SUPERSCRIPTS: Final = dict(
    zip(
        "0123456789+-=()abcdefghijklmnoprstuvwxyzABDEGHIJKLMNOPRTUVW",
        "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ᵃᵇᶜᵈᵉᶠᵍʰⁱʲᵏˡᵐⁿᵒᵖʳˢᵗᵘᵛʷˣʸᶻᴬᴮᴰᴱᴳᴴᴵᴶᴷᴸᴹᴺᴼᴾᴿᵀᵁⱽᵂ",
        strict=True,
    )
)
_SUBSCRIPTS: Final = dict(zip("0123456789+-=()aehijklmnoprstuvx", "₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎ₐₑₕᵢⱼₖₗₘₙₒₚᵣₛₜᵤᵥₓ", strict=True))
_SIGNS: Final = {
    "\u2212": "-",  # minus sign
    "\u2013": "-",  # en dash, which is often typed for a minus sign
    "\u2010": "-",
    "\uff0d": "-",
    "\uff0b": "+",
}
_TABLES: Final = {
    "sup": _SUPERSCRIPTS | {sign: _SUPERSCRIPTS[plain] for sign, plain in _SIGNS.items()},
    "sub": _SUBSCRIPTS | {sign: _SUBSCRIPTS[plain] for sign, plain in _SIGNS.items()},
}
_NOTATION: Final = {"sup": "^({})", "sub": "_({})"}


def script(name: str, content: str) -> str:
    """Converts the content of a `<sup>` or `<sub>` element to text.

    The result has Unicode superscripts or subscripts if every character has one, else it is `^(...)` or `_(...)`. A
    reference in brackets, and signs without letters or digits such as ®, remain unchanged, since they are not
    exponents.

    Args:
        name: `sup` or `sub`.
        content: the element's content, without tags and entities.
    """
    inner = content.strip()
    table = _TABLES[name]
    if all(one in table for one in inner):
        return "".join(table[one] for one in inner)
    if not any(map(str.isalnum, inner)) or (inner[0] in "[［" and inner[-1] in "]］"):
        return inner
    return _NOTATION[name].format(inner)
