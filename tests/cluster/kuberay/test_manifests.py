from __future__ import annotations

import pytest

from cluster.kuberay import manifests
from cluster.kuberay.manifests import Manifest, dotted, read
from configs.errors import ConfigError

TWO = """\
apiVersion: v1
kind: ConfigMap
metadata:
  name: one
---
# nothing but a comment
---
apiVersion: v1
kind: Service
spec:
  ports:
    - {port: 1}
    - {port: 2}
"""


def test_every_key_knows_its_line(tmp_path):
    file = tmp_path / "two.yaml"
    file.write_text(TWO)
    one, two = read(str(file))
    assert (one.kind, one.name, two.kind, two.name) == ("ConfigMap", "one", "Service", "(no name)")
    assert one.where(("metadata", "name")) == f"{file}:4"
    assert two.where(("spec", "ports", 1, "port")) == f"{file}:13"
    assert two.where(("spec", "ports", 1, "missing")) == f"{file}:13"
    assert two.at("spec", "ports", 1, "port") == 2
    assert two.at("spec", "ports", 5, "port") is None
    assert two.at("kind", "x") is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("kind: A\nkind: B\n", ":2: kind is given twice (first on line 1); remove one of them"),
        ("a: [\n", ":2: not valid YAML: "),
        ("\nname: x\n", ":2: not a Kubernetes object; give it apiVersion and kind"),
        ("- 1\n", ":1: not a Kubernetes object; give it apiVersion and kind"),
    ],
)
def test_what_is_no_manifest_is_refused_with_its_line(tmp_path, text, words):
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as refused:
        read(str(file))
    assert str(refused.value).startswith(f"{file}{words}")


def test_a_folder_needs_a_kustomization_and_something_to_render_it(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="has no kustomization.yaml; name a YAML file or a kustomize folder$"):
        read(str(tmp_path))
    (tmp_path / "kustomization.yaml").write_text("resources: [none.yaml]\n")
    monkeypatch.setattr(manifests, "renderer", lambda: None)
    with pytest.raises(ConfigError, match="needs kubectl or kustomize on the PATH; install one$"):
        read(str(tmp_path))


@pytest.mark.skipif(manifests.renderer() is None, reason="neither kubectl nor kustomize is installed")
def test_a_folder_that_does_not_render_is_one_line(tmp_path):
    (tmp_path / "kustomization.yaml").write_text("resources: [none.yaml]\n")
    with pytest.raises(ConfigError, match="does not render: .*none.yaml"):
        read(str(tmp_path))


def test_keys_are_written_as_people_do():
    assert dotted(("spec", "groups", 1, "name")) == "spec.groups[1].name"
    assert dotted(()) == "(the object)"
    assert Manifest("rendered", {}).where(("spec",)) == "rendered"
