from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from configs.errors import ConfigError
from serve.errors import ApiError
from serve.keys import ANYBODY, Key, Keyring, from_plain, read_keys, to_plain
from serve.rotate import with_keys

KEY, OTHER = "k" * 20, "o" * 16


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def nameless(key: str) -> Key:
    return Key(digest(key)[:8], digest(key))


def test_a_file_that_others_can_read_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "keys"
    file.write_text(f"{KEY}\n")
    file.chmod(0o644)
    assert read_keys(str(file)) == [nameless(KEY)]
    assert caplog.messages == [f"{file}: other users can read the API keys (mode 644); run chmod 600 {file}"]
    caplog.clear()
    file.chmod(0o600)
    assert read_keys(str(file)) == [nameless(KEY)]
    assert caplog.messages == []


def test_keys_of_variable_and_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# staff\n{OTHER}\n\n{KEY}\n")
    monkeypatch.setenv("CHIMED_API_KEYS", f"{KEY}, ")
    assert read_keys("") == [nameless(KEY)]
    monkeypatch.setenv("CHIMED_API_KEYS", KEY)
    assert read_keys(str(file)) == [nameless(KEY), nameless(OTHER)]
    assert read_keys("") == []


def test_processes_that_are_started_later_do_not_inherit_the_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHIMED_API_KEYS", KEY)
    read_keys("")
    assert "CHIMED_API_KEYS" not in os.environ
    code = "print(open('/proc/self/environ').read())"
    inherited = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert KEY not in inherited


