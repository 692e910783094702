"""The methods side by side, whatever computes their networks: speakers and painters. One arm a method."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias, overload

from atldiff.audio.whisper import Listener
from atldiff.config import (
    CompletionConfig,
    GeneratorConfig,
    IdentityDiffusionConfig,
    KFLMConfig,
    LatentRendererConfig,
    RendererConfig,
    TalkRendererConfig,
)
from atldiff.landmarks.speaker import CompletionSpeaker, GeneratorSpeaker, LandmarkBasis, ShapeBasis
from atldiff.methods.atl.painter import ATLPainter
from atldiff.methods.atl_published.painter import PublishedPainter
from atldiff.methods.atl_published.speaker import PublishedSpeaker
from atldiff.methods.difftalker.painter import DiffTalkerPainter
from atldiff.methods.lmdiff.painter import LMDiffPainter

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy as np

    from atldiff.config import SampleConfig
    from atldiff.networks import Networks
    from atldiff.types import Portrait
    from atldiff.video.patch import Frame
    from atldiff.workers import Workers


AnyRendererConfig: TypeAlias = RendererConfig | IdentityDiffusionConfig | LatentRendererConfig | TalkRendererConfig


class Frames(Protocol):
    """Frames of one portrait, from landmarks pushed in any portions."""

    def push(self, points: np.ndarray, *, more: bool = False) -> Iterator[Frame]:
        """Take landmarks (F, 478, 3) in pixels; yield the frames that are complete.

        more: the next landmarks are at hand, so windows may stay in work meanwhile; their frames come with those.
        """
        ...

    def flush(self) -> Iterator[Frame]:
        """End the stream: yield the frames still missing."""
        ...


class Painter(Protocol):
    """Landmarks to frames: a renderer's networks, and everything around them."""

    networks: Networks
    """What computes, by name."""

    @property
    def config(self) -> AnyRendererConfig:
        """The renderer's configuration."""
        ...

    def open(
        self,
        portrait: Portrait,
        sampling: SampleConfig,
        seed: int,
        emotion: str | None = None,
        workers: Workers | None = None,
        background: np.ndarray | None = None,
    ) -> Frames:
        """Start rendering a portrait; `emotion` reaches renderers that were trained with emotions.

        background: (H, W, 3) uint8 behind a portrait with alpha; without one its frames are (H, W, 4).
        """
        ...


@overload
def open_speaker(
    config: GeneratorConfig, buffers: Mapping[str, np.ndarray], networks: Networks
) -> GeneratorSpeaker: ...
@overload
def open_speaker(
    config: CompletionConfig, buffers: Mapping[str, np.ndarray], networks: Networks
) -> CompletionSpeaker: ...
@overload
def open_speaker(config: KFLMConfig, buffers: Mapping[str, np.ndarray], networks: Networks) -> PublishedSpeaker: ...
def open_speaker(
    config: GeneratorConfig | CompletionConfig | KFLMConfig, buffers: Mapping[str, np.ndarray], networks: Networks
) -> GeneratorSpeaker | CompletionSpeaker | PublishedSpeaker:
    """Return the speaker of a generator's configuration.

    buffers: float32, by their names in the module: `basis` (M, 478, 3), `scale` (M,) and, but for the published one,
    `identity_mean` (478, 3) and `identity_basis` (I, 478, 3). networks: `generator`; what hears for it, `hearing`,
    unless it hears log-mel columns alone or a wav2vec 2.0 model that the configuration names.

    Raises:
        KeyError: a network that is wanted is not there.
    """
    basis = LandmarkBasis.of(buffers)
    if isinstance(config, KFLMConfig):
        hearing = networks.get("hearing")
        if hearing is None and config.features == "wav2vec2" and config.speech_model:
            from atldiff.audio.wav2vec import NamedSpeechModel

            hearing = NamedSpeechModel(config.speech_model)
        return PublishedSpeaker(config, basis, hearing or networks["hearing"], networks["generator"])
    hear = Listener(networks["hearing"]) if config.features == "whisper" else None
    speaker = GeneratorSpeaker if isinstance(config, GeneratorConfig) else CompletionSpeaker
    return speaker(config, basis, ShapeBasis.of(buffers), networks["generator"], hear)  # pyright: ignore[reportArgumentType]


@overload
def open_painter(config: RendererConfig, networks: Networks) -> ATLPainter: ...
@overload
def open_painter(config: IdentityDiffusionConfig, networks: Networks) -> PublishedPainter: ...
@overload
def open_painter(config: LatentRendererConfig, networks: Networks) -> DiffTalkerPainter: ...
@overload
def open_painter(config: TalkRendererConfig, networks: Networks) -> LMDiffPainter: ...
def open_painter(
    config: AnyRendererConfig, networks: Networks
) -> ATLPainter | PublishedPainter | DiffTalkerPainter | LMDiffPainter:
    """Return the painter of a renderer's configuration.

    networks: of atl-diff `denoiser`; of the latent renderers `encode`, `decode`, `steer` and `denoiser`; of the
    published one `describe` and `denoiser`.

    Raises:
        KeyError: a network that is wanted is not there.
    """
    match config:
        case RendererConfig():
            return ATLPainter(config, networks)
        case IdentityDiffusionConfig():
            return PublishedPainter(config, networks)
        case LatentRendererConfig():
            return DiffTalkerPainter(config, networks)
        case TalkRendererConfig():
            return LMDiffPainter(config, networks)


def paints_whole_faces(config: AnyRendererConfig) -> bool:
    """Return whether a renderer paints whole faces after one picture, and with an emotion: the published one."""
    return isinstance(config, IdentityDiffusionConfig)
