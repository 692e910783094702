"""`atldiff align`: the lag between sound and lips of prepared clips, measured by a trained generator."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from atldiff.commands.options import ReportOptions, read
from atldiff.commands.progress import Progress, say, write_json


@dataclass(frozen=True, slots=True, kw_only=True)
class Align:
    """Measure the lag between sound and lips of every training clip; the next training of the generator uses it."""

    data: Annotated[Path, tyro.conf.arg(metavar="PREPARED")]
    """Folder made by `atldiff prepare`; the measures are kept in it."""
    checkpoint: Annotated[str, tyro.conf.arg(metavar="NAME|FOLDER")] = "atl-diff"
    """The checkpoint whose generator measures: a folder, a bundled name or a hub id."""
    report: ReportOptions = field(default_factory=ReportOptions)


def run(args: list[str]) -> int:
    """Run the sub-command."""
    options = read(Align, "align", args)

    from atldiff.data.manifest import Manifest

    Manifest.load(options.data)  # before torch, which the next import brings along

    from atldiff.training.run import align_data

    with Progress("aligning", quiet=options.report.quiet) as progress:
        measured = align_data(options.checkpoint, options.data, progress=progress)
    shifted = sum(lag != 0 for _, lag in measured.values())
    if options.report.json:
        write_json({"data": str(options.data), "clips": len(measured), "shifted": shifted})
    else:
        say(f"{options.data}: {len(measured)} clips measured, {shifted} with a lag", quiet=options.report.quiet)
    return 0
