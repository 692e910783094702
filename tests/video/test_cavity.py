"""Lips that move over teeth that do not: on a drawn mouth whose teeth are stripes."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from atldiff.video.cavity import MouthLayers

UNIT = 3.0  # picture pixels of a template pixel
SIDE = 320
CENTRE = np.array([160.0, 170.0])
CHIN = CENTRE + np.array([0.0, 75.0])
MATRIX = np.array([[1 / UNIT, 0, 10.0], [0, 1 / UNIT, -5.0]])
SKIN, LIP, TOOTH, DARK = (200, 150, 130), (170, 70, 80), (240, 238, 230), (40, 15, 15)


def contour(opening: float, width: float = 40.0, shift: tuple[float, float] = (0, 0)) -> np.ndarray:
    """An inner-lip contour (20, 2): right corner, upper lip, left corner, lower lip; sizes in template pixels."""
    angle = np.pi + np.arange(20) * np.pi / 10
    return CENTRE + UNIT * (np.stack([width / 2 * np.cos(angle), opening / 2 * np.sin(angle)], 1) + np.array(shift))


def portrait(opening: float = 12.0, *, rows: int = 1, channels: int = 3) -> np.ndarray:
    """A mouth with teeth striped every 12 px; two rows have a dark gap between them."""
    picture = np.empty((SIDE, SIDE, 3), np.uint8)
    picture[:] = SKIN
    cv2.ellipse(picture, (160, 170), (75, round(UNIT * opening / 2) + 22), 0, 0, 360, LIP, -1)
    teeth = np.empty_like(picture)
    teeth[:] = TOOTH
    teeth[:, ::12] = (150, 145, 140)
    if rows == 2:
        teeth[164:178] = DARK
    mask = np.zeros((SIDE, SIDE), np.uint8)
    cv2.fillPoly(mask, [np.rint(contour(opening)).astype(np.int32)], 1)
    picture = np.where(mask[..., None] > 0, teeth, picture)
    if channels == 4:
        picture = np.dstack([picture, np.full((SIDE, SIDE), 255, np.uint8)])
    return picture


def layers(**kind: int) -> MouthLayers:
    return MouthLayers.prepare(portrait(**kind), contour(12), CHIN, MATRIX)


def painted(
    parted: MouthLayers,
    inner: np.ndarray,
    *,
    matrix: np.ndarray = MATRIX,
    drop: tuple[float, float] = (0, 0),
    unseen: float = 1.0,
) -> np.ndarray:
    """Paint over the lip layer; drop: of the jaw, in template pixels."""
    canvas = parted.lips.copy()
    parted.paint(canvas, (0, 0), inner, CHIN + UNIT * np.array(drop), matrix, unseen=unseen)
    return canvas


def test_closed_lips_show_nothing_and_stay_as_they_are() -> None:
    image = portrait(1.0)
    parted = MouthLayers.prepare(image, contour(1.0), CHIN, MATRIX)
    assert parted.lips is image
    assert not parted.skull.any()
    assert not parted.jaw.any()
    assert (painted(parted, contour(12))[165:175, 140:180] == np.rint(parted.dark)).all()


def test_the_lip_layer_shows_no_tooth_and_is_the_portrait_elsewhere() -> None:
    image, parted = portrait(), layers()
    assert image[..., 1].max() > 200
    inside = slice(130, 210), slice(90, 230)
    assert parted.lips[inside][..., 1].max() < 160  # green: lips 70, skin 150, teeth 238
    far = np.ones(image.shape[:2], bool)
    far[130:210, 80:240] = False
    assert np.array_equal(parted.lips[far], image[far])


def test_lips_that_do_not_move_give_the_portrait_back() -> None:
    image, parted = portrait(), layers()
    middle = slice(160, 181), slice(130, 190)  # well inside the contour
    assert np.abs(painted(parted, contour(12))[middle].astype(int) - image[middle]).max() <= 2


def test_lips_that_close_cover_teeth_and_do_not_squeeze_them() -> None:
    image, parted = portrait(), layers()
    half = painted(parted, contour(6))
    row = 173  # in the lower half of the narrower gap: light shade at most, stripes of 90 levels where they were
    assert np.abs(half[row, 130:190].astype(int) - image[row, 130:190]).max() <= 8
    assert half[153, 160, 1] < 160  # lip, where the portrait shows teeth
    assert image[153, 160, 1] > 200


@pytest.mark.parametrize("opening", [0.0, 0.4, 0.8])
def test_no_tooth_between_lips_that_meet(opening: float) -> None:
    parted = layers()
    assert np.array_equal(painted(parted, contour(opening)), parted.lips)


def test_teeth_move_with_the_skull_not_with_the_lips() -> None:
    image, parted = portrait(), layers()
    lips_aside = painted(parted, contour(12, shift=(2, 0)))
    middle = slice(162, 183), slice(145, 190)
    assert np.abs(lips_aside[middle].astype(int) - image[middle]).max() <= 8
    moved = MATRIX - np.array([[0, 0, 4 / UNIT], [0, 0, 0]])  # the head 4 px to the right
    head_aside = painted(parted, contour(12) + np.array([4, 0]), matrix=moved)
    assert np.abs(head_aside[160:181, 134:194].astype(int) - image[160:181, 130:190]).max() <= 8


def test_the_lower_row_moves_with_the_jaw_and_a_single_row_does_not() -> None:
    two, one = layers(rows=2), layers(rows=1)
    assert not one.jaw.any()
    assert two.jaw[two.jaw.shape[0] // 2 + 10 :].any()
    wide = contour(18, shift=(0, 1.5))
    still, dropped = (painted(two, wide, drop=(0, down)) for down in (0, 3))
    assert np.array_equal(still[150:160, 130:190], dropped[150:160, 130:190])  # the upper row
    assert np.abs(dropped[190:193, 140:180].astype(int) - still[181:184, 140:180]).max() <= 4


def test_unseen_parts_are_left_to_the_canvas() -> None:
    parted = layers()
    wide = contour(30)
    canvas = parted.lips.copy()
    canvas[195:205, 150:170] = (1, 2, 3)  # inside the wide mouth, outside what the portrait showed
    parted.paint(canvas, (0, 0), wide, CHIN, MATRIX, unseen=0.0)
    assert (canvas[197:203, 152:168] == (1, 2, 3)).all()


def test_a_lowered_upper_lip_shades_the_teeth_below_it() -> None:
    image, parted = portrait(), layers()
    lowered = painted(parted, contour(8, shift=(0, 2)))
    edge = round(CENTRE[1] + UNIT * (2 - 4)) + 2
    assert lowered[edge, 160, 1] < 0.85 * image[edge, 160, 1]


def test_a_part_of_the_frame_and_an_alpha_channel_change_nothing() -> None:
    parted, with_alpha = layers(), layers(channels=4)
    whole = painted(parted, contour(9))
    part = parted.lips[120:230, 70:250].copy()
    parted.paint(part, (70, 120), contour(9), CHIN, MATRIX)
    assert np.array_equal(part, whole[120:230, 70:250])
    four = painted(with_alpha, contour(9))
    assert np.array_equal(four[..., :3], whole)
    assert (four[..., 3] == 255).all()


def test_a_mouth_outside_the_canvas_is_left_alone() -> None:
    parted = layers()
    canvas = np.zeros((20, 20, 3), np.uint8)
    parted.paint(canvas, (0, 0), contour(12), CHIN, MATRIX)
    assert not canvas.any()


def test_a_window_is_what_is_painted_into_a_picture() -> None:
    parted = layers(rows=2)
    wide = contour(16)
    told = parted.window(wide, CHIN, MATRIX, (SIDE, SIDE)).transpose(1, 2, 0)
    laid = parted.lips + told[..., 4:] * (told[..., :3] - parted.lips)
    assert np.abs(laid - painted(parted, wide)).max() <= 0.51
    assert told[170, 160, 3] > 0.9  # seen
    assert told[195, 160, 3] == 0
    assert 0 <= told[..., 3:].min() <= told[..., 3:].max() <= 1.001


def test_references_show_what_the_portrait_does_not_in_any_order() -> None:
    """A closed portrait, and two pictures of the person: one at half the size and elsewhere, one that shows less."""
    closed = MouthLayers.prepare(portrait(1.0), contour(1.0), CHIN, MATRIX)
    small = cv2.resize(portrait(12.0), (SIDE // 2, SIDE // 2), interpolation=cv2.INTER_AREA)
    half = np.array([[2 / UNIT, 0, 10 + 0.5 / UNIT], [0, 2 / UNIT, -5 + 0.5 / UNIT]])
    wide = MouthLayers.prepare(small, (contour(12) - 0.5) / 2, (CHIN - 0.5) / 2, half)
    narrow = MouthLayers.prepare(portrait(6.0), contour(6), CHIN, MATRIX)
    both = [closed.with_references(others) for others in ([wide, narrow], [narrow, wide])]
    first, second = (painted(each, contour(12)) for each in both)
    assert np.array_equal(first, second)
    picture = painted(both[0], contour(12))[162:178, 130:190].astype(int)
    assert np.abs(picture - portrait(12.0)[162:178, 130:190]).mean() < 20
    assert np.array_equal(both[0].lips, closed.lips)


def test_what_the_portrait_shows_itself_stays() -> None:
    own = layers()
    other = MouthLayers.prepare(255 - portrait(12.0), contour(12), CHIN, MATRIX)
    told = own.with_references([other])
    assert np.abs(painted(told, contour(12)).astype(int) - painted(own, contour(12)))[160:181, 130:190].max() <= 2


def test_a_reference_in_another_light_takes_the_portrait_s() -> None:
    closed = MouthLayers.prepare(portrait(1.0), contour(1.0), CHIN, MATRIX)
    dim = MouthLayers.prepare((portrait(12.0) * 0.6).astype(np.uint8), contour(12), CHIN, MATRIX)
    bright = MouthLayers.prepare(portrait(12.0), contour(12), CHIN, MATRIX)
    one, two = (painted(closed.with_references([x]), contour(12))[165:175, 140:180].mean() for x in (dim, bright))
    assert abs(one - two) < 0.05 * two


def test_references_without_teeth_cost_nothing() -> None:
    own = layers()
    closed = MouthLayers.prepare(portrait(1.0), contour(1.0), CHIN, MATRIX)
    assert own.with_references([]) is own
    assert own.with_references([closed, closed]) is own
