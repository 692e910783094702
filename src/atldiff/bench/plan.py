"""What is to be measured: variants (a checkpoint on a backend, with a preset at a size), of what, how often."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from atldiff.config import Preset, SampleConfig
    from atldiff.pipeline import TalkingHead

BASE = "base"
"""The name of the variant that the others are compared with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One set of options; every field but `name` as on the command line of `atldiff generate`."""

    name: str = BASE
    checkpoint: str = "atl-diff"
    generator: str | None = None
    renderer: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    backend: str = "auto"
    preset: Preset = "balanced"
    steps: int | None = None
    size: int | None = None

    def open(self) -> TalkingHead:
        """Load it.

        Raises:
            CheckpointError: not a checkpoint of ours. ValueError: a device that is not there.
        """
        from atldiff.pipeline import TalkingHead

        return TalkingHead.from_pretrained(
            self.checkpoint,
            generator=self.generator,
            renderer=self.renderer,
            device=self.device,
            dtype=self.dtype,
            backend=self.backend,
        )

    def sampling(self, head: TalkingHead) -> SampleConfig:
        """Return the head's preset with the steps that were asked for."""
        chosen = head.sampling(self.preset)
        return chosen if self.steps is None else replace(chosen, steps=self.steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be measured.

    audio: None for made-up sound. seconds: the sound is cut or repeated to that. lengths, jobs: of the base only.
    """

    variants: tuple[Variant, ...]
    portrait: Path
    audio: Path | None = None
    seconds: float = 10.0
    runs: int = 5
    lengths: tuple[float, ...] = ()
    jobs: tuple[int, ...] = ()

    @property
    def parts(self) -> int:
        """How many parts of the work progress counts."""
        return len(self.variants) * (1 + 4 * self.runs) + len(self.lengths) + 2 * len(self.jobs)
