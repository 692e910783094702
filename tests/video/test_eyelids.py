from __future__ import annotations

import cv2
import numpy as np
import pytest

from atldiff.video.eyelids import EyeFrame, EyeLandmarks, part_lids

SKIN, WHITE, IRIS = np.array([205, 150, 120]), np.array([255, 255, 255]), np.array([30, 60, 140])
EYE = EyeLandmarks(np.array([0, 1]), np.arange(2, 9), np.arange(9, 16), np.arange(16, 23))
WIDTH, OPENING = 80.0, 26.0
CENTRE = np.array([100.0, 100.0])


def eye(opening: float = OPENING, closure: float = 0.0, angle: float = 0.0) -> np.ndarray:
    """Return landmarks (23, 2): lids on parabolas of an eye `opening` pixels high, closed by a part of it."""
    u = np.linspace(-0.45, 0.45, 7)
    bulge = 1 - 4 * u**2
    upper, lower = -0.6 * opening * bulge, 0.4 * opening * bulge
    gap = lower - upper
    fold = upper - 12 + 0.4 * closure * gap
    rows = (upper + 0.88 * closure * gap, lower - 0.12 * closure * gap, fold)
    points = [(-WIDTH / 2, 0.0), (WIDTH / 2, 0.0)]
    points += [(x, y) for row in rows for x, y in zip(u * WIDTH, row, strict=True)]
    return np.array(points) @ rotation(angle).T + CENTRE


def rotation(angle: float) -> np.ndarray:
    cosine, sine = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    return np.array([[cosine, -sine], [sine, cosine]])


def drawing(angle: float = 0.0, opening: float = OPENING) -> np.ndarray:
    """Return a picture (200, 200, 3) of an eye: a round iris on white between the lids, all else skin."""
    across, down = np.moveaxis((coordinates() - CENTRE) @ rotation(angle), -1, 0)
    bulge = 1 - (2 * across / WIDTH) ** 2
    inside = (down > -0.6 * opening * bulge) & (down < 0.4 * opening * bulge)
    image = np.where(inside[..., None], WHITE, SKIN)
    return np.where((inside & (np.hypot(across, down) < 12))[..., None], IRIS, image).astype(np.uint8)


def coordinates() -> np.ndarray:
    return np.stack(np.meshgrid(np.arange(200.0), np.arange(200.0)), -1)


