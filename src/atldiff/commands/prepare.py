"""`atldiff prepare`: a folder of videos becomes training clips, a manifest and a split by people."""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from atldiff.commands.options import EmbedderName, ReportOptions, closest, optional, read
from atldiff.commands.progress import Progress, console, say, write_json
from atldiff.errors import DataError

if TYPE_CHECKING:
    from atldiff.data.manifest import Manifest


def cores() -> int:
    """Return the processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class Prepare:
    """Turn a folder of videos into training clips and a split by people. The same command resumes."""

    folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FOLDER")]
    """Videos, in sub-folders of any depth; the first level is taken as the corpus."""
    output: Annotated[Path | None, optional("OUT", "-o")] = None
    """Folder for the clips; FOLDER-prepared in the current one when left out."""
    workers: int = field(default_factory=cores)
    """Videos worked on at a time; 0 stays in this one Python."""
    identity: Literal["appearance", "face", "folder", "file"] = "appearance"
    """Who is who: by colours, by a face embedder, by the folder a video lies in, or every video its own person."""
    embedder: Annotated[str | None, optional("FILE|HUB_FILE")] = None
    """The face embedder of --identity face (.onnx, .pb)."""
    embedder_kind: EmbedderName = "sface"
    """How that embedder wants its faces cut."""
    train_only: Annotated[tuple[str, ...], optional("NAME")] = ()
    """First-level folders whose people are never held out."""
    report: ReportOptions = field(default_factory=ReportOptions)


def run(args: list[str]) -> int:
    """Run the sub-command; 1 when no clip is usable."""
    options = read(Prepare, "prepare", args)
    if options.workers < 0:
        raise ValueError(f"workers: got {options.workers}, expected 0 or more")
    if (options.identity == "face") != (options.embedder is not None):
        raise ValueError("identity: --identity face and --embedder FILE go together, expected both or neither")
    if not options.folder.is_dir():
        raise DataError(f"folder {options.folder}: not a folder; expected a folder of videos")
    corpora = sorted(path.name for path in options.folder.iterdir() if path.is_dir())
    for name in options.train_only:
        if name not in corpora:
            raise ValueError(f"train-only: {options.folder} has no sub-folder {name!r}; {closest(name, corpora)}")
    out = options.output or Path(f"{options.folder.resolve().name}-prepared")
    if not out.parent.is_dir():
        raise DataError(f"output {out}: folder {out.parent} does not exist: create it or choose another -o")
    if out.exists() and not out.is_dir():
        raise DataError(f"output {out}: got a file, expected a folder")

    embedder = None
    if options.embedder is not None:
        from atldiff.backbones.embedder import KINDS, load

        kind = KINDS[options.embedder_kind]
        embedder = (load(options.embedder, kind), f"{kind.name}-{Path(options.embedder).stem}")

    from atldiff.data.prepare import prepare

    with Progress("preparing", quiet=options.report.quiet) as progress:
        manifest = prepare(
            options.folder,
            out,
            workers=options.workers,
            identity_from=options.identity,
            embedder=embedder,
            train_only=options.train_only,
            progress=progress,
        )
    summary = summarise(manifest)
    if options.report.json:
        write_json({"output": str(out), **summary})
    elif not options.report.quiet:
        _show(summary)
        say(f"{out}: {summary['usable']} of {summary['videos']} videos usable")
    return 0 if summary["usable"] else 1


def summarise(manifest: Manifest) -> dict[str, Any]:
    """Return counts: `videos`, `usable`, `rejected` by reason, and `splits` with clips and people each."""
    rejected: Counter[str] = Counter()
    splits: dict[str, dict[str, int]] = {}
    people: dict[str, set[str]] = {}
    for entry in manifest.entries:
        if entry.record.reason:
            rejected[_group(entry.record.reason, entry.record.path)] += 1
            continue
        split = entry.split.value
        people.setdefault(split, set()).add(entry.identity)
        splits.setdefault(split, {"clips": 0, "people": 0})
        splits[split] = {"clips": splits[split]["clips"] + 1, "people": len(people[split])}
    order = [name for name in ("train", "val", "test") if name in splits]
    return {
        "videos": len(manifest.entries),
        "usable": sum(split["clips"] for split in splits.values()),
        "rejected": dict(rejected.most_common()),
        "splits": {name: splits[name] for name in order},
    }


def _group(reason: str, path: str) -> str:
    """Return a reason without what differs from video to video: its path and its numbers."""
    without_path = re.sub(rf"\S*{re.escape(Path(path).name)}", "VIDEO", reason)
    return re.sub(r"-?\d+(\.\d+)?", "N", without_path)


def _show(summary: dict[str, Any]) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table("", "clips", "people", box=None, pad_edge=False)
    for name, counts in summary["splits"].items():
        table.add_row(name, str(counts["clips"]), str(counts["people"]))
    for reason, count in summary["rejected"].items():
        table.add_row(f"rejected: {escape(reason)}", str(count), "")
    console().print(table)
