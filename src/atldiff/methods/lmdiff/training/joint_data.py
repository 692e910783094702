"""Batches for joint training: a clip's sound and visible landmarks, and the frames that its mouth is to be seen in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from atldiff.data.mouths import ClipMouths, cut_map
from atldiff.data.windows import MIN_APART_FRAMES, ClipWindows, clip_weights, crop_map
from atldiff.methods.latent_inputs import latent_window
from atldiff.methods.lmdiff.inputs import NEEDED, TOKENS, build_inputs, mirrored_tokens
from atldiff.training.draws import Draw, item_random
from atldiff.training.latent_mouth_data import draw_start
from atldiff.training.latent_renderer_data import FILMED, cut_video, draw_state
from atldiff.training.mouth_data import MouthDraws
from atldiff.training.places import draw_place
from atldiff.video.window import WindowGeometry, apply

if TYPE_CHECKING:
    from collections.abc import Sequence

    from atldiff.config import TalkRendererConfig
    from atldiff.data.posed import PosedClip
    from atldiff.data.speech import ClipSpeech
    from atldiff.training.completion_data import CompletionSet, SeenStatesSet
    from atldiff.video.cavity import MouthLayers


@dataclass(frozen=True, slots=True)
class _Taken:
    """Pictures of a clip: as `cut_video` cuts them, the map (2, 3) to their pixels, and what else is known of them."""

    video: torch.Tensor
    source: np.ndarray
    target: np.ndarray
    to_window: np.ndarray
    frames: np.ndarray
    flip: bool
    layers: tuple[MouthLayers, ...] = ()
    known: dict[str, torch.Tensor] = field(default_factory=dict)


class JointSet:
    """Deterministic batches: an item is a function of (seed, step, its number in the batch)."""

    def __init__(
        self,
        speech: list[ClipSpeech],
        windows: Sequence[ClipWindows | ClipMouths],
        posed: list[PosedClip],
        completion: CompletionSet | SeenStatesSet,
        config: TalkRendererConfig,
        *,
        true_share: float,
        frames: int,
        seed: int,
    ) -> None:
        """speech, windows, posed: of the same clips, with the points `lmdiff_inputs.NEEDED`; mouths if layered.

        completion: the generator's items of them, which hold `frames` frames of their own and those heard around.
        true_share: of items that are marked to be rendered from their true landmarks.
        """
        self.windows, self.posed, self.completion = windows, posed, completion
        mouths = [clip for clip in windows if isinstance(clip, ClipMouths)]
        self.mouths = MouthDraws(mouths, NEEDED, frames=frames) if config.layered else None
        self.shifts = [max(0, clip.shift_frames) for clip in speech]  # frames before the first with sound
        self.ends = [shift + len(clip) for shift, clip in zip(self.shifts, speech, strict=True)]
        long = np.array([len(clip) >= frames + MIN_APART_FRAMES for clip in speech], bool)
        self.draw = Draw(clip_weights(windows) * long) if long.any() else None
        self.tokens = {False: TOKENS, True: mirrored_tokens()}
        self.true_share = true_share
        self.config, self.frames, self.seed = config, frames, seed

    def batch(self, step: int, items: range) -> dict[str, torch.Tensor]:
        """Return the tensors of a part of a batch on CPU.

        Of the generator, for the frames and those before and after: as `CompletionSet` or `SeenStatesSet` has them, its
        `target` as `target_landmarks`; `first` (B,) says which of them is the first of the frames. Of the renderer,
        float16: target and true_prior (B, 3, T, S, S); visible, likewise, the target where it may be seen, with
        is_filmed (B,) bool, whether it is; mouth (B, 1, T, S, S); reference (B, 3, S, S); noise, level and guessed as
        `TalkSet` has them. Of both, float32 in window pixels: rest (B, T, K, 2), where the points would be without
        speech; project (B, T, 2, 3), what a displacement moves them by; still (B, K, 2), those of the reference; tokens
        (B, P) int64, which of the K TalkFormer sees; is_true (B,) bool, whether to render from the true landmarks. Of a
        layered renderer centre and sharp as `MouthSet` has them, and no guessed.
        """
        rows = [self._item(item_random(self.seed, step, index)) for index in items]
        return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}

    def clip_names(self, batch: dict[str, torch.Tensor]) -> list[str]:
        """Return the names of a batch's clips."""
        return [self.windows[index].name for index in batch["clips"].tolist()]

    def _item(self, random: np.random.Generator) -> dict[str, torch.Tensor]:
        assert self.draw is not None  # noqa: S101 - for the type checker: a set without clips is refused by the task
        chosen, config = self.draw(random), self.config
        shift, posed = self.shifts[chosen], self.posed[chosen]
        taken = self._taken(chosen, range(shift, self.ends[chosen]), random)
        wanted, reference = taken.video[:, :, 1:].contiguous(), taken.video[:, :, 0].contiguous()
        source, target, to_window, at = taken.source, taken.target, taken.to_window, taken.frames
        inputs = build_inputs(
            reference.numpy(), source[None], target[None], config, wanted.numpy(), layers=taken.layers
        )
        heard = self.completion.around(chosen, int(at[0]) - shift, random)
        heard["target_landmarks"] = heard.pop("target")
        return {
            **{name: torch.from_numpy(value[None]) for name, value in heard.items()},
            "target": wanted.half(),
            "true_prior": torch.from_numpy(inputs.prior).half(),
            "visible": torch.from_numpy(inputs.shown[:, :3]).half(),
            "is_filmed": torch.tensor([random.random() < FILMED]),
            "is_true": torch.tensor([random.random() < self.true_share]),
            "mouth": torch.from_numpy(inputs.mouth).half(),
            "reference": reference.half(),
            "rest": torch.from_numpy(apply(to_window, posed.rest[at]))[None],
            "project": torch.from_numpy(to_window[:, :2] @ posed.project[at])[None],
            "still": torch.from_numpy(source)[None],
            "tokens": torch.from_numpy(self.tokens[taken.flip])[None],
            **(draw_start if config.layered else draw_state)(config, self.frames, random),
            **taken.known,
        }

    def _taken(self, chosen: int, within: range, random: np.random.Generator) -> _Taken:
        """Cut pictures of a clip as the renderer is trained on them, the targets `within` a range of frames."""
        config, clip = self.config, self.windows[chosen]
        if self.mouths is not None:
            geometry = latent_window(config)
            mouths = self.mouths.take(geometry, random, chosen, within, alone=True)
            known = {name: mouths.common[name] for name in ("centre", "sharp")}
            to_window = cut_map(geometry, mouths.jitter, flip=mouths.flip)
            return _Taken(
                mouths.video, mouths.source[0], mouths.target[0], to_window, mouths.frames, mouths.flip,
                (mouths.layers,), known,
            )  # fmt: skip
        place = draw_place(clip, self.frames, random, within)  # pyright: ignore[reportArgumentType]
        video, source, target = cut_video(clip, place, config, random)  # pyright: ignore[reportArgumentType]
        to_window = crop_map(WindowGeometry(config.side, config.origin), place.jitter, flip=place.flip)
        to_window = to_window * np.float32(config.resolution / config.side)
        return _Taken(video, source, target, to_window, place.frames[1:], place.flip)
