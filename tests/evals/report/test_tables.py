from __future__ import annotations

from typing import Any

from evals.report.tables import comparisons, every_metric, markdown, overview, speed, warnings


def test_published_rows_stand_beside_mine_and_say_so(results: dict[str, Any]) -> None:
    choice, dialogue = comparisons(results["models"])
    assert choice.columns == ["C-Eval", "CMMLU", "MedQA"]
    assert [(row.name, row.published) for row in choice.rows[:3]] == [
        ("knows", False),
        ("says A", False),
        ("GPT-3.5-Turbo", True),
    ]
    assert choice.rows[0].cells == ["", f"{100 * 12 / 13:.2f}", ""]
    published = {row.name: row.cells for row in choice.rows if row.published}
    assert published["ChiMed-GPT"] == ["68.29", "52.92", "44.50"]
    assert len(published) == 9
    assert any("01fa7239" in note for note in choice.notes)
    assert dialogue.rows[0].cells[:5] == ["100.00"] * 5
    assert dialogue.rows[-1].cells == ["33.14", "30.86", "43.43", "34.91", "42.16", "", "", ""]


def test_without_a_figure_there_is_no_comparison(results: dict[str, Any]) -> None:
    only = {name: {**result, "tasks": {"cami": result["tasks"]["cami"]}} for name, result in results["models"].items()}
    assert comparisons(only) == []


def test_always_a_and_bad_items_are_named_first(results: dict[str, Any]) -> None:
    lines = list(warnings(results["models"]))
    assert any(line.startswith("says A, cmmlu") and "the letter A in 100%" in line for line in lines)
    assert any(line.startswith("says A, cami") and "the letter A" in line for line in lines)
    assert not any(line.startswith("knows") and "the letter" in line for line in lines)
    assert "all models, cmmlu: option missing: 1" in lines
    assert len(lines) == len(set(lines))


def test_every_number_is_there_and_only_numbers(results: dict[str, Any]) -> None:
    table = every_metric("cmmlu", results["models"])
    cells = {row.name: row.cells for row in table.rows}
    assert table.columns == ["knows", "says A"]
    assert cells["generation.0_shot.letters.A"] == ["3", "12"]
    assert cells["likelihood.0_shot.rotation.same_option"] == ["1.0000", "0.0000"]
    assert "prompt" not in cells
    assert overview(results["models"]).rows[0].cells[0].startswith("0.9231 [0.")
    assert speed(results["models"]["knows"]["tasks"]["cmmlu"]) == "6.5 items/s"


def test_markdown_has_as_many_cells_in_every_row(results: dict[str, Any]) -> None:
    lines = markdown(comparisons(results["models"])[0]).splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert {row.count("|") for row in rows} == {5}
    assert "| *ChiMed-GPT (published)* | 68.29 | 52.92 | 44.50 |" in rows
