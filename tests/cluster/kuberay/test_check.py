"""The command itself: what it prints and how it ends."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from cluster.kuberay.check import main

NETWORK = Path(__file__).resolve().parents[3] / "cluster/kuberay/parts/shared/network.yaml"


@pytest.fixture(autouse=True)
def without_schemas(monkeypatch):
    monkeypatch.delenv("CHIMED_KUBERAY_CRDS", raising=False)


def test_a_problem_is_one_line_with_the_line_of_its_key(tmp_path, plant, capsys):
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump(plant("RayJob", {"spec submissionMode": "K8SJobMode"}).content))
    line = next(n for n, text in enumerate(file.read_text().splitlines(), 1) if "submissionMode" in text)
    assert main([str(file)]) == 1
    printed = capsys.readouterr()
    assert printed.out == (
        f"{file}:{line}: RayJob/chimed-ppo: spec.submissionMode: is 'K8SJobMode'; "
        "give one of K8sJobMode, HTTPMode, SidecarMode, InteractiveMode\n"
    )
    assert printed.err.endswith(
        " WARNING cluster.kuberay.check: KubeRay's schemas are not checked; give their folder with --crds DIR\n"
    )


def test_without_problems_it_says_how_much_was_looked_at(capsys):
    assert main([str(NETWORK)]) == 0
    assert capsys.readouterr().out == "2 objects, no problems\n"


def test_several_problems_are_several_lines(tmp_path, plant, capsys):
    changes = {"spec submissionMode": "K8SJobMode", "spec backoffLimit": -1, "metadata name": "c" * 48}
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump(plant("RayJob", changes).content))
    assert main([str(file), str(NETWORK)]) == 1
    assert capsys.readouterr().out.count("\n") == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["none.yaml"],
            "none.yaml: cannot be read (No such file or directory); name a YAML file or a kustomize folder",
        ),
        (["--crds", "/nowhere", "x"], "/nowhere: there is no ray.io_rayclusters.yaml; give the folder of KubeRay's"),
    ],
)
def test_what_cannot_be_looked_at_is_one_line(arguments, words, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"python -m cluster.kuberay.check: error: {words}")
