"""Names of the authors' tensors and of ours: whole prefixes are exchanged, what follows them is the same."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from atldiff.errors import CheckpointError

if TYPE_CHECKING:
    import torch

LISTED = 20
"""Names that an error line holds; all of them are logged, one a line, with `--verbose`."""

_logger = logging.getLogger(__name__)


def rename(name: str, table: Mapping[str, str]) -> str | None:
    """Return a name with the first matching prefix of a table exchanged, or None where none matches."""
    for theirs, ours in table.items():
        if name.startswith(theirs):
            return ours + name[len(theirs) :]
    return None


def rename_all(
    tensors: Mapping[str, torch.Tensor], table: Mapping[str, str]
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Return the tensors that a table knows under their new names, and the names that it does not know."""
    renamed, unknown = {}, []
    for name, tensor in tensors.items():
        new = rename(name, table)
        if new is None:
            unknown.append(name)
        else:
            renamed[new] = tensor
    return renamed, unknown


def reversed_table(table: Mapping[str, str]) -> dict[str, str]:
    """Return the table that leads back; of several old prefixes with one new one the first is taken."""
    back: dict[str, str] = {}
    for theirs, ours in table.items():
        back.setdefault(ours, theirs)
    return back


def check_tensors(
    where: str,
    tensors: Mapping[str, torch.Tensor],
    wanted: Mapping[str, tuple[int, ...]],
    *,
    unknown: Iterable[str] = (),
    original: Callable[[str], str] = str,
) -> None:
    """Raise unless there are exactly the wanted tensors, of their shapes, all finite.

    Args:
        where: what the error names, e.g. the kind of weights and their file.
        tensors: by our names.
        wanted: shapes by our names.
        unknown: the authors' names that no table knew.
        original: our name to the authors', under which errors name a tensor.

    Raises:
        CheckpointError: missing and unknown tensors are all named (up to 20 of each in the line), or the first of a
            wrong shape, or one with NaN or infinity.
    """
    missing = sorted(original(name) for name in wanted.keys() - tensors.keys())
    extra = sorted([*unknown, *(original(name) for name in tensors.keys() - wanted.keys())])
    faults = [f"{kind} {_listed(names)}" for kind, names in (("missing", missing), ("unknown", extra)) if names]
    if faults:
        for kind, names in (("missing", missing), ("unknown", extra)):
            for name in names:
                _logger.debug("%s: %s tensor %s", where, kind, name)
        raise CheckpointError(f"{where}: {'; '.join(faults)}; expected exactly the {len(wanted)} published tensors")
    for name, shape in wanted.items():
        if tuple(tensors[name].shape) != tuple(shape):
            raise CheckpointError(
                f"{where}: tensor {original(name)} has shape {tuple(tensors[name].shape)}, expected {tuple(shape)}; "
                "weights of another version?"
            )
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise CheckpointError(f"{where}: tensor {original(name)} holds NaN or infinity; the file is damaged")


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:LISTED])
    rest = ", ... (--verbose lists all)" if len(names) > LISTED else ""
    return f"tensor{'s' if len(names) > 1 else ''} {shown}{rest} ({len(names)} in all)"
