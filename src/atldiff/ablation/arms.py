"""The arms of the ablation: what lies under the noise, and where the noise is; everything else is the same."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from atldiff.config import PublishedConfig, method_of

if TYPE_CHECKING:
    from atldiff.config import IdentityDiffusionConfig, TrainConfig

SAMPLING_STEPS = (1, 2, 4, 8)
"""Network evaluations a frame that every arm is measured at; the published number is the last."""


@dataclass(frozen=True, slots=True)
class Arm:
    """One of the renderers that are compared.

    name: of its folder and its rows. title: for the table. heading: two short lines for the pictures.
    """

    name: str
    title: str
    heading: tuple[str, str]
    prior: Literal["identity", "warped"]
    noise: Literal["guided", "uniform"]

    def renderer(self, base: IdentityDiffusionConfig) -> IdentityDiffusionConfig:
        """Return the arm's renderer: the base with this prior and this noise."""
        return replace(base, prior=self.prior, noise=self.noise)

    def training(self, base: TrainConfig) -> TrainConfig:
        """Return the arm's training run: the same data order, noise, first weights and budget for every arm."""
        assert isinstance(base.model, PublishedConfig)  # noqa: S101 - for the type checker: `check_base` has seen to it
        return replace(base, model=replace(base.model, renderer=self.renderer(base.model.renderer)))


PUBLISHED = Arm(
    "identity-guided", "unmoved identity, guided noise (published)", ("unmoved", "guided"), "identity", "guided"
)
ARMS = (
    PUBLISHED,
    Arm("identity-uniform", "unmoved identity, uniform noise", ("unmoved", "uniform"), "identity", "uniform"),
    Arm("warped-guided", "landmark-warped identity, guided noise", ("warped", "guided"), "warped", "guided"),
    Arm("warped-uniform", "landmark-warped identity, uniform noise", ("warped", "uniform"), "warped", "uniform"),
)


def check_base(base: TrainConfig) -> IdentityDiffusionConfig:
    """Return the renderer that the arms are variants of.

    Raises:
        ValueError: the run trains something else than the published renderer.
    """
    if base.stage != "renderer" or not isinstance(base.model, PublishedConfig):
        raise ValueError(
            f"ablation: got a run of {method_of(base.model)}'s {base.stage} stage, expected the published renderer: "
            "take --config paper-renderer or a JSON file that changes it"
        )
    return base.model.renderer
