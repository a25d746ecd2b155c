"""Files to a repository of a Hugging Face hub, by its own client (extra ``hub``), in one commit."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launch.base.errors import InputError
from launch.inputs import hub

_OURS = re.compile(r"model(?:-\d+-of-\d+)?\.safetensors(?:\.index\.json)?|[^/]+\.gguf")
"""Weights that an export writes: those of before are removed, where this one has none of the name."""


@dataclass(frozen=True)
class Pushed:
    """What came of it. ``endpoint``: the hub."""

    repo: str
    endpoint: str
    commit: str
    private: bool
    removed: tuple[str, ...]


def endpoint() -> str:
    """The hub that would be asked."""
    return str(hub.client().HfApi(endpoint=hub.endpoint()).endpoint)


def push(repo: str, files: Mapping[str, Path | bytes], message: str, public: bool = False) -> Pushed:
    """Commit ``files`` to a repository, which is made where there is none: private, unless ``public``.

    Raises:
        InputError: the repository is public already, or there is no access to it.
        DownloadFailed: no response from the hub.
    """
    client = hub.client()
    api = client.HfApi(endpoint=hub.endpoint())
    try:
        known = private = _private(client, api, repo)
        client.utils.disable_progress_bars()
        if known is None:
            api.create_repo(repo, private=not public, exist_ok=True)
            private = _private(client, api, repo)
        if not private and not public:  # there before, or made so by this hub
            raise InputError(f"{repo} is public on {api.endpoint}", hint="--public, or another name")
        stale = [] if known is None else [one for one in _names(client, api, repo) if _OURS.fullmatch(one)]
        removed = tuple(one for one in stale if one not in files)
        operations = [client.CommitOperationDelete(path_in_repo=one) for one in removed]
        operations += [
            client.CommitOperationAdd(
                path_in_repo=name, path_or_fileobj=content if isinstance(content, bytes) else str(content)
            )
            for name, content in files.items()
        ]
        made = api.create_commit(repo, operations, commit_message=message)
    except Exception as error:
        hub.explain(_without_token(error, client), repo, None)
    return Pushed(repo, str(api.endpoint), str(made.oid), bool(private), removed)


def _private(client: Any, api: Any, repo: str) -> bool | None:
    """Whether a repository is private; None: there is none."""
    try:
        return bool(api.repo_info(repo, timeout=30).private)
    except client.errors.RepositoryNotFoundError:
        return None


def _names(client: Any, api: Any, repo: str) -> list[str]:
    """Files of a repository; none where it has been made and nothing was ever committed to it."""
    try:
        return list(api.list_repo_files(repo))
    except (client.errors.RepositoryNotFoundError, client.errors.RevisionNotFoundError):
        return []


def _without_token(error: Exception, client: Any) -> Exception:
    """``error``, in whose words the token does not stand."""
    token = client.get_token()
    if token:
        error.args = tuple(one.replace(token, "***") if isinstance(one, str) else one for one in error.args)
    return error
