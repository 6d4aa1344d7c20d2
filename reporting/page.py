"""Rendering of HTML reports: one Jinja environment for the templates that extend base.html.jinja."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from reporting.charts import COLORS
from reporting.formats import format_number, is_chinese, readable

FILES = Path(__file__).resolve().parent


def render(template: Path, *, hover: bool = False, refresh_s: int = 0, **values: object) -> str:
    """Renders a report's template as one self-contained HTML page.

    Jinja escapes all values. The page's Content Security Policy blocks all requests and all scripts except that of the
    charts.

    Args:
        template: path of a template that extends `base.html.jinja`; it can import the macros of `charts.html.jinja`.
        hover: whether the charts have tooltips.
        refresh_s: seconds after which a browser loads the page again; 0 for never.
        values: the template's variables.
    """
    return _environment(template.parent).get_template(template.name).render(hover=hover, refresh_s=refresh_s, **values)


@cache
def _environment(folder: Path) -> Environment:
    environment = Environment(
        loader=FileSystemLoader([folder, FILES]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style, script = _asset("page.css") + _asset("charts.css"), _asset("charts.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment.globals.update(colors=COLORS, style=style, script=script, script_hash=digest)
    environment.filters.update(number=format_number, thousands="{:,}".format, readable=readable)
    environment.tests["chinese"] = is_chinese
    return environment


def _asset(name: str) -> Markup:
    return Markup((FILES / name).read_text(encoding="utf-8"))  # noqa: S704 - a file of the project
