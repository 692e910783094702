"""`atldiff export`: a checkpoint folder whose networks run in ONNX Runtime and OpenVINO."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from atldiff.commands.options import ReportOptions, optional, read
from atldiff.commands.progress import say, waiting, write_json
from atldiff.config import Bundled


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """Write a checkpoint folder whose networks need no PyTorch, or nothing where they differ from it."""

    folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DIR")]
    """The checkpoint folder to make; an earlier export is replaced."""
    method: Bundled = "atl-diff"
    """Bundled weights to export."""
    weights: Annotated[str | None, optional("FOLDER|HUB_ID")] = None
    """Other weights: a checkpoint folder or a hub id such as owner/name. Goes before --method."""
    int8: bool = False
    """Write the denoiser in 8 bits as well, calibrated on the bundled portrait: half of its time in ONNX Runtime."""
    report: ReportOptions = field(default_factory=ReportOptions)


def run(args: list[str]) -> int:
    """Run the sub-command."""
    options = read(Export, "export", args)
    quiet = options.report.quiet
    with waiting("Exporting the networks", quiet=quiet):
        from atldiff.checkpoint import locate
        from atldiff.export.publish import export_checkpoint

        graphs = export_checkpoint(locate(options.weights or options.method), options.folder, int8=options.int8)
    if options.report.json:
        write_json({"folder": str(graphs.folder), **graphs.as_dict()})
        return 0
    worst = ", ".join(
        f"{name} {max(found['relative'] for found in kinds.values()):.1g}" for name, kinds in graphs.parity.items()
    )
    what = "its denoiser in 8 bits as well; " if graphs.int8 else ""
    say(f"{graphs.folder}: {what}largest relative difference from PyTorch: {worst}", quiet=quiet)
    return 0
