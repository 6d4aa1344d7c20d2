from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from hub import Hub
from huggingface_hub import _tree_cache, constants

from configs.errors import ConfigError
from data.hub import Repository, download, files_of, parse_model, pinned


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The content of a repository."""
    folder = tmp_path / "repository"
    (folder / "onnx").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "onnx" / "model.onnx").write_bytes(bytes(100))
    return folder


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> Any:
    def switch() -> None:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        pinned.cache_clear()

    return switch


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("org/name", Repository("org/name")),
        ("org/name@v1.0", Repository("org/name", "v1.0")),
        ("org/name@refs/pr/1", Repository("org/name", "refs/pr/1")),
        ("runs/name", None),
        ("name", None),
        ("/org/name", None),
        ("./org/name", None),
        ("a/b/c", None),
        ("org/name@", None),
    ],
)
def test_names_of_repositories_and_paths(name: str, found: Repository | None) -> None:
    assert parse_model(name) == found


def test_a_branch_is_pinned_and_only_wanted_files_are_downloaded(
    hub: Hub, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    commit = hub.commit("models", "org/name", folder)
    repository = pinned(Repository("org/name"))
    assert (str(repository), repository.is_pinned) == (f"org/name@{commit}", True)
    assert sorted(files_of(repository)) == ["config.json", "onnx/model.onnx"]
    copy = download(repository, ["config.json"])
    assert [path.name for path in copy.iterdir()] == ["config.json"]
    assert caplog.messages[-1] == f"downloading 1 files of org/name@{commit}"
    caplog.clear()
    before = len(hub.requests)
    assert download(repository, ["config.json"]) == copy
    assert len(hub.requests) == before  # a commit in the cache needs no network
    assert caplog.messages == []


def test_a_commit_stays_what_it_was(hub: Hub, folder: Path) -> None:
    old = hub.commit("models", "org/name", folder)
    (folder / "config.json").write_text('{"new": 1}')
    new = hub.commit("models", "org/name", folder)
    assert pinned(Repository("org/name", old)).revision == old
    assert pinned(Repository("org/name")).revision == new
    assert (download(Repository("org/name", old), ["config.json"]) / "config.json").read_text() == "{}"


def test_offline_uses_the_cache_and_says_which_commit(
    hub: Hub, folder: Path, offline: Any, caplog: pytest.LogCaptureFixture
) -> None:
    commit = hub.commit("models", "org/name", folder)
    download(pinned(Repository("org/name")), ["config.json"])
    files_of(Repository("org/name", commit))
    offline()
    caplog.clear()
    before = len(hub.requests)
    repository = pinned(Repository("org/name"))
    assert caplog.messages[0].startswith(f"org/name: commit {commit}, from {constants.HF_HUB_CACHE}, because the Hub")
    assert (download(repository, ["config.json"]) / "config.json").read_text() == "{}"
    with pytest.raises(ConfigError, match="is not in .*, and HF_HUB_OFFLINE is set; unset it to download"):
        download(repository, ["config.json", "onnx/model.onnx"])
    with pytest.raises(ConfigError, match="model org/other on .* is not in .*HF_HUB_OFFLINE is set"):
        pinned(Repository("org/other"))
    assert len(hub.requests) == before


def test_a_copy_without_a_list_of_files_is_used_as_it_is(
    hub: Hub, folder: Path, offline: Any, caplog: pytest.LogCaptureFixture
) -> None:
    repository = Repository("org/name", hub.commit("models", "org/name", folder))
    copy = download(repository, ["config.json"])
    shutil.rmtree(copy.parents[1] / "trees")
    _tree_cache._IN_MEMORY_TREE_CACHE.clear()
    offline()
    assert files_of(repository) == ["config.json"]
    assert "the cache has no file list" in caplog.text
    assert download(repository, ["config.json"]) == copy


def test_what_cannot_be_had_is_one_line(hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.commit("models", "org/name", folder)
    hub.commit("models", "org/gated", folder, gated=True)
    with pytest.raises(
        ConfigError, match=r"model org/none on http://.*: there is no such repository, and no local folder"
    ):
        pinned(Repository("org/none"))
    with pytest.raises(ConfigError, match="model org/name@v2 on .*: there is no such revision"):
        pinned(Repository("org/name", "v2"))
    with pytest.raises(ConfigError, match="model org/gated@.* on .*: access is restricted; .* set HF_TOKEN"):
        download(pinned(Repository("org/gated")), ["config.json"])
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ConfigError, match="org/more on .*the Hub cannot be reached; .*HF_ENDPOINT"):
        pinned(Repository("org/more"))
