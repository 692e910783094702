"""Stages of two methods or trainings side by side: the landmarks of one, the pictures of the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from atldiff.methods.models import FaceRenderer, SpeechGenerator


class Pair(nn.Module):
    """A landmark generator and a renderer of any two models; each keeps its own configuration."""

    def __init__(self, generator: SpeechGenerator, renderer: FaceRenderer) -> None:
        super().__init__()
        self.generator = generator
        self.renderer = renderer
