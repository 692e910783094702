"""Some of each person's clips held out, where whole people cannot be: one person's own footage, above all."""

from __future__ import annotations

import hashlib
import shlex
from typing import TYPE_CHECKING

from atldiff.data.manifest import FEWEST_PEOPLE, HELD_OUT_SHARE, Split, source_of
from atldiff.data.parts import LONG_FRAMES, SHORTEST_CUT_FRAMES
from atldiff.errors import DataError
from atldiff.timebase import FPS

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from atldiff.data.clip import ClipRecord
    from atldiff.data.manifest import Manifest

    Recording = list[ClipRecord]

FEWEST_RECORDINGS = 3
"""As many can be held out whole: one for testing, one for validation."""


def split_clips(
    records: Sequence[ClipRecord], identities: Mapping[str, str], train_only: Collection[str] = ()
) -> dict[str, Split]:
    """Return the split of each clip by its name: whole recordings of a person, and the ends of long ones.

    records: usable clips. identities: clip name to identity. train_only: sources that are not held out.

    Of a recording of a minute or more, in parts (`parts.in_parts`), the last fifth tests and a twelfth before it
    validates. Others are held out whole, in the same shares and at least one of each, by the hash of their paths:
    among those of each person who has three, and else among those of all such people of a source. Where there are but
    one or two in all, each gives its own end if it has three parts; if none has, the last of the two tests. So no
    moment of a recording is on two sides. The result depends on names and on which parts are usable.
    """
    splits = {record.name: Split.TRAIN for record in records}
    sources: dict[str, dict[str, Recording]] = {}
    for record in sorted(records, key=lambda record: (record.path, record.part_start)):
        if record.source not in train_only:
            sources.setdefault(record.source, {}).setdefault(record.path, []).append(record)
    for recordings in sources.values():
        own: dict[str, list[Recording]] = {}
        for parts in recordings.values():
            if parts[-1].part_stop >= LONG_FRAMES and len(parts) >= FEWEST_RECORDINGS:
                splits |= _ends([[part] for part in parts])
            else:
                own.setdefault(identities[parts[0].name], []).append(parts)
        few: list[Recording] = []
        for theirs in own.values():
            if len(theirs) >= FEWEST_RECORDINGS:
                splits |= _ends(_by_hash(theirs))
            else:
                few += theirs
        if len(few) >= FEWEST_RECORDINGS:
            splits |= _ends(_by_hash(few))
        elif len(few) == len(recordings):  # there is nothing else to hold out
            cuttable = [parts for parts in few if len(parts) >= FEWEST_RECORDINGS]
            for parts in cuttable:
                splits |= _ends([[part] for part in parts])
            if not cuttable:
                splits |= _ends(_by_hash(few) if len(few) == 2 else [[part] for part in few[0]])
    return splits


def _ends(units: Sequence[Recording]) -> dict[str, Split]:
    """Return the splits of what stays together: the last units test, some before them validate, the others train."""
    test, val = (max(1, round(HELD_OUT_SHARE[split] * len(units))) for split in ("test", "val"))
    if len(units) < FEWEST_RECORDINGS:
        test, val = len(units) - 1, 0
    sides = [Split.TRAIN] * (len(units) - test - val) + [Split.VAL] * val + [Split.TEST] * test
    return {clip.name: side for unit, side in zip(units, sides, strict=True) for clip in unit}


def _by_hash(recordings: list[Recording]) -> list[Recording]:
    return sorted(recordings, key=lambda parts: hashlib.sha256(parts[0].path.encode()).hexdigest())


def what_is_missing(manifest: Manifest, *, by_clips: bool) -> str:
    """Return in one line why nothing is held out, or nothing to validate on, and what to do; empty where all is well.

    by_clips: clips were to be held out, and not people.
    """
    clips, tested, validated = (len(manifest.usable(split)) for split in (Split.TRAIN, Split.TEST, Split.VAL))
    if not clips or validated or (tested and not by_clips):
        return ""
    what = "nothing is held out for val" if tested else "nothing is held out"
    if not by_clips:
        return f"{what}: {_people(manifest)}; use --hold-out clips"
    got = "one clip" if clips + tested == 1 else f"{clips + tested} clips"
    return f"{what}: got {got}, expected three or more, or one of {SHORTEST_CUT_FRAMES // FPS} s or more"


def why_empty(manifest: Manifest) -> str:
    """Return why a split has no clip, and the command that gives it some."""
    try:
        folder = str(source_of(manifest.folder))
    except DataError:
        folder = "FOLDER"
    corpus = next((entry.record.corpus for entry in manifest.entries), "")
    words = ["atldiff", "prepare", *([corpus] if corpus else []), folder, "-o", str(manifest.folder)]
    return f"{_people(manifest)}; run `{shlex.join(words)} --hold-out clips`"


def _people(manifest: Manifest) -> str:
    people = len({entry.identity for entry in manifest.entries if not entry.record.reason})
    if people == 1:
        return "one person"
    return f"{people} people" + (f", fewer than {FEWEST_PEOPLE}" if people < FEWEST_PEOPLE else "")
