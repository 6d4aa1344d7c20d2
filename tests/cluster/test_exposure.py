"""Clusters that other machines reach without a token are refused; those on loopback and those with a token are joined."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from heads import outside_of_clusters, running_head
from ray._private.services import node_ip_address_from_perspective

from cluster.environment import for_joined_cluster
from cluster.exposure import is_loopback, open_addresses, require_closed
from configs.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef" * 4}
WITHOUT_TOKEN = {"RAY_AUTH_MODE": "disabled"}
JOINED = """
import ray, sys
from cluster.connect import connect
from configs.errors import one_line_errors
with one_line_errors("here"), connect(insecure="--insecure" in sys.argv):
    print(ray.get_runtime_context().gcs_address)
"""
OUTER = node_ip_address_from_perspective()
outside = pytest.mark.skipif(is_loopback(OUTER), reason="this machine has no address beyond loopback")


def join(address: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """What a process prints that joins the cluster as a trainer does."""
    return subprocess.run(
        [sys.executable, "-c", JOINED, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=120,
        env=outside_of_clusters({"RAY_ADDRESS": address, **environment}),
    )


@outside
@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--node-ip-address=127.0.0.1",)])
def test_an_open_cluster_without_a_token_is_refused_unless_insecure_is_given(options: tuple[str, ...]) -> None:
    with running_head(*options, **WITHOUT_TOKEN) as head:
        assert open_addresses(head) == [OUTER]
        refused = join(head, **WITHOUT_TOKEN)
        assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (2, "", 1)
        assert refused.stderr.startswith("here: error: the Ray cluster at ")
        assert f"lets anyone who reaches {OUTER} run code without a token" in refused.stderr
        assert refused.stderr.rstrip().endswith("or accept that with --insecure")
        joined = join(head, "--insecure", **WITHOUT_TOKEN)
        assert (joined.returncode, joined.stderr) == (0, "")


@outside
@pytest.mark.slow
def test_with_a_token_or_on_loopback_it_is_joined() -> None:
    with running_head(**TOKEN) as head:
        assert open_addresses(head) == []
        joined = join(head, **TOKEN)
        assert (joined.returncode, joined.stderr) == (0, "")
    loopback = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    with running_head("--node-ip-address=127.0.0.1", **WITHOUT_TOKEN, **loopback) as head:
        assert open_addresses(head) == []
        joined = join(head, **WITHOUT_TOKEN)  # without the variable: which addresses the head has is found out
        assert (joined.returncode, joined.stdout, joined.stderr) == (0, f"{head}\n", "")


def certificates(folder: Path, name: str) -> dict[str, str]:
    """Ray's TLS variables with a CA of its own in `folder`, and a certificate of this machine that it has signed."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}-ca.key", "-out", f"{name}-ca.crt",
            "-subj", "/CN=ca")  # fmt: skip
    openssl(
        "req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", "/CN=node"
    )
    (folder / "names").write_text(f"subjectAltName=IP:127.0.0.1,IP:{OUTER},DNS:localhost\n")
    openssl("x509", "-req", "-in", f"{name}.csr", "-CA", f"{name}-ca.crt", "-CAkey", f"{name}-ca.key", "-CAcreateserial",
            "-extfile", "names", "-out", f"{name}.crt")  # fmt: skip
    return {
        "RAY_USE_TLS": "1",
        "RAY_TLS_SERVER_CERT": str(folder / f"{name}.crt"),
        "RAY_TLS_SERVER_KEY": str(folder / f"{name}.key"),
        "RAY_TLS_CA_CERT": str(folder / f"{name}-ca.crt"),
    }


@outside
@pytest.mark.slow
@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl")
def test_mutual_tls_admits_only_certificates_of_its_own_authority(tmp_path: Path) -> None:
    own, stranger = certificates(tmp_path, "own"), certificates(tmp_path, "stranger")
    with running_head(**TOKEN, **own) as head:
        assert open_addresses(head) == []
        joined = join(head, **TOKEN, **own)
        assert (joined.returncode, joined.stderr) == (0, "")
        trusting = {**stranger, "RAY_TLS_CA_CERT": own["RAY_TLS_CA_CERT"]}  # it knows whom to trust; it is not trusted
        for variables in ({"RAY_USE_TLS": "0"}, trusting):
            refused = join(head, **TOKEN, **variables)
            assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (2, "", 1)
            assert f"no Ray cluster responds at RAY_ADDRESS={head}" in refused.stderr


def test_what_is_loopback() -> None:
    assert all(map(is_loopback, ("localhost", "127.0.0.1", "127.9.9.9", "::1", "[::1]")))
    assert not any(map(is_loopback, ("0.0.0.0", "192.0.2.1", "::", "head.example")))


def test_require_closed_names_address_and_option(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.exposure._nodes_without_token", lambda address: ["127.0.0.1", "192.0.2.7"])
    with pytest.raises(ConfigError, match=r"reaches 192\.0\.2\.7 run code .* with --cluster\.insecure=true$"):
        require_closed("192.0.2.7:6379", insecure=False, allow="--cluster.insecure=true")
    require_closed("192.0.2.7:6379", insecure=True)
    monkeypatch.setattr("cluster.exposure._nodes_without_token", lambda address: None)
    require_closed("192.0.2.7:6379", insecure=False)


def test_workers_of_a_loopback_cluster_listen_there(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GLOO_SOCKET_IFNAME", "VLLM_HOST_IP"):
        monkeypatch.delenv(name, raising=False)
    joined = for_joined_cluster(on_loopback=True)
    assert (joined["GLOO_SOCKET_IFNAME"], joined["VLLM_HOST_IP"]) == ("lo", "127.0.0.1")
    assert "GLOO_SOCKET_IFNAME" not in for_joined_cluster()
