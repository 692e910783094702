"""ATL-Diff's published Landmark Generation Module with what it hears by; over time it is `speaker.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from atldiff.audio.wav2vec import load_speech_model, new_speech_model, speech_features
from atldiff.methods.atl_published.kflm import KFLM
from atldiff.methods.atl_published.speaker import check_features
from atldiff.timebase import MEL_BANDS
from atldiff.types import POINTS

if TYPE_CHECKING:
    from transformers import Wav2Vec2Model

    from atldiff.config import KFLMConfig


class Columns(nn.Conv1d):
    """Log-mel columns (B, 100, 80) of a second to its feature tokens (B, 49, D)."""

    def __init__(self, width: int) -> None:
        super().__init__(MEL_BANDS, width, 4, stride=2)

    def forward(self, mel: torch.Tensor) -> torch.Tensor:
        """Return the tokens of columns."""
        return super().forward(mel.transpose(1, 2)).transpose(1, 2)


class Features(nn.Module):
    """What a published generator hears by, as a network of its own."""

    def __init__(self, generator: PublishedGenerator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, sound: torch.Tensor) -> torch.Tensor:
        """Return the features of a second, as `PublishedGenerator.features`."""
        return self.generator.features(sound)


class PublishedGenerator(nn.Module):
    """A second of sound and the identity's 68 landmarks to a second of landmarks.

    Buffers, filled by training and shipped with the weights: `basis` (M, 478, 3) and `scale` (M,), so that
    displacements of the dense topology are `coefficients * scale @ basis`.

    A wav2vec 2.0 model that the configuration names is loaded when it is first needed and belongs neither to the
    parameters nor to the state; one that it does not name lies in the checkpoint, as `speech_model`.
    """

    basis: torch.Tensor
    scale: torch.Tensor

    def __init__(self, config: KFLMConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("basis", torch.zeros(config.components, POINTS, 3))
        self.register_buffer("scale", torch.ones(config.components))
        self.kflm = KFLM(config)
        self._named: list[Wav2Vec2Model] = []  # in a list, a module is not registered
        if config.features == "log-mel":
            self.listen = Columns(config.feature_width)
        elif not config.speech_model:
            self.speech_model = new_speech_model()

    def train(self, mode: bool = True) -> PublishedGenerator:
        """Set the mode; a speech model stays in evaluation mode."""
        super().train(mode)
        if "speech_model" in self._modules:
            self.speech_model.eval()
        return self

    def features(self, sound: torch.Tensor) -> torch.Tensor:
        """Return feature tokens (B, 49, D) of a second: log-mel columns (B, 100, 80), or samples (B, 16000) at 16 kHz.

        Which of the two, the configuration says; of wav2vec 2.0 no gradient is kept.

        Raises:
            CheckpointError: the speech model cannot be loaded, or gives tokens of another shape.
        """
        if self.config.features == "log-mel":
            return self.listen(sound)
        features = speech_features(self._speech_model(), sound)
        check_features(features.shape, self.config)
        return features

    def forward(self, sound: torch.Tensor, initial: torch.Tensor, emotion: torch.Tensor) -> torch.Tensor:
        """Return normalised landmarks (B, frames, 68, 2); frame j is at j / frames seconds.

        sound: as in `features`. initial: (B, 68, 2) normalised. emotion: (B,) int64 labels.
        """
        return self.kflm(self.features(sound), initial, emotion)

    def _speech_model(self) -> Wav2Vec2Model:
        if not self.config.speech_model:
            return self.speech_model  # pyright: ignore[reportReturnType]
        if not self._named:
            self._named.append(load_speech_model(self.config.speech_model))
        return self._named[0].to(self.basis.device)  # pyright: ignore[reportArgumentType]