def test_named_keys_with_limits_weight_and_expiry(tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    file.write_text(
        "keys:\n"
        f"  ward-3: {{key: {KEY}, requests_per_minute: 60, tokens_per_minute: 20000, weight: 2, expires: 2027-01-31}}\n"
        f"  research: {{sha256: {digest(OTHER)}, expires: '2027-01-31T18:00+08:00'}}\n"
    )
    ward, research = read_keys(str(file))
    assert ward == Key("ward-3", digest(KEY), 60, 20000, 2.0, 1801439999.0)
    assert research == Key("research", digest(OTHER), None, None, 1.0, 1801389600.0)
    assert from_plain(to_plain([ward, research])) == [ward, research]
    assert KEY not in str(to_plain([ward]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ward: {key: short}", r"keys.yaml:2: ward: an API key has 16 or more printable ASCII characters"),
        ("ward: {}", r"keys.yaml:2: ward: needs either key or sha256"),
        (f"ward: {{key: {KEY}, sha256: {'a' * 64}}}", r"ward: needs either key or sha256"),
        ("ward: {sha256: 12ab}", r"keys.yaml:2: ward.sha256: String should match pattern"),
        ("ward: {sha256: A}", r"ward.sha256: String should match pattern"),
        (f"ward: {{key: {KEY}, weight: 0}}", r"ward.weight: must be greater than 0, not 0"),
        (f"ward: {{ky: {KEY}}}", r"ward.ky: is not a setting of a key; use key, sha256, requests_per_minute"),
        (f"ward: {{key: {KEY}, expires: soon}}", r"ward: expires: 'soon' is not a date such as 2027-01-31"),
        (f"ward: {{key: {KEY}, expires: '2027-01-31T18:00'}}", r"has no time zone; write 2027-01-31T18:00\+08:00"),
        (f"a b: {{key: {KEY}}}", r"a key's name has up to 64 letters"),
        (f"ward: {KEY}", r"keys.yaml:2: ward: must be an object"),
        (f"a: {{key: {KEY}}}\n  b: {{key: {KEY}}}", r"keys.yaml:3: b is the same key as a: remove one"),
        (f"a: {{key: {KEY}}}\n  a: {{key: {OTHER}}}", r"key 'a' is given twice"),
    ],
)
def test_a_bad_key_file_is_refused_in_one_line_that_tells_no_key(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    file.write_text(f"keys:\n  {text}\n")
    with pytest.raises(ConfigError, match=message) as refused:
        read_keys(str(file))
    assert KEY not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_bad_keys_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CHIMED_API_KEYS", "short")
    with pytest.raises(ConfigError, match=r"^CHIMED_API_KEYS: an API key has 16 or more printable ASCII characters"):
        read_keys("")
    with pytest.raises(ConfigError, match=r"api_keys_file"):
        read_keys(str(tmp_path / "missing"))
    for name in ("empty", "empty.yaml"):
        (tmp_path / name).write_text("# nobody yet\n" if name == "empty" else "keys: {}\n")
        with pytest.raises(ConfigError, match=r"contains no API keys"):
            read_keys(str(tmp_path / name))
    (tmp_path / "bad").write_text(f"{KEY}\nwith a space in it\n")
    with pytest.raises(ConfigError, match=r"bad:2: an API key"):
        read_keys(str(tmp_path / "bad"))
    (tmp_path / "list.yml").write_text(f"- {KEY}\n")
    with pytest.raises(ConfigError, match=r"list.yml: a recipe is a mapping"):
        read_keys(str(tmp_path / "list.yml"))


def test_who_sends_a_request() -> None:
    now = 1000.0
    keys = [Key("old", digest("e" * 16), expires=999.0), Key("ward", digest(OTHER), expires=1001.0), nameless(KEY)]
    keyring = Keyring(keys, lambda: now)
    assert keyring.holder(f"Bearer {KEY}").name == digest(KEY)[:8]
    assert keyring.holder(f"bearer  {OTHER} ").name == "ward"
    for header, code in ((None, "missing_api_key"), (KEY, "missing_api_key"), ("Bearer ", "missing_api_key")):
        with pytest.raises(ApiError) as refused:
            keyring.holder(header)
        assert (refused.value.status, refused.value.code) == (401, code)
    with pytest.raises(ApiError, match=r"This API key is invalid") as refused:
        keyring.holder(f"Bearer {KEY}x")
    assert refused.value.code == "invalid_api_key"
    with pytest.raises(ApiError, match=r"The API key 'old' has expired") as refused:
        keyring.holder(f"Bearer {'e' * 16}")
    assert (refused.value.status, refused.value.code) == (401, "expired_api_key")
    now = 1002.0
    with pytest.raises(ApiError, match=r"'ward' has expired"):
        keyring.holder(f"Bearer {OTHER}")
    assert Keyring([]).holder(None) == ANYBODY


def test_the_keys_of_a_deployed_endpoint_are_a_setting_of_its_gateway() -> None:
    endpoint = {
        "import_path": "serve.app:build",
        "args": {"model": "m"},
        "deployments": [{"name": "gateway", "user_config": {"keys": []}}, {"name": "engine:m", "num_replicas": 2}],
    }
    config = with_keys({"applications": [{"import_path": "other:app"}, endpoint]}, [nameless(KEY)], "c.yaml")
    assert config["applications"][0] == {"import_path": "other:app"}
    assert config["applications"][1]["args"] == {"model": "m"}  # the same: nothing is built again
    assert config["applications"][1]["deployments"] == [
        {"name": "engine:m", "num_replicas": 2},
        {"name": "gateway", "user_config": {"keys": to_plain([nameless(KEY)])}},
    ]
    with pytest.raises(ConfigError, match=r"^c.yaml: has no application with import_path serve.app:build"):
        with_keys({"applications": []}, [], "c.yaml")


def test_the_rotate_command(tmp_path: Path) -> None:
    (tmp_path / "keys.yaml").write_text(f"keys:\n  ward: {{key: {KEY}}}\n")
    command = [sys.executable, "-m", "serve.rotate", str(tmp_path / "keys.yaml")]
    done = subprocess.run([*command, "serve/config.yaml"], capture_output=True, text=True, check=True)
    (endpoint,) = yaml.safe_load(done.stdout)["applications"]
    assert endpoint["deployments"][0]["user_config"]["keys"] == to_plain([Key("ward", digest(KEY))])
    assert KEY not in done.stdout
    failed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert failed.returncode == 2
    assert failed.stderr.endswith(
        "python -m serve.rotate: error: the following arguments are required: CONFIG.yaml; --help lists the arguments\n"
    )
