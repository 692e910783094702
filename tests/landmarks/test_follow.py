from __future__ import annotations

import numpy as np
import pytest

from atldiff.landmarks import follow
from atldiff.landmarks.follow import Appearance, Follower
from atldiff.landmarks.shape import mean_shape

WIDTH = 100.0


class Scene:
    """Faces by name, the front one first: where each is. A detector sees what is not covered."""

    size = (300, 1000)

    def __init__(self, **places: float) -> None:
        self.places = places

    def seen(self) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = {}
        for name, x in self.places.items():
            if all(abs(x - self.places[other]) > 0.4 * WIDTH for other in found):
                found[name] = (mean_shape() * WIDTH / 1.6 + (x, 100, 0)).astype(np.float32)
        return found


@pytest.fixture(autouse=True)
def detector(monkeypatch) -> None:
    """Meshes lie on the nearest face within half a width; what a face looks like is known by whose it is."""

    def whose(view: Scene, points: np.ndarray) -> str:
        middle = points[:468, 0].mean()
        return min(view.seen(), key=lambda name: abs(view.seen()[name][:468, 0].mean() - middle))

    def measured(view: Scene, region, least: float = 0.5):
        near = {name: abs(points[:468, 0].mean() - region.x) for name, points in view.seen().items()}
        name = min(near, key=lambda each: near[each], default=None)
        return None if name is None or near[name] > 0.5 * WIDTH else view.seen()[name]

    def looks(view: Scene, points: np.ndarray) -> Appearance:
        level = {"anna": 40.0, "bert": 140.0, "carl": 200.0}[whose(view, points)]
        return Appearance(np.full((3, 3), level, np.float32), np.zeros(78, np.float32))

    monkeypatch.setattr(follow, "measured", measured)
    monkeypatch.setattr(follow, "seen_faces", lambda view: list(view.seen().values()))
    monkeypatch.setattr(Appearance, "of", staticmethod(looks))


def followed(name: str, scenes: list[Scene]) -> list[float | None]:
    follower = Follower(scenes[0], scenes[0].seen()[name])  # type: ignore[arg-type]
    offset = mean_shape()[:468, 0].mean() * WIDTH / 1.6
    found = [follower.push(scene) for scene in scenes[1:]]  # type: ignore[arg-type]
    return [None if points is None else float(points[:468, 0].mean() - offset) for points in found]


def crossing(frames: int = 60) -> list[Scene]:
    return [Scene(anna=200 + 8.0 * frame, bert=680 - 8.0 * frame) for frame in range(frames)]


def test_the_front_face_is_followed_through_a_crossing() -> None:
    scenes = crossing()
    assert followed("anna", scenes) == pytest.approx([scene.places["anna"] for scene in scenes[1:]], abs=0.1)


def test_a_covered_face_is_found_again_and_never_the_other() -> None:
    scenes = crossing()
    found = followed("bert", scenes)
    for x, scene in zip(found, scenes[1:], strict=True):
        assert x is None or abs(x - scene.places["bert"]) < 0.1
    assert [x is None for x in found].count(True) < 12
    assert None not in found[-20:]


def test_after_a_cut_to_somebody_else_nobody_is_followed() -> None:
    scenes = [Scene(anna=300.0)] * 5 + [Scene(carl=310.0)] * 30 + [Scene(anna=600.0)] * 10
    found = followed("anna", scenes)
    assert found[4:34] == [None] * 30
    assert found[-7:] == pytest.approx([600.0] * 7, abs=0.1)


def test_one_that_leaves_the_picture_comes_back() -> None:
    scenes = [Scene(anna=300.0, bert=700.0)] * 5 + [Scene(bert=700.0)] * 60 + [Scene(bert=700.0, anna=150.0)] * 8
    found = followed("anna", scenes)
    assert found[4:64] == [None] * 60
    assert found[-4:] == pytest.approx([150.0] * 4, abs=0.1)
