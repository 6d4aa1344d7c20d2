"""The report of an evaluation, as Markdown and as a single HTML file with plots."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evals.report.plots import choice_plots, scale_plots
from evals.report.tables import (
    Results,
    comparisons,
    every_metric,
    markdown,
    overview,
    speed,
    warnings,
)
from reporting.formats import format_setting, format_time
from reporting.page import render
from storage.durable import make_folder, replace_file

_PLOTS = {
    **dict.fromkeys(("cmmlu", "ceval", "medqa", "exam"), choice_plots),
    **dict.fromkeys(("cami", "scale"), scale_plots),
}
DISCLAIMER = (
    "Scores on exam questions or on the wording of responses do not measure safety with patients. No result here "
    "qualifies a model for medical advice."
)


def write_reports(results: Mapping[str, Any], markdown_file: Path | None, html_file: Path | None) -> None:
    """Writes the requested reports, each atomically.

    Args:
        results: the output of `evals.run.evaluate`.
        markdown_file: path of the Markdown report; None if it is not requested.
        html_file: path of the HTML report; None if it is not requested.

    Raises:
        DiskError: a file cannot be written.
    """
    for file, make in ((markdown_file, to_markdown), (html_file, to_html)):
        if file is not None:
            make_folder(file.parent)
            replace_file(file, make(results).encode())


def models_of(results: Mapping[str, Any]) -> Results:
    """Returns the results by model name, for runs with and without named models."""
    if "models" in results:
        return dict(results["models"])
    name = Path(results["model"]).name if "://" not in results["model"] else results["model"]
    parent = Path(results["model"]).parent.name
    return {f"{parent}/{name}" if name == "model" else name: results}


def to_markdown(results: Mapping[str, Any]) -> str:
    """Returns the report as Markdown."""
    models = models_of(results)
    parts = ["# Evaluation", "", DISCLAIMER, ""]
    parts += [f"- {line}" for line in warnings(models)]
    for table in [overview(models), *comparisons(models)]:
        parts += ["", f"## {table.title}", "", markdown(table)]
    for task in _tasks(models):
        parts += ["", f"## {task}", "", markdown(every_metric(task, models))]
    parts += ["", "## Setup", ""]
    parts += [f"- {name}: {value}" for name, value in facts(results)]
    return "\n".join(parts) + "\n"


def to_html(results: Mapping[str, Any], now: float | None = None) -> str:
    """Returns the report as a self-contained HTML page.

    Args:
        results: the output of `evals.run.evaluate`.
        now: time of the report, Unix seconds; None for the current time.
    """
    models = models_of(results)
    return render(
        Path(__file__).with_name("page.html.jinja"),
        models=models,
        made=format_time(now),
        disclaimer=DISCLAIMER,
        warnings=list(warnings(models)),
        overview=overview(models),
        comparisons=comparisons(models),
        sections=[_section(task, models) for task in _tasks(models)],
        facts=facts(results),
    )


def facts(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns what the results depend on (models, data, settings, versions), as (name, value) pairs."""
    settings = results["settings"]
    found = [
        (f"model {name}", f"{result['model']} ({'SHA-256 ' + result['sha256'] if result['sha256'] else 'an endpoint'})")
        for name, result in models_of(results).items()
    ]
    for task, files in settings["files"].items():
        found += [(f"data of {task}", f"{path} (SHA-256 {digest})") for path, digest in files.items()]
    found += [(name, format_setting(value)) for name, value in settings.items() if name not in ("files", "versions")]
    found += [("versions", ", ".join(f"{name} {version}" for name, version in settings["versions"].items()))]
    if results["recalled"]:
        found.append(
            (
                "recalled",
                f"{results['recalled']} responses are from an interrupted run; durations cover only the last run",
            )
        )
    return found


def _tasks(models: Results) -> list[str]:
    return list(dict.fromkeys(task for result in models.values() for task in result["tasks"]))


def _section(task: str, models: Results) -> dict[str, Any]:
    own = {name: result["tasks"][task] for name, result in models.items() if task in result["tasks"]}
    first = next(iter(own.values()))
    return {
        "task": task,
        "plots": _PLOTS[task](task, models) if task in _PLOTS else [],
        "table": every_metric(task, models),
        "speed": [(name, speed(values)) for name, values in own.items()],
        "prompt": first.get("prompt"),
        "scale": first.get("scale"),
        "samples": [(name, values["samples"]) for name, values in own.items() if values.get("samples")],
        "faults": [(name, line) for name, values in own.items() for line in values.get("faults", {}).get("named", [])],
    }
