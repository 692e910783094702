"""`atldiff import-weights`: the authors' published files become a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from atldiff.commands.options import ReportOptions, optional, read
from atldiff.commands.progress import say, waiting, write_json


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportWeights:
    """Convert the weights that the authors of ATL-Diff published into a checkpoint folder. Nothing in them is run."""

    au2lm: Annotated[Path | None, optional("FILE.ckpt")] = None
    """The landmark module: their Lightning checkpoint, or its tensors as .safetensors."""
    lm2face: Annotated[Path | None, optional("FOLDER")] = None
    """The renderer: their folder with unet/ and scheduler/, or one with the files of both at its top."""
    output: Annotated[Path | None, optional("FOLDER", "-o")] = None
    """The checkpoint folder to make."""
    resnet50: Annotated[str | None, optional("FILE|HUB_FILE")] = None
    """ImageNet's ResNet-50 in torchvision's names; timm/resnet50.tv_in1k/model.safetensors from the hub when left
    out."""
    noise_kernel: Annotated[Literal[11, 25], tyro.conf.arg(metavar="11|25")] = 25
    """Side of the Gaussian of the guide noise: 11 for weights trained on MEAD, 25 for CREMA-D."""
    report: ReportOptions = field(default_factory=ReportOptions)


def run(args: list[str]) -> int:
    """Run the sub-command."""
    options = read(ImportWeights, "import-weights", args)
    if options.au2lm is None or options.lm2face is None or options.output is None:
        given = (("--au2lm", options.au2lm), ("--lm2face", options.lm2face), ("-o", options.output))
        missing = " and ".join(name for name, value in given if value is None)
        raise ValueError(
            f"import-weights: got no {missing}, expected all of a checkpoint: "
            "atldiff import-weights --au2lm FILE.ckpt --lm2face FOLDER -o OUT"
        )
    quiet = options.report.quiet
    with waiting("Converting the weights", quiet=quiet):
        from atldiff.released.convert import RESNET50, import_weights

        made = import_weights(
            options.au2lm,
            options.lm2face,
            options.output,
            resnet50=options.resnet50 or RESNET50,
            noise_kernel=options.noise_kernel,
        )
    if options.report.json:
        write_json(made)
    else:
        say(f"{made['checkpoint']}: {made['parameters'] / 1e6:.1f} M parameters imported", quiet=quiet)
    return 0
