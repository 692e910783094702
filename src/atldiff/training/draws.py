"""Randomness as data: one generator an item, so that neither processes nor micro-batches change what is drawn."""

from __future__ import annotations

import numpy as np
import torch

UNLABELLED_SHARE = 0.2
"""Share of labelled clips that are shown without their label, so that leaving it open is always trained."""


def item_random(seed: int, step: int, index: int) -> np.random.Generator:
    """Return the generator that draws everything of one item: its clip, its augmentation, its time and its noise.

    index: of the item in the global batch of the step.
    """
    return np.random.default_rng((seed, step, index))


def shown_emotion(label: int, known: int, random: np.random.Generator) -> int:
    """Draw the label that a model which knows `known` emotions is shown of a clip; `known` stands for none."""
    return min(label, known) if random.random() >= UNLABELLED_SHARE else known


def dropout_seed(seed: int, step: int, index: int) -> int:
    """Return torch's seed for a micro-batch that begins with an item; independent of what `item_random` draws."""
    return int(np.random.SeedSequence((seed, step, index), spawn_key=(1,)).generate_state(1, np.uint64)[0] >> 1)


class Draw:
    """Draws clip indices by their probabilities (N,)."""

    def __init__(self, weights: np.ndarray) -> None:
        self.upto = np.cumsum(weights)

    def __call__(self, random: np.random.Generator) -> int:
        """Return an index below N."""
        at = np.searchsorted(self.upto, random.random() * self.upto[-1], side="right")
        return int(min(at, len(self.upto) - 1))


def stack(items: list[dict[str, np.ndarray]]) -> dict[str, torch.Tensor]:
    """Return tensors (B, ...) of B items with the same names and shapes."""
    return {name: torch.from_numpy(np.stack([item[name] for item in items])) for name in items[0]}
