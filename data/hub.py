"""Repositories of the Hugging Face Hub: names, commits, file lists, and local copies in huggingface_hub's own cache.

`HF_ENDPOINT`, `HF_HOME`, `HF_HUB_OFFLINE`, and `HF_TOKEN` have the same meaning as in huggingface_hub. Importing this
module imports neither huggingface_hub nor torch.
"""

from __future__ import annotations

import glob
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from configs.errors import ConfigError, first_line

logger = logging.getLogger(__name__)

COMMIT = re.compile(r"[0-9a-f]{40}")
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_MODEL = re.compile(rf"(?P<repo>{_NAME}/{_NAME})(?:@(?P<revision>[A-Za-z0-9._/-]+))?")


@dataclass(frozen=True)
class Repository:
    """A repository at a revision: a branch, a tag, or a commit; None is the default branch."""

    name: str
    revision: str | None = None
    kind: Literal["model", "dataset"] = "model"

    def __str__(self) -> str:
        return self.name if self.revision is None else f"{self.name}@{self.revision}"

    @property
    def is_pinned(self) -> bool:
        """Whether the revision is a commit, which never changes."""
        return self.revision is not None and COMMIT.fullmatch(self.revision) is not None


def parse_model(name: str) -> Repository | None:
    """Returns the repository that `org/name[@revision]` names; None for text of another form, such as a path."""
    match = _MODEL.fullmatch(name)
    if match is None or name.startswith("runs/"):
        return None
    return Repository(match["repo"], match["revision"])


@cache
def pinned(repository: Repository) -> Repository:
    """Returns the repository with its revision resolved to the current commit; queries the Hub once per process.

    If the Hub cannot be reached, the commit is the last one in the cache. Logs the commit and its source.

    Raises:
        ConfigError: the repository is unknown or gated, the revision does not exist, or the Hub is unreachable and the
            cache has no commit.
    """
    if repository.is_pinned:
        return repository
    import httpx
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import OfflineModeIsEnabled

    where: dict[str, Any] = {"revision": repository.revision, "repo_type": repository.kind}
    with one_line(repository):
        try:
            HfApi().repo_info(repository.name, **where)
            reachable = True
        except (OfflineModeIsEnabled, httpx.TransportError):
            reachable = False
        commit = HfApi().resolve_revision(repository.name, **where, local_files_only=not reachable).resolved
    where_from = (
        constants.ENDPOINT if reachable else f"{constants.HF_HUB_CACHE}, because the Hub is unreachable or disabled"
    )
    logger.info("%s: commit %s, from %s", repository, commit, where_from)
    return replace(repository, revision=commit)


def files_of(repository: Repository) -> list[str]:
    """Lists the paths of the files of a pinned repository.

    Raises:
        ConfigError: see `pinned`.
    """
    import httpx
    from huggingface_hub import HfApi, get_cached_repo_tree, snapshot_download
    from huggingface_hub.errors import CachedRepoTreeNotFoundError, LocalEntryNotFoundError, OfflineModeIsEnabled
    from huggingface_hub.hf_api import RepoFile

    where: dict[str, Any] = {"revision": repository.revision, "repo_type": repository.kind}
    try:
        return [file.path for file in get_cached_repo_tree(repository.name, **where)]
    except CachedRepoTreeNotFoundError:
        pass
    with one_line(repository):
        try:
            tree = HfApi().list_repo_tree(repository.name, recursive=True, **where)
            return [entry.path for entry in tree if isinstance(entry, RepoFile)]
        except (OfflineModeIsEnabled, httpx.TransportError) as error:
            try:  # a copy made by a release of huggingface_hub that did not cache the list
                folder = Path(snapshot_download(repository.name, local_files_only=True, **where))
            except LocalEntryNotFoundError:
                raise error from None
    logger.warning("%s: the cache has no file list; assuming that %s is complete", repository, folder)
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]


def cached(repository: Repository) -> Path | None:
    """Returns a repository's folder in the cache, with the files downloaded so far; None if the cache has none."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    where: dict[str, Any] = {"revision": repository.revision, "repo_type": repository.kind}
    try:
        return Path(snapshot_download(repository.name, local_files_only=True, **where))
    except LocalEntryNotFoundError:
        return None


def download(repository: Repository, files: Sequence[str]) -> Path:
    """Returns the cache folder that has these files of a pinned repository; downloads those that are missing.

    Processes that download the same file wait for one another.

    Raises:
        ConfigError: see `pinned`; or the disk is full.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    where: dict[str, Any] = {
        "revision": repository.revision,
        "repo_type": repository.kind,
        "allow_patterns": [glob.escape(file) for file in files],
    }
    with one_line(repository):
        try:
            folder = Path(snapshot_download(repository.name, local_files_only=True, **where))
            if all((folder / file).is_file() for file in files):
                return folder
        except LocalEntryNotFoundError:
            pass
        logger.info("downloading %d files of %s", len(files), repository)
        return Path(snapshot_download(repository.name, **where))


@contextmanager
def one_line(repository: Repository) -> Iterator[None]:
    """Converts errors that huggingface_hub raises about a repository to a ConfigError with a message of one line."""
    import httpx
    from huggingface_hub import constants, errors

    what = f"{repository.kind} {repository} on {constants.ENDPOINT}"
    try:
        yield
    except errors.GatedRepoError as error:
        raise ConfigError(f"{what}: access is restricted; accept its terms there and set HF_TOKEN") from error
    except errors.RepositoryNotFoundError as error:
        raise ConfigError(
            f"{what}: there is no such repository, and no local folder; check the name, or set HF_TOKEN if it is private"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ConfigError(f"{what}: there is no such revision; name a branch, a tag or a commit") from error
    except (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError, errors.RevisionResolutionError) as error:
        raise _not_here(what, error) from error
    except httpx.TransportError as error:
        raise _not_here(what, error) from error
    except (errors.HfHubHTTPError, errors.HFValidationError, OSError) as error:
        raise ConfigError(f"{what}: {first_line(error)}") from error


def _not_here(what: str, error: Exception) -> ConfigError:
    from huggingface_hub import constants, errors

    if constants.HF_HUB_OFFLINE:
        return ConfigError(
            f"{what}: is not in {constants.HF_HUB_CACHE}, and HF_HUB_OFFLINE is set; unset it to download"
        )
    reason = f" ({first_line(error)})" if not isinstance(error, errors.RevisionResolutionError) else ""
    return ConfigError(
        f"{what}: is neither a local folder nor in {constants.HF_HUB_CACHE}, and the Hub cannot be reached{reason}; check "
        "the path or the network, set HF_ENDPOINT to a mirror, or download it elsewhere and name its folder"
    )
