"""`atldiff prepare`: a folder of videos becomes training clips and a manifest, some people or clips held out."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from atldiff.commands.options import EmbedderName, ReportOptions, closest, optional, read
from atldiff.commands.progress import Progress, console, say, write_json
from atldiff.data.sources import SOURCES
from atldiff.errors import DataError
from atldiff.machine import cores

if TYPE_CHECKING:
    from atldiff.data.manifest import Manifest
    from atldiff.data.sources import Source


@dataclass(frozen=True, slots=True)
class Prepare:
    """Turn a corpus or any folder of videos into training clips, some held out. The same command resumes.

    SOURCE is whose layout the folder has: mead, crema-d, grid or hdtf; folder, any tree of videos whose first level is
    taken as the corpora, when left out.
    """

    where: Annotated[tuple[str, ...], tyro.conf.Positional, optional("[SOURCE] FOLDER")] = ()
    """The corpus it is, and where it lies."""
    output: Annotated[Path | None, optional("OUT", "-o")] = None
    """Folder for the clips; FOLDER-prepared in the current one when left out."""
    workers: int | Literal["ray"] = field(default_factory=cores)
    """Videos worked on at a time, 0 stays in this one Python; ray takes the cluster of RAY_ADDRESS, or starts one."""
    identity: Literal["speaker", "appearance", "face", "folder", "file"] = "speaker"
    """Who is who: by the source's own word and else by colours; by colours, by a face embedder, by the folder a video
    lies in, or every video its own person."""
    embedder: Annotated[str | None, optional("FILE|HUB_FILE")] = None
    """The face embedder of --identity face (.onnx; .pb with OpenCV 5.0)."""
    embedder_kind: EmbedderName = "sface"
    """How that embedder wants its faces cut."""
    train_only: Annotated[tuple[str, ...], optional("NAME")] = ()
    """First-level folders whose people are never held out."""
    hold_out: Literal["people", "clips"] = "people"
    """What tests (a fifth) and validates (a twelfth): whole people, of five or more; or some of each person's clips,
    for footage of one person, and of a long recording, which is cut into parts of about 10 s, its end."""
    report: ReportOptions = field(default_factory=ReportOptions)


def run(args: list[str]) -> int:
    """Run the sub-command; 1 when no clip is usable."""
    options = read(Prepare, "prepare", args)
    source, folder = _source(options.where)
    if options.workers != "ray" and options.workers < 0:
        raise ValueError(f"workers: got {options.workers}, expected 0 or more, or ray")
    if (options.identity == "face") != (options.embedder is not None):
        raise ValueError("identity: --identity face and --embedder FILE go together, expected both or neither")
    if source.test_speakers and options.identity != "speaker":
        raise ValueError(
            f"identity: {source.name} names its speakers and who of them is held out; got {options.identity}, expected "
            "speaker"
        )
    if not folder.is_dir():
        raise DataError(f"folder {folder}: not a folder; expected a folder of videos")
    if options.train_only and source.name != "folder":
        raise ValueError(f"train-only: names corpora of a folder of several; {source.name} is one corpus: leave it out")
    corpora = sorted(path.name for path in folder.iterdir() if path.is_dir())
    for name in options.train_only:
        if name not in corpora:
            raise ValueError(f"train-only: {folder} has no sub-folder {name!r}; {closest(name, corpora)}")
    out = options.output or Path(f"{folder.resolve().name}-prepared")
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
            folder,
            out,
            source=source,
            workers=options.workers,
            identity_from=options.identity,
            embedder=embedder,
            train_only=options.train_only,
            hold_out=options.hold_out,
            progress=progress,
        )
    summary = summarise(manifest)
    if options.report.json:
        write_json({"output": str(out), **summary})
    elif not options.report.quiet:
        _show(summary)
        what = "clips" if options.hold_out == "clips" else "videos"  # of a long video there are several
        say(f"{out}: {summary['usable']} of {summary['videos']} {what} usable")
    return 0 if summary["usable"] else 1


def _source(where: tuple[str, ...]) -> tuple[Source, Path]:
    """Return the source and the folder of `[SOURCE] FOLDER`."""
    known = {source.name: source for source in SOURCES}
    if not 1 <= len(where) <= 2:
        raise ValueError(f"folder: got {len(where)} arguments, expected [SOURCE] FOLDER such as mead /data/MEAD")
    name = "folder" if len(where) == 1 else where[0].lower().replace("_", "-")
    if name not in known:
        raise ValueError(f"source: got {where[0]!r}; {closest(name, known)}")
    folder = Path(where[-1])
    if len(where) == 1 and where[0] in known and not folder.is_dir():
        raise ValueError(f"folder: got only the source {where[0]}, expected {where[0]} FOLDER")
    return known[name], folder


def summarise(manifest: Manifest) -> dict[str, Any]:
    """Return counts: `videos`, `usable`, `noted` and `rejected` by reason, and `splits` with clips and people each."""
    rejected: Counter[str] = Counter()
    noted: Counter[str] = Counter()
    splits: dict[str, dict[str, int]] = {}
    people: dict[str, set[str]] = {}
    for entry in manifest.entries:
        if entry.record.reason:
            rejected[_group(entry.record.reason, entry.record.path)] += 1
            continue
        if entry.record.note:
            noted[entry.record.note] += 1
        split = entry.split.value
        people.setdefault(split, set()).add(entry.identity)
        splits.setdefault(split, {"clips": 0, "people": 0})
        splits[split] = {"clips": splits[split]["clips"] + 1, "people": len(people[split])}
    order = [name for name in ("train", "val", "test") if name in splits]
    return {
        "videos": len(manifest.entries),
        "usable": sum(split["clips"] for split in splits.values()),
        "noted": dict(noted.most_common()),
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
    for note, count in summary["noted"].items():
        table.add_row(f"of these {escape(note)}", str(count), "")
    for reason, count in summary["rejected"].items():
        table.add_row(f"rejected: {escape(reason)}", str(count), "")
    console().print(table)
