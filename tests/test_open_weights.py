"""`atl-diff-open`: what it was learned from, and that a run of it reads nothing learned from restricted footage."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from atldiff.checkpoint import locate, read_config
from atldiff.doctor import PARTS, terms_of
from atldiff.landmarks import motion_model
from atldiff.landmarks.shape import mean_shape
from atldiff.pipeline import TalkingHead
from atldiff.types import Controls, Portrait

OPEN = {
    "GRID": "CC BY 4.0",
    "espeak-ng": "GPL-3.0",
    "Whisper base": "MIT",
    "Silero VAD": "MIT",
    "MediaPipe": "Apache-2.0",
    "lent teeth": "public domain",
    "LPIPS": "BSD-2-Clause",
}
"""What weights may be made of and run with that are to be used commercially, and its terms."""
RESTRICTED = ("mead", "talkvid", "hdtf", "lrw", "voxceleb", "celebv", "crema", "interviews", "web_misc")
FOLDER = locate("atl-diff-open")
CARD = (FOLDER / "README.md").read_text(encoding="utf-8")


def rows(card: str) -> list[tuple[str, str, str]]:
    """The first table of a card: what, what it gave, its terms."""
    table = card[card.index("| what |") :].split("\n\n")[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    return [(cell[0], cell[1], cell[2]) for cell in cells]


def test_the_card_lists_open_sources_alone() -> None:
    listed = rows(CARD)
    assert {what for what, _, _ in listed} == set(OPEN)
    for what, _, terms in listed:
        assert OPEN[what] in terms, what
    data = CARD[: CARD.index("## Measured")]
    for name in RESTRICTED:
        assert not re.search(rf"\b{name}", data, re.IGNORECASE), name


def test_the_other_cards_would_not_pass() -> None:
    card = (locate("atl-diff") / "README.md").read_text(encoding="utf-8")
    assert any(re.search(rf"\b{name}", card, re.IGNORECASE) for name in RESTRICTED)
    assert terms_of(locate("atl-diff")) != terms_of(FOLDER)


def test_it_may_be_used_and_who_is_to_be_named_is_said() -> None:
    assert terms_of(FOLDER) == "may be redistributed and used commercially, with attribution"
    assert "Cooke, Barker, Cunningham, Shao" in CARD


def test_it_is_small() -> None:
    files = {path.name: path.stat().st_size for path in FOLDER.iterdir() if path.is_file()}
    graphs = {"graphs.json", "denoiser.onnx", "denoiser-int8.onnx", "generator.onnx"}
    assert set(files) == {"README.md", "config.json", "model.safetensors", "motion.safetensors"} | graphs
    assert sum(files.values()) < 12e6
    assert read_config(FOLDER).renderer.layered  # pyright: ignore[reportAttributeAccessIssue]


def test_a_run_reads_no_motion_learned_from_restricted_footage(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    load = motion_model.load_motion

    def watched(folder: Path = motion_model._FOLDER) -> motion_model.Weights:
        read.append(folder)
        return load(folder)

    for module in ("landmarks.motion_model", "methods.motion_style"):
        monkeypatch.setattr(f"atldiff.{module}.load_motion", watched)
    head = TalkingHead.from_pretrained("atl-diff-open", device="cpu")
    assert head.motion == FOLDER
    points = (90 * mean_shape() + 150).astype(np.float32)
    hum = (0.1 * np.sin(np.arange(16_000) * 0.09)).astype(np.float32)
    track = head.landmarks(Portrait(np.zeros((300, 300, 3), np.uint8), points), hum, controls=Controls(seed=1))
    assert len(track) == 25
    assert read
    assert set(read) == {FOLDER}
    package = Path(motion_model.__file__).parents[1]
    assert terms_of((package / PARTS["motion"].file).parent) != terms_of(FOLDER)
