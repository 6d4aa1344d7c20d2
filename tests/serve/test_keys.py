from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from configs.errors import ConfigError
from serve.errors import ApiError
from serve.keys import ANYBODY, Keyring, read_keys

KEY, OTHER = "k" * 20, "o" * 16


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def test_keys_of_variable_and_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# staff\n{OTHER}\n\n{KEY}\n")
    monkeypatch.setenv("CHIMED_API_KEYS", f"{KEY}, ")
    assert read_keys("") == [digest(KEY)]
    assert read_keys(str(file)) == [digest(KEY), digest(OTHER)]
    monkeypatch.delenv("CHIMED_API_KEYS")
    assert read_keys("") == []


def test_bad_keys_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CHIMED_API_KEYS", "short")
    with pytest.raises(ConfigError, match=r"^CHIMED_API_KEYS: an API key has 16 or more printable ASCII characters"):
        read_keys("")
    monkeypatch.delenv("CHIMED_API_KEYS")
    with pytest.raises(ConfigError, match=r"api_keys_file"):
        read_keys(str(tmp_path / "missing"))
    (tmp_path / "empty").write_text("# nobody yet\n")
    with pytest.raises(ConfigError, match=r"has no API key in it"):
        read_keys(str(tmp_path / "empty"))
    (tmp_path / "bad").write_text(f"{KEY}\nwith a space in it\n")
    with pytest.raises(ConfigError, match=r"bad:2: an API key"):
        read_keys(str(tmp_path / "bad"))


def test_who_asks() -> None:
    keyring = Keyring([digest(OTHER), digest(KEY)])
    assert keyring.holder(f"Bearer {KEY}", "203.0.113.5") == digest(KEY)[:8]
    assert keyring.holder(f"bearer  {OTHER} ", None) == digest(OTHER)[:8]
    for header, code in ((None, "missing_api_key"), (KEY, "missing_api_key"), ("Bearer ", "missing_api_key")):
        with pytest.raises(ApiError) as refused:
            keyring.holder(header, "127.0.0.1")
        assert (refused.value.status, refused.value.code) == (401, code)
    with pytest.raises(ApiError, match=r"not one of the endpoint's") as refused:
        keyring.holder(f"Bearer {KEY}x", "127.0.0.1")
    assert refused.value.code == "invalid_api_key"


@pytest.mark.parametrize(
    ("client", "allowed"), [("127.0.0.1", True), ("::1", True), ("10.0.0.1", False), (None, False), ("x", False)]
)
def test_without_keys_only_this_machine_is_answered(client: str | None, allowed: bool) -> None:
    keyring = Keyring([])
    if allowed:
        assert keyring.holder(None, client) == ANYBODY
    else:
        with pytest.raises(ApiError, match=r"set CHIMED_API_KEYS") as refused:
            keyring.holder(None, client)
        assert refused.value.status == 403
