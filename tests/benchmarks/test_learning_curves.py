from __future__ import annotations

from xml.etree import ElementTree

import pytest

from benchmarks.learning_curves import draw
from benchmarks.verifiable import by_algorithm

SVG = "{http://www.w3.org/2000/svg}"
CURVES = {"ppo": [[0.0, 0.5, 1.0], [0.0, 0.5, 0.6]], "a < b": [[0.25, 0.25, 0.25]]}


@pytest.fixture
def root() -> ElementTree.Element:
    return ElementTree.fromstring(draw(CURVES, "success", last=2))


def paths(root: ElementTree.Element, kind: str) -> list[str]:
    return [path.get("d", "") for path in root.iter(f"{SVG}path") if path.get("class") == kind][
        1:
    ]  # the legend's first


def test_every_seed_is_a_line_and_their_mean_another(root: ElementTree.Element) -> None:
    assert paths(root, "seed") == [
        "M52.0 192.0L154.0 133.0L256.0 74.0",
        "M52.0 192.0L154.0 133.0L256.0 121.2",
        "M280.0 162.5L382.0 162.5L484.0 162.5",
    ]
    assert paths(root, "mean") == ["M52.0 192.0L154.0 133.0L256.0 97.6", "M280.0 162.5L382.0 162.5L484.0 162.5"]


def test_names_axes_and_results_are_written_and_the_file_needs_no_other(root: ElementTree.Element) -> None:
    texts = [text.text for text in root.iter(f"{SVG}text")]
    assert {"success", "step", "ppo", "65%", "a < b", "25%", "0%", "100%", "1", "2", "3"} <= set(texts)
    words = root.findtext(f"{SVG}title")
    assert words == "success, mean of the last 2 steps: ppo 65%; a < b 25%"
    assert "http" not in draw(CURVES, "success", last=2).replace("http://www.w3.org/2000/svg", "")


def test_seeds_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        draw({"ppo": [[0.1, 0.2], [0.1]]}, "success", last=2)


def test_runs_are_grouped_by_algorithm_and_what_worked_ahead_says_so() -> None:
    runs = {"grpo/ahead-0/seed-0": [0.1], "grpo/ahead-0/seed-1": [0.2], "grpo/ahead-1/seed-0": [0.3]}
    assert by_algorithm(runs) == {"grpo": [[0.1], [0.2]], "grpo, ahead 1": [[0.3]]}