def painted(image: np.ndarray, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return a picture whose corners stay, with the lids of `target`."""
    _, motions = part_lids(source, target, (EYE,))
    x, y = np.moveaxis(coordinates().astype(np.float32), -1, 0)
    canvas = image.copy()
    for motion in motions:
        motion.paint(canvas, image, (np.ascontiguousarray(x), np.ascontiguousarray(y)), (0, 0))
    return canvas


def is_skin(image: np.ndarray) -> np.ndarray:
    """Return where a picture has the skin's hue, be it shaded: red over blue as in skin, not as in white or iris."""
    red, blue = image[..., 0].astype(float), image[..., 2].astype(float)
    return red > 1.3 * blue


class TestFrame:
    def test_there_and_back(self) -> None:
        frame = EyeFrame.of(np.array([[10.0, 20.0], [40.0, 60.0]]))
        points = np.random.default_rng(0).uniform(0, 100, (9, 2))
        assert frame.width == pytest.approx(50)
        assert np.allclose(frame.leave(frame.enter(points)), points)
        assert np.allclose(frame.enter(np.array([[10.0, 20.0], [40.0, 60.0]])), [[0, 0], [50, 0]])

    def test_v_points_to_the_chin_whichever_way_the_head_is(self) -> None:
        for angle in (0, 30, 90, 180, -120):
            inside = EyeFrame.of(eye(angle=angle)[EYE.corners]).enter(eye(angle=angle))
            assert (inside[EYE.upper, 1] < inside[EYE.lower, 1]).all()
            assert (np.diff(inside[EYE.upper, 0]) > 0).all()


class TestPart:
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_nothing_moves(self, dtype: type) -> None:
        points = eye(angle=17).astype(dtype)
        smooth, motions = part_lids(points, points, (EYE,))
        assert smooth.dtype == dtype
        assert np.array_equal(smooth, points)
        assert motions == []

    def test_a_moving_head_is_no_lid_motion(self) -> None:
        source = eye()
        target = 1.1 * (source - CENTRE) @ rotation(12).T + CENTRE + [7, -3]
        smooth, motions = part_lids(source, target, (EYE,))
        assert np.allclose(smooth, target)
        assert motions == []

    def test_the_field_keeps_a_closing_eye_open(self) -> None:
        move = lambda points: 1.1 * (points - CENTRE) @ rotation(12).T + CENTRE  # noqa: E731
        smooth, motions = part_lids(eye(), move(eye(closure=0.8)), (EYE,))
        assert np.allclose(smooth, move(eye()))
        assert len(motions) == 1

    def test_the_field_opens_an_eye_wider(self) -> None:
        wider = eye(opening=1.4 * OPENING)
        smooth, motions = part_lids(eye(), wider, (EYE,))
        assert np.allclose(smooth, wider)
        assert motions == []

    def test_target_is_not_written_to(self) -> None:
        target = eye(closure=0.5)
        before = target.copy()
        part_lids(eye(), target, (EYE,))
        assert np.array_equal(target, before)


class TestPaint:
    @pytest.mark.parametrize("angle", [0, 25, -40, 90, 180])
    def test_a_closed_eye_shows_no_eyeball(self, angle: float) -> None:
        image = drawing(angle)
        assert (~is_skin(image)).sum() > 1000
        closed = painted(image, eye(angle=angle), eye(closure=1, angle=angle))
        assert is_skin(closed).all()
        away = np.abs((coordinates() - CENTRE) @ rotation(angle))
        far = (away[..., 0] > 0.7 * WIDTH) | (away[..., 1] > 0.9 * WIDTH)
        assert np.array_equal(closed[far], image[far])

    @pytest.mark.parametrize("angle", [0, 25, -40, 90, 180])
    def test_a_half_closed_eye_covers_the_iris_from_above(self, angle: float) -> None:
        image = drawing(angle)
        half = painted(image, eye(angle=angle), eye(closure=0.5, angle=angle))
        across, down = np.moveaxis((coordinates() - CENTRE) @ rotation(angle), -1, 0)
        bulge = 1 - (2 * across / WIDTH) ** 2
        upper = (-0.6 + 0.44) * OPENING * bulge
        lower = (0.4 - 0.06) * OPENING * bulge
        assert is_skin(half)[(np.abs(across) < 30) & (down < upper - 1)].all()
        seen = (np.abs(across) < 10) & (down > upper + 0.04 * WIDTH) & (down < lower - 2)
        assert seen.sum() > 60
        assert np.abs(half[seen].astype(int) - image[seen]).mean() < 0.08 * 255  # the seam's shade is all
        assert not is_skin(half)[seen].any()

    def test_the_edge_travels_with_the_lid(self) -> None:
        image = drawing()
        line = np.round(eye()[[0, *EYE.upper, 1]] - [0, 2]).astype(np.int32)
        cv2.polylines(image, [line[:, None]], False, (60, 30, 20), 2)
        closed = painted(image, eye(), eye(closure=1))[:, 100].astype(int).sum(axis=1)
        seam = eye(closure=1)[[EYE.upper[3], EYE.lower[3]], 1].mean()
        assert abs(int(closed.argmin()) - seam) < 4
        dark = np.flatnonzero(closed < 0.6 * SKIN.sum())
        assert np.ptp(dark) < 8  # one line, and none left where the lid was

    def test_an_unfolded_lid_is_like_the_skin_about_the_eye(self) -> None:
        """Stretched, the crease above an open lid was a dark eye that had stayed open, to people and trackers."""
        image = drawing()
        crease = np.round(eye()[[0, *EYE.upper, 1]] - [0, 7]).astype(np.int32)
        cv2.polylines(image, [crease[:, None]], False, (90, 60, 50), 5)
        closed = painted(image, eye(), eye(closure=1)).astype(int)
        seam = int(eye(closure=1)[EYE.lower[3], 1])
        lid = closed[84 : seam - 6, 80:121]
        assert lid.shape[0] > 10
        assert (np.abs(lid - SKIN).max(axis=-1) < 40).all()

    def test_an_unfolded_lid_has_the_grain_of_skin(self) -> None:
        image, grain = drawing(), np.random.default_rng(0).normal(0, 4, (200, 200, 1))
        image = np.clip(image + grain, 0, 255).astype(np.uint8)
        closed = painted(image, eye(), eye(closure=1)).astype(float)
        smooth = cv2.GaussianBlur(closed, (0, 0), 3)
        lid = (closed - smooth)[86:102, 80:121]
        assert 1.5 < lid.std() < 5

    def test_glasses_leave_no_rim_on_the_lid(self) -> None:
        image = drawing()
        image[124:130] = (20, 20, 20)
        closed = painted(image, eye(), eye(closure=1)).astype(int)
        assert (closed[86:102, 80:121].sum(axis=-1) > 0.75 * SKIN.sum()).all()

    @pytest.mark.parametrize("beside", [(5, 0), (-5, 0), (0, -3)])
    def test_an_eyeball_beside_its_landmarks_is_covered(self, beside: tuple[int, int]) -> None:
        image = np.roll(drawing(opening=OPENING + 4), beside, (1, 0))
        whites = lambda picture: (picture.min(axis=-1) > 200).sum()  # noqa: E731
        assert whites(image) > 500
        assert whites(painted(image, eye(), eye(closure=1))) < 30

    def test_the_seam_is_a_shade_and_no_line_of_ink(self) -> None:
        image = drawing()
        closed = painted(image, eye(), eye(closure=1)).astype(int).sum(axis=-1)
        seam = closed[90:120, 80:121].min(axis=0)
        assert (seam < 0.6 * SKIN.sum()).all()
        assert (seam > 0.3 * SKIN.sum()).all()

    def test_closing_is_smooth(self) -> None:
        image = drawing()
        image = cv2.GaussianBlur(image, (0, 0), 1.5)
        frames = [painted(image, eye(), eye(closure=c)).astype(int) for c in np.linspace(0, 1, 101)]
        changes = [np.abs(b - a).sum() for a, b in zip(frames, frames[1:], strict=False)]
        assert max(changes) < 4 * np.mean(changes)
        eyeball = [(~is_skin(frame)).sum() for frame in frames]
        assert max(np.diff(eyeball)) <= 6

    @pytest.mark.parametrize("side", [-1, 1])
    def test_no_jump_where_wider_begins(self, side: int) -> None:
        image = drawing()
        nearly = eye(opening=OPENING * (1 + side * 0.012))  # 0.2 px
        smooth, _ = part_lids(eye(), nearly, (EYE,))
        assert np.abs(smooth - eye()).max() < 0.2
        assert np.abs(painted(image, eye(), nearly).astype(int) - image).mean() < 0.5

    def test_a_portrait_with_closed_eyes(self) -> None:
        image = drawing(opening=0)
        source = eye(opening=0.05)
        assert np.array_equal(painted(image, source, eye(opening=0.05, closure=1)), image)
        shut = painted(image, eye(opening=1.0), eye(opening=1.0, closure=1))
        assert np.abs(shut.astype(int) - image).max() < 12  # next to nothing for an eye next to closed

    def test_crossed_lids_and_an_eye_at_the_border(self) -> None:
        image = drawing()
        assert is_skin(painted(image, eye(), eye(closure=1.3))).all()
        shift = CENTRE - [20, 195]
        cut = np.roll(image, (95, -80), (0, 1))
        closed = painted(cut, eye() - shift, eye(closure=1) - shift)
        assert closed.shape == cut.shape
        assert (closed != cut).any()
        assert painted(image, eye() + 500, eye(closure=1) + 500).tobytes() == image.tobytes()
