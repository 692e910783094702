"""What lies behind a portrait with alpha: colours, pictures, a blur, and edges without a rim."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from atldiff.errors import MediaError
from atldiff.types import POINTS, Portrait
from atldiff.video.background import bled, draw_background, lay, open_background, say_if_hidden

EDGE = np.array((180, 60, 30), np.uint8)


def disc(size: int = 65) -> tuple[np.ndarray, np.ndarray]:
    """A disc with a soft edge: its picture, of a colour that hidden pixels do not have, and its alpha."""
    y, x = np.mgrid[:size, :size] - size // 2
    alpha = np.clip(255 * (size / 3 - np.hypot(x, y)) / 3, 0, 255).astype(np.uint8)
    image = np.where(alpha[..., None] > 0, EDGE, np.array((0, 255, 255), np.uint8))
    return image.astype(np.uint8), alpha


def portrait(height: int = 40, width: int = 60, *, alpha: bool = True) -> Portrait:
    image = np.zeros((height, width, 3), np.uint8)
    image[:, : width // 2] = (200, 100, 0)
    mask = np.full((height, width), 128, np.uint8) if alpha else None
    return Portrait(image, np.zeros((POINTS, 3), np.float32), mask)


class TestOpened:
    @pytest.mark.parametrize(
        ("source", "colour"),
        [
            ("white", (255, 255, 255)), ("#204060", (32, 64, 96)), ("#abc", (170, 187, 204)), ("RED", (255, 0, 0)),
            ("rgb(1, 2, 3)", (1, 2, 3)), ("#204060ff", (32, 64, 96)), ((4, 5, 6), (4, 5, 6)),
        ],
    )  # fmt: skip
    def test_colours(self, source: str | tuple[int, int, int], colour: tuple[int, int, int]) -> None:
        assert open_background(source) == colour
        drawn = draw_background(colour, portrait())
        assert drawn is not None
        assert drawn.shape == (40, 60, 3)
        assert (drawn == colour).all()

    def test_words(self) -> None:
        assert open_background("blur") == "blur"
        for clear in ("transparent", "#20406000"):
            assert open_background(clear) == "transparent"
        assert open_background(None) is None
        assert draw_background("transparent", portrait()) is None

    def test_what_is_opened_is_a_source_itself(self) -> None:
        for opened in ((1, 2, 3), "blur", np.zeros((20, 20, 3), np.uint8)):
            again = open_background(opened)
            assert np.array_equal(np.asarray(again), np.asarray(opened))

    def test_a_picture_covers_from_the_middle(self, tmp_path: Path) -> None:
        picture = np.zeros((40, 300, 3), np.uint8)
        picture[:, 120:180] = (10, 200, 30)  # as wide as the portrait, with more at both sides
        Image.fromarray(picture).save(tmp_path / "wall.png")
        for source in (tmp_path / "wall.png", str(tmp_path / "wall.png"), picture, Image.fromarray(picture)):
            drawn = draw_background(open_background(source), portrait())  # pyright: ignore[reportArgumentType]
            assert drawn is not None
            assert np.array_equal(drawn, picture[:, 120:180])
        tall = draw_background(np.repeat(picture[:20, :20], 20, axis=0), portrait(30, 90))
        assert tall is not None
        assert tall.shape == (30, 90, 3)

    def test_a_transparent_picture_is_laid_on_white(self) -> None:
        opened = open_background(np.zeros((20, 20, 4), np.uint8))
        assert isinstance(opened, np.ndarray)
        assert (opened == 255).all()

    def test_blur_is_of_the_portrait(self) -> None:
        drawn = draw_background("blur", portrait(200, 300))
        assert drawn is not None
        assert drawn.shape == (200, 300, 3)
        assert (np.abs(drawn[:, :60].astype(int) - (200, 100, 0)) <= 1).all()
        assert drawn[:, 250:].max() <= 1
        middle = drawn[100, :, 0].astype(int)
        assert (np.diff(middle) <= 0).all()
        assert np.diff(middle).min() > -12  # no edge is left

    @pytest.mark.parametrize(
        ("source", "said"),
        [
            ("whte", "background: got 'whte', expected a colour, did you mean 'white'"),
            ("qqqq", "background: got 'qqqq', expected a colour such as white or #204060, blur, transparent or a pic"),
            ("#20406080", "background: got '#20406080', expected a colour that is opaque, or transparent"),
            ((1, 2, 300), r"background: got \(1, 2, 300\), expected a colour \(R, G, B\) of levels 0 to 255"),
            (3.5, "background: got float, expected a colour, blur, transparent or a picture"),
        ],
    )
    def test_doors(self, source, said: str) -> None:
        with pytest.raises(ValueError, match=said) as caught:
            open_background(source)
        assert "\n" not in str(caught.value)

    def test_files_that_are_no_pictures(self, tmp_path: Path) -> None:
        (tmp_path / "text.png").write_text("no picture")
        for path, said in ((tmp_path / "text.png", "not an image"), (tmp_path / "missing.png", "no such file")):
            with pytest.raises(MediaError, match=said) as caught:
                open_background(str(path))
            assert "\n" not in str(caught.value)

    def test_an_opaque_portrait_needs_none_and_it_is_said(self, caplog: pytest.LogCaptureFixture) -> None:
        opaque = portrait(alpha=False)
        assert draw_background((1, 2, 3), opaque) is None
        say_if_hidden("blur", portrait())
        say_if_hidden(None, opaque)
        assert caplog.text == ""
        say_if_hidden("blur", opaque)
        assert caplog.text.count("\n") == 1
        assert "background: it has no effect" in caplog.text


class TestLaid:
    def test_exact(self) -> None:
        random = np.random.default_rng(0)
        frame = random.integers(0, 256, (64, 64, 4), np.uint8)
        frame[0, :, 3], frame[1, :, 3] = 0, 255
        background = random.integers(0, 256, (64, 64, 3), np.uint8)
        share = frame[..., 3:] / 255
        exact = frame[..., :3] * share + background * (1 - share)
        laid = lay(frame, background)
        assert np.abs(laid - exact).max() <= 0.5 + 1e-6
        assert np.array_equal(laid[0], background[0])
        assert np.array_equal(laid[1], frame[1, :, :3])

    def test_nothing_to_lay(self) -> None:
        frame = np.zeros((8, 8, 4), np.uint8)
        assert lay(frame, None) is frame
        opaque = np.zeros((8, 8, 3), np.uint8)
        assert lay(opaque, np.ones((8, 8, 3), np.uint8)) is opaque


class TestBled:
    def test_hidden_pixels_take_the_edge_s_colour_and_seen_ones_stay(self) -> None:
        image, alpha = disc()
        filled = bled(image, alpha)
        assert np.array_equal(filled[alpha >= 8], image[alpha >= 8])
        assert np.abs(filled.astype(int) - EDGE).max() <= 1
        assert (image[0, 0] == (0, 255, 255)).all()  # the given one is left alone

    def test_colours_go_on_from_where_they_end(self) -> None:
        image, alpha = np.zeros((64, 96, 3), np.uint8), np.zeros((64, 96), np.uint8)
        image[:, :40], image[:, 56:] = (250, 0, 0), (0, 0, 250)
        alpha[:, :40], alpha[:, 56:] = 255, 255
        filled = bled(image, alpha)[32].astype(int)
        assert (filled[40:43, 0] > filled[40:43, 2]).all()
        assert (filled[53:56, 2] > filled[53:56, 0]).all()

    @pytest.mark.parametrize("level", [0, 255])
    def test_nothing_or_everything_is_hidden(self, level: int) -> None:
        image = np.random.default_rng(0).integers(0, 256, (17, 33, 3), np.uint8)
        assert np.array_equal(bled(image, np.full((17, 33), level, np.uint8)), image)


def test_a_portrait_s_alpha_has_its_shape() -> None:
    whole = portrait()
    assert whole.pixels.shape == (40, 60, 4)
    assert portrait(alpha=False).pixels.shape == (40, 60, 3)
    for alpha in (np.zeros((40, 61), np.uint8), np.zeros((40, 60, 1), np.uint8), np.zeros((40, 60), np.float32)):
        with pytest.raises(ValueError, match=r"portrait alpha: got .*expected \(40, 60\) uint8"):
            replace(whole, alpha=alpha)
