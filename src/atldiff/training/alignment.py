"""Sound and mouth of each clip put in step by a trained generator: what a corpus is worth depends on it.

A clip's energy tells little of its lag; a generator trained on the corpora one trusts tells much more, also of corpora
it has never seen. `align` measures every training clip; the next run corrects the lags and takes in what agrees.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from atldiff.data.manifest import Split
from atldiff.data.speech import coefficients, load_speech, said_in
from atldiff.data.sync import best_lag
from atldiff.files import write_text
from atldiff.landmarks.topology import LIP_GAP_PAIRS
from atldiff.methods.models import speaker_of
from atldiff.training.speech_states import hear_clip, predict_heard

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from atldiff.data.manifest import Manifest
    from atldiff.data.speech import ClipSpeech
    from atldiff.landmarks.completion import CompletionGenerator
    from atldiff.landmarks.generator import Generator

FILE_NAME = "alignment.json"
MAX_LAG_FRAMES = 6
MIN_FRAMES = 14


def opening_slopes(generator: Generator | CompletionGenerator) -> np.ndarray:
    """Return the lip opening (M,) that one unit of each coefficient adds, in outer-eye distances."""
    basis = (generator.scale[:, None, None] * generator.basis).detach().cpu().numpy()
    return (basis[:, LIP_GAP_PAIRS[:, 1], 1] - basis[:, LIP_GAP_PAIRS[:, 0], 1]).mean(axis=1)


def measure(generator: Generator | CompletionGenerator, clip: ClipSpeech, said: np.ndarray) -> tuple[float, int]:
    """Return how well a clip's mouth follows its sound by the generator's measure, and the lag at which it does.

    said: (T, M) the coefficients that the generator predicts for the clip.
    """
    slopes = opening_slopes(generator)
    truth = coefficients(clip, generator.basis.cpu().numpy(), generator.scale.cpu().numpy()) @ slopes
    return best_lag(said @ slopes, truth, MAX_LAG_FRAMES, MIN_FRAMES)


def align(
    manifest: Manifest, generator: Generator, progress: Callable[[int, int], None] | None = None
) -> dict[str, tuple[float, int]]:
    """Measure every training clip and write `alignment.json` into the prepared folder: name to (correlation, lag).

    Held-out people are left alone: their figures must not depend on the model they judge.
    """
    entries = manifest.usable(Split.TRAIN)
    measured = {}
    generator.eval()
    speaker = speaker_of(generator)
    for index, entry in enumerate(entries, 1):
        clip = load_speech(manifest, entry)
        if clip is not None:
            if speaker.hear is None:
                said = said_in(speaker, clip)
            else:  # in the states that training has kept, or will find here
                heard = hear_clip(manifest, clip, generator.config, speaker.hear)[0]
                said = predict_heard(generator, speaker.shapes.describe(clip.neutral[None]), clip, heard)
            correlation, lag = measure(generator, clip, said)
            measured[entry.record.name] = (round(correlation, 3), lag)
        if progress:
            progress(index, len(entries))
    write_text(manifest.folder / FILE_NAME, json.dumps(measured, indent=0, sort_keys=True))
    return measured


def load_alignment(folder: Path) -> dict[str, tuple[float, int]] | None:
    """Return what `align` wrote into a prepared folder, or None."""
    path = folder / FILE_NAME
    if not path.is_file():
        return None
    return {name: (float(value[0]), int(value[1])) for name, value in json.loads(path.read_text()).items()}
