"""Files from the Hugging Face hub: by huggingface_hub, which the extra `hub` brings."""

from __future__ import annotations

import re
from pathlib import Path

from atldiff.errors import CheckpointError

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


class HubError(Exception):
    """A file that the hub did not give; the message is the reason, in one line."""


def fetch_folder(hub_id: str, what: str, patterns: list[str], revision: str | None = None) -> Path:
    """Return the local folder of a repository's files whose names fit `patterns`, fetched where they are not at hand.

    what: what is asked for, as errors name it, with the hub id.

    Raises:
        CheckpointError: huggingface_hub is missing. HubError: the hub did not give them.
    """
    _check_package(what)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=patterns))
    except Exception as error:  # the hub's errors have many classes; the user needs one line
        raise HubError(_first_line(error)) from None


def fetch_file(hub_id: str, what: str, file: str, revision: str | None = None) -> Path:
    """Return the local path of one file of a repository; otherwise as `fetch_folder`."""
    _check_package(what)
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(hub_id, file, revision=revision))
    except Exception as error:  # as above
        raise HubError(_first_line(error)) from None


def _check_package(what: str) -> None:
    try:
        import huggingface_hub  # noqa: F401 - asked for once, so that what follows may rely on it
    except ImportError:
        raise CheckpointError(
            f"{what}: nothing of this name here, and no huggingface_hub to fetch it with; expected a path, or a hub id "
            "and that package: pip install 'atldiff[hub]'"
        ) from None


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0] if str(error).strip() else type(error).__name__
