"""The measures of mouths: every row's first minute is cut to the mouth, at the real clip's resolution, and measured."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from atldiff.evaluation.metrics import mouth
from atldiff.evaluation.metrics.mouth_crop import crop_side, cut_mouths
from atldiff.evaluation.metrics.teeth import cavity_jitter, teeth_slide
from atldiff.evaluation.protocol import MOUTH_FRAMES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from atldiff.backbones.alexnet import LpipsAlexNet
    from atldiff.evaluation.footage import Footage
    from atldiff.evaluation.metrics.mouth_crop import Mouths
    from atldiff.evaluation.pictures import Values


def mouth_values(
    real: Footage, rows: Mapping[str, Footage], network: LpipsAlexNet | None, *, paired: bool
) -> dict[str, Values]:
    """Return each row's figures of mouths.

    real, rows, paired: as in `measure_clip`, rows that ended early standing still. network: None leaves out what it is
    needed for. Frames that stand for missing ones count where they are an error alone.
    """
    side = crop_side(real.filled[real.found])
    truth = _cut(real, side)
    features = None if network is None else mouth.open_features(truth, network)
    values: dict[str, Values] = {}
    for name, row in rows.items():
        shown = truth if row is real else _cut(row, side)
        own = shown.first(row.own)
        found: Values = {
            "mouth_sharpness": mouth.sharpness(own, truth),
            "teeth_slide": teeth_slide(own),
            "cavity_jitter": cavity_jitter(own),
        }
        if paired:
            frames = min(len(shown), len(truth))
            shown, wanted = shown.first(frames), truth.first(frames)
            found["seam_brightness"] = mouth.seam_brightness(shown, wanted.shut)
            if network is not None:
                found["mouth_lpips"] = mouth.mouth_lpips(shown, wanted, network)
        else:
            found["seam_brightness"] = mouth.seam_brightness(own)
        if network is not None and features is not None:
            of_row = features if own is truth else mouth.open_features(own, network)
            found["mouth_realism"] = mouth.realism(of_row, features)
        values[name] = found
    return values


def _cut(footage: Footage, side: int) -> Mouths:
    return cut_mouths(islice(footage.frames(), MOUTH_FRAMES), footage.filled, side, footage.found)
