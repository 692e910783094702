"""`atldiff evaluate`: the figures of a checkpoint on people it was not trained on."""

from __future__ import annotations

import json as json_module
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from atldiff.commands import door
from atldiff.commands.options import LogOptions, optional, read
from atldiff.commands.report import Progress, console


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluate:
    """Measure a checkpoint on the clips of a split: mouth error of the renderer, lips of the generator."""

    data: Annotated[Path, tyro.conf.arg(metavar="PREPARED")]
    """Folder made by `atldiff prepare`."""
    checkpoint: Annotated[str, tyro.conf.arg(metavar="NAME|FOLDER")] = "atl-diff"
    """A checkpoint folder, a bundled name or a hub id."""
    split: Literal["test", "val"] = "test"
    """Which of the people held out."""
    json: Annotated[Path | None, optional("FILE.json")] = None
    """Also write the figures, those of every clip among them, to this file."""
    report: LogOptions = field(default_factory=LogOptions)


def run(args: list[str]) -> int:
    """Run the sub-command."""
    options = read(Evaluate, "evaluate", args)
    if options.json is not None:
        door.check_file_target(options.json, ".json")

    from atldiff.data.manifest import Manifest

    Manifest.load(options.data)  # before torch, which the next import brings along

    from atldiff.evaluation.run import evaluate

    with Progress("evaluating", quiet=options.report.quiet) as progress:
        result = evaluate(options.checkpoint, options.data, options.split, progress=progress)
    if options.json is not None:
        target = options.json
        temporary = target.with_name(f".{target.name}.partial")
        temporary.write_text(json_module.dumps(result, indent=2) + "\n", encoding="utf-8")
        temporary.replace(target)
    _show(result["table"], f"{options.checkpoint} on {options.data}, {options.split}")
    return 0


def _show(rows: list[dict[str, Any]], title: str) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, title=escape(title), title_justify="left")
    for name in rows[0] if rows else ():
        table.add_column(name, justify="right" if isinstance(rows[0][name], int | float) else "left")
    for row in rows:
        table.add_row(*(f"{v:.3f}" if isinstance(v, float) else escape(str(v)) for v in row.values()))
    console().print(table)
