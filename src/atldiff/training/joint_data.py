"""Batches for joint training: a clip's sound and visible landmarks, and the frames that its mouth is to be seen in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from atldiff.data.windows import MIN_APART_FRAMES, ClipWindows, clip_weights, crop_map
from atldiff.methods.lmdiff_inputs import TOKENS, build_inputs, mirrored_tokens
from atldiff.training.draws import Draw, item_random
from atldiff.training.latent_renderer_data import FILMED, cut_video, draw_state
from atldiff.training.renderer_data import draw_place
from atldiff.video.window import WindowGeometry, apply

if TYPE_CHECKING:
    from atldiff.config import TalkRendererConfig
    from atldiff.data.posed import PosedClip
    from atldiff.data.speech import ClipSpeech
    from atldiff.training.completion_data import CompletionSet, SeenStatesSet


class JointSet:
    """Deterministic batches: an item is a function of (seed, step, its number in the batch)."""

    def __init__(
        self,
        speech: list[ClipSpeech],
        windows: list[ClipWindows],
        posed: list[PosedClip],
        completion: CompletionSet | SeenStatesSet,
        config: TalkRendererConfig,
        *,
        true_share: float,
        frames: int,
        seed: int,
    ) -> None:
        """speech, windows, posed: of the same clips, with the points `lmdiff_inputs.NEEDED`.

        completion: the generator's items of them, which hold `frames` frames of their own and those heard around.
        true_share: of items that are marked to be rendered from their true landmarks.
        """
        self.windows, self.posed, self.completion = windows, posed, completion
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
        (B, P) int64, which of the K TalkFormer sees; is_true (B,) bool, whether to render from the true landmarks.
        """
        rows = [self._item(item_random(self.seed, step, index)) for index in items]
        return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}

    def clip_names(self, batch: dict[str, torch.Tensor]) -> list[str]:
        """Return the names of a batch's clips."""
        return [self.windows[index].name for index in batch["clips"].tolist()]

    def _item(self, random: np.random.Generator) -> dict[str, torch.Tensor]:
        assert self.draw is not None  # noqa: S101 - for the type checker: a set without clips is refused by the task
        chosen, config = self.draw(random), self.config
        shift, clip, posed = self.shifts[chosen], self.windows[chosen], self.posed[chosen]
        place = draw_place(clip, self.frames, random, range(shift, self.ends[chosen]))
        video, source, target = cut_video(clip, place, config, random)
        wanted, reference = video[:, :, 1:].contiguous(), video[:, :, 0].contiguous()
        inputs = build_inputs(reference, source[None], target[None], config, wanted)
        geometry = WindowGeometry(config.side, config.origin)
        to_window = crop_map(geometry, place.jitter, flip=place.flip) * np.float32(config.resolution / config.side)
        at = place.frames[1:]
        heard = self.completion.around(chosen, int(at[0]) - shift, random)
        heard["target_landmarks"] = heard.pop("target")
        return {
            **{name: torch.from_numpy(value[None]) for name, value in heard.items()},
            "target": wanted.half(),
            "true_prior": inputs.prior.half(),
            "visible": inputs.shown.half(),
            "is_filmed": torch.tensor([random.random() < FILMED]),
            "is_true": torch.tensor([random.random() < self.true_share]),
            "mouth": inputs.mouth.half(),
            "reference": reference.half(),
            "rest": torch.from_numpy(apply(to_window, posed.rest[at]))[None],
            "project": torch.from_numpy(to_window[:, :2] @ posed.project[at])[None],
            "still": torch.from_numpy(source)[None],
            "tokens": torch.from_numpy(self.tokens[place.flip])[None],
            **draw_state(config, self.frames, random),
        }
