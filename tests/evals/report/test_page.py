"""The page as text, and as a browser shows it."""

from __future__ import annotations

import copy
import math
import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks.pictures.browser import Chromium, Page
from evals.report.page import models_of, to_html, to_markdown, write_reports


def test_texts_cannot_run_and_nothing_is_fetched(results: dict[str, Any]) -> None:
    page = to_html(results, now=0)
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "1970-01-01 00:00 UTC" in page
    assert "http-equiv" in page
    assert "src=" not in page


def test_what_decides_the_numbers_is_told(results: dict[str, Any]) -> None:
    for text in (to_html(results), to_markdown(results)):
        assert "0" * 64 in text
        assert next(iter(results["settings"]["files"]["cmmlu"].values())) in text
        assert "torch 2" in text
        assert "chooses the letter A in 100% of all rotations" in text
    resumed = to_markdown({**results, "recalled": 7})
    assert "7 responses are from an interrupted run" in resumed


def test_one_model_alone_is_named_by_its_run(results: dict[str, Any]) -> None:
    one = {**results["models"]["knows"], "model": "runs/quickstart/sft/model", "settings": {}, "recalled": 0}
    assert list(models_of(one)) == ["sft/model"]
    assert list(models_of({**one, "model": "http://a/v1"})) == ["http://a/v1"]


def test_values_are_never_shown_as_python_source(results: dict[str, Any]) -> None:
    odd = copy.deepcopy(results)
    odd["settings"] |= {"max_model_len": None, "limits": {}, "shots": [0, 5], "rotate": True}
    scores = odd["models"]["knows"]["tasks"]["cmmlu"]["likelihood"]["0_shot"]
    scores |= {"accuracy": math.nan, "accuracy_interval": [math.nan, math.nan]}
    odd["models"]["knows"]["tasks"]["cmmlu"]["seconds"] = 750.0
    odd["models"]["knows"]["tasks"]["dialogue"]["samples"][0]["reference"] = None
    for page in (to_html(odd), to_markdown(odd)):
        shown = re.sub(r"(?s)<(style|head).*?</\1>", "", page)
        assert re.findall(r"\bNone\b|\{\}|\bnan\b|\[\]|\bTrue\b", shown) == []
        assert "12.5 min" in shown
    text = to_markdown(odd)
    assert "- limits: none\n" in text
    assert "- max_model_len: not set\n" in text
    assert "- shots: 0, 5\n" in text
    assert "- rotate: yes\n" in text
    assert "(nothing)" in to_html(odd)
    assert to_html(odd).count(">not finite</span>") == 1


def test_only_what_is_wanted_is_written(results: dict[str, Any], tmp_path: Path) -> None:
    write_reports(results, None, tmp_path / "deep" / "a.html")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.html"]
    write_reports(results, tmp_path / "a.md", None)
    assert (tmp_path / "a.md").read_text(encoding="utf-8") == to_markdown(results)


@pytest.mark.slow
@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (390, "dark"), (1280, "light"), (1280, "dark")])
def test_the_page_fits_its_window(
    results: dict[str, Any], chromium: Chromium, tmp_path: Path, width: int, scheme: str
) -> None:
    write_reports(results, None, tmp_path / "a.html")
    page = Page(chromium, width, 900, "en", scheme)
    try:
        page.show(tmp_path / "a.html")
        assert page.overflow() == 0
        assert page.faint() == []
        assert page.evaluate("[...document.querySelectorAll('.track')].every((e) => e.clientWidth > 60)")
        assert page.texts(".published th")[0].startswith("GPT-3.5-Turbo")
        assert page.complaints() == []
    finally:
        page.close()
