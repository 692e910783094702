"""The manifest of a prepared folder: one JSON line a raw video, with its verdict, identity and split."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from atldiff.data.clip import ClipRecord
from atldiff.errors import DataError
from atldiff.files import write_text

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

FILE_NAME = "manifest.jsonl"
HELD_OUT_SHARE = {"val": 0.08, "test": 0.2}
"""Share of each source's identities kept out of training, at least one of each where a source has five or more."""
FEWEST_PEOPLE = 5
SOURCE_FILE = "source.json"
"""Beside the manifest: where the raw videos were, for whoever needs more of them than was kept."""


class Split(str, Enum):
    """Where an identity belongs; `NONE` is for rejected videos."""

    TRAIN = "train"
    VAL = "val"
    TEST = "test"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class ManifestEntry:
    """One raw video of a prepared folder."""

    record: ClipRecord
    identity: str
    """The person, unique over sources; empty for rejected videos."""
    split: Split


@dataclass(frozen=True, slots=True)
class Manifest:
    """Every video of a prepared folder, in the order of their names."""

    entries: tuple[ManifestEntry, ...]
    folder: Path

    def usable(self, split: Split) -> list[ManifestEntry]:
        """Return the usable clips of a split."""
        return [entry for entry in self.entries if entry.split is split and not entry.record.reason]

    def tensors(self, entry: ManifestEntry) -> Path:
        """Return the file with an entry's tensors."""
        return self.clip_file(entry.record.name)

    def clip_file(self, name: str) -> Path:
        """Return the file with the tensors of a clip, by its name."""
        return self.folder / "clips" / f"{name}.safetensors"

    def save(self) -> None:
        """Write `manifest.jsonl`, unless it already says the same."""
        lines = []
        for entry in self.entries:
            fields = {"identity": entry.identity, "split": entry.split.value}
            lines.append(json.dumps({**asdict(entry.record), **fields}, sort_keys=True))
        write_changed(self.folder / FILE_NAME, "\n".join(lines) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Manifest:
        """Read the manifest of a prepared folder.

        Raises:
            DataError: there is none, or it is not ours.
        """
        path = folder / FILE_NAME
        if not path.is_file():
            raise DataError(f"data {folder}: no {FILE_NAME}; expected a folder made by `atldiff prepare`")
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: not a text file ({error.reason}); run `atldiff prepare` again") from None
        entries = []
        for number, line in enumerate(lines, 1):
            try:
                fields = json.loads(line)
                identity, split = fields.pop("identity"), fields.pop("split")
                entries.append(ManifestEntry(ClipRecord(**fields), identity, Split(split)))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise DataError(f"{path} line {number}: {error}; run `atldiff prepare` again") from None
        return cls(entries=tuple(entries), folder=folder)


def write_changed(path: Path, text: str) -> None:
    """Write a text file unless it holds that text: what is up to date keeps its time."""
    if not path.is_file() or path.read_bytes() != text.encode():
        write_text(path, text)


def source_of(prepared: Path) -> Path:
    """Return the folder of raw videos that a prepared folder was made from.

    Raises:
        DataError: it does not say.
    """
    path = prepared / SOURCE_FILE
    try:
        return Path(json.loads(path.read_text(encoding="utf-8"))["folder"])
    except (OSError, ValueError, KeyError, TypeError):
        raise DataError(
            f"data {prepared}: no readable {SOURCE_FILE}, so the raw videos are not known; name their folder with "
            "--source, or run `atldiff prepare` again"
        ) from None


def split_speakers(identities: Iterable[str], test: Collection[str], validation: Collection[str]) -> dict[str, Split]:
    """Return the split of each identity where a corpus's held-out people are written down: all others train."""
    return {
        person: Split.TEST if person in test else Split.VAL if person in validation else Split.TRAIN
        for person in identities
    }


def split_identities(
    records: Sequence[ClipRecord], identities: Mapping[str, str], train_only: Collection[str] = ()
) -> dict[str, Split]:
    """Return the split of each identity: whole people, by the hash of their names, balanced within each source.

    records: usable clips. identities: clip name to identity. train_only: sources that are not held out. A person who
    is more than a fiftieth of a large source is too much of its data to hold out, and one who is seen in several
    sources is no source's own. The result depends on nothing but names.
    """
    by_source: dict[str, dict[str, int]] = {}
    for record in records:
        people = by_source.setdefault(record.source, {})
        person = identities[record.name]
        people[person] = people.get(person, 0) + 1
    seen_in: dict[str, int] = {}
    for people in by_source.values():
        for person in people:
            seen_in[person] = seen_in.get(person, 0) + 1
    splits: dict[str, Split] = {}
    for source, people in by_source.items():
        clips = sum(people.values())
        most = max(6, clips / 50)
        own = [person for person, count in people.items() if count <= most and seen_in[person] == 1]
        eligible = [] if source in train_only else own
        eligible.sort(key=lambda person: hashlib.sha256(person.encode()).hexdigest())
        at_least = 1 if len(people) >= FEWEST_PEOPLE else 0
        test = max(at_least, round(HELD_OUT_SHARE["test"] * len(eligible)))
        val = max(at_least, round(HELD_OUT_SHARE["val"] * len(eligible)))
        for index, person in enumerate(eligible[: test + val]):
            splits[person] = Split.TEST if index < test else Split.VAL
        for person in people:
            splits.setdefault(person, Split.TRAIN)
    return splits
