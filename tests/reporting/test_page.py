from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

import pytest
from jinja2 import UndefinedError

from reporting.charts import Bar, BarChart
from reporting.page import render
from reporting.scale import Scale

TEMPLATE = """{% extends "base.html.jinja" %}
{% from "charts.html.jinja" import bar_chart %}
{% block title %}{{ name }}{% endblock %}
{% block header %}<h1>{{ count | thousands }}</h1>{% endblock %}
{% block main %}{% for chart in charts %}{{ bar_chart(chart) }}{% endfor %}{% endblock %}
"""


@pytest.fixture
def template(tmp_path: Path) -> Path:
    path = tmp_path / "page.html.jinja"
    path.write_text(TEMPLATE, encoding="utf-8")
    return path


def test_the_policy_allows_the_scripts_hash_or_no_script(template: Path) -> None:
    page = render(template, hover=True, name="<b>", count=1234, charts=[])
    [script] = re.findall("<script>(.*)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}';" in page
    assert "<title>&lt;b&gt;</title>" in page
    assert "<h1>1,234</h1>" in page
    plain = render(template, name="a", count=0, charts=[])
    assert "content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form" in plain
    assert "script" not in plain


def test_a_variable_that_is_missing_is_an_error(template: Path) -> None:
    with pytest.raises(UndefinedError, match="'name' is undefined"):
        render(template, count=0, charts=[])


def test_bars_lie_on_their_axis(template: Path) -> None:
    bars = [Bar("all", 0.5, "50.0", "model", 9, (0.25, 0.7)), Bar("<b>", 1.0, "100.0")]
    chart = BarChart("Accuracy", "hint", bars, Scale(0.0, 2.0), [(0.0, "0")], line=0.4)
    page = render(template, name="a", count=0, charts=[chart])
    assert 'class="track c1" title="all, model: 50.0"' in page
    assert 'class="bar" style="width:25.0%"' in page
    assert 'class="interval" style="left:12.5%;right:65.0%"' in page
    assert page.count('class="limit" style="left:20.0%"') == 2
    assert page.count('class="interval"') == 1
    assert 'title="&lt;b&gt;: 100.0"' in page
    dots = BarChart("", "", bars[1:], Scale(0.0, 2.0), [], filled=False)
    page = render(template, name="a", count=0, charts=[dots])
    assert 'class="dot" style="left:50.0%"' in page
    assert "<figcaption>" not in page
    assert 'class="axis"' not in page
