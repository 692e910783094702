"""The models of the methods side by side, as PyTorch trains and computes them. One arm a method."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from atldiff.config import ATLConfig, DiffTalkerConfig, LMDiffConfig, PublishedConfig
from atldiff.methods.atl.network import ATLModel, Renderer
from atldiff.methods.atl_published.network import PublishedModel, PublishedRenderer
from atldiff.methods.difftalker.network import DiffTalkerModel, LatentRenderer
from atldiff.methods.lmdiff.network import LMDiffModel, TalkRenderer

if TYPE_CHECKING:
    from atldiff.config import MethodConfig

Model: TypeAlias = ATLModel | PublishedModel | DiffTalkerModel | LMDiffModel
FaceRenderer: TypeAlias = Renderer | PublishedRenderer | LatentRenderer | TalkRenderer


def build(config: MethodConfig) -> Model:
    """Return the model that a configuration describes, with fresh weights."""
    match config:
        case ATLConfig():
            return ATLModel(config)
        case PublishedConfig():
            return PublishedModel(config)
        case DiffTalkerConfig():
            return DiffTalkerModel(config)
        case LMDiffConfig():
            return LMDiffModel(config)
