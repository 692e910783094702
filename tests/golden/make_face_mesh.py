"""Make face_mesh.npz, what MediaPipe 0.10.14 sees on the demo portrait: `python tests/golden/make_face_mesh.py`.

Its functions are the reference of tests/landmarks/test_mediapipe.py too, where MediaPipe is installed: `pip install
mediapipe==0.10.14`, for Python 3.10 to 3.12.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

VERSION = "0.10.14"
GOLDEN = Path(__file__).with_name("face_mesh.npz")
PORTRAIT = Path(__file__).resolve().parents[2] / "examples" / "portrait.jpg"


def shifted(picture: np.ndarray) -> list[np.ndarray]:
    """Return ten frames of a picture that moves."""
    return [np.roll(picture, (2 * index, 3 * index), axis=(0, 1)) for index in range(10)]


def _points(found, picture: np.ndarray) -> np.ndarray | None:
    if not found.multi_face_landmarks:
        return None
    points = np.array([(p.x, p.y, p.z) for p in found.multi_face_landmarks[0].landmark], np.float32)
    return points * np.array([picture.shape[1], picture.shape[0], picture.shape[1]], np.float32)


class MediaPipe:
    """Their detectors, mesh and segmentation; of single pictures a `search.Detector`."""

    def __init__(self) -> None:
        from mediapipe.python.solutions import face_detection, face_mesh, selfie_segmentation

        self._found = {
            "near": face_detection.FaceDetection(model_selection=0),
            "far": face_detection.FaceDetection(model_selection=1),
        }
        self._still = face_mesh.FaceMesh(static_image_mode=True, max_num_faces=1, refine_landmarks=True)
        self._track = face_mesh.FaceMesh(static_image_mode=False, max_num_faces=1, refine_landmarks=True)
        self._person = selfie_segmentation.SelfieSegmentation(model_selection=0)

    def faces(self, picture: np.ndarray, kind: str) -> list[tuple[float, np.ndarray]]:
        """Return score, and corners and key points (8, 2) in pixels, of each face."""
        size = np.array(picture.shape[1::-1], np.float64)
        found = []
        for face in self._found[kind].process(np.ascontiguousarray(picture)).detections or []:
            box = face.location_data.relative_bounding_box
            corners = [(box.xmin, box.ymin), (box.xmin + box.width, box.ymin + box.height)]
            places = [(place.x, place.y) for place in face.location_data.relative_keypoints]
            found.append((float(face.score[0]), np.array([*corners, *places]) * size))
        return found

    def boxes(self, picture: np.ndarray) -> list[tuple[float, float, float, float]]:
        """Do as `search.Detector`."""
        size = np.array(picture.shape[1::-1], np.float64)
        found = [points / size for kind in ("near", "far") for _, points in self.faces(picture, kind)]
        return [(*((points[0] + points[1]) / 2).tolist(), *(points[1] - points[0]).tolist()) for points in found]

    def mesh(self, picture: np.ndarray) -> np.ndarray | None:
        """Do as `search.Detector`."""
        return _points(self._still.process(np.ascontiguousarray(picture)), picture)

    def look(self, picture: np.ndarray) -> list[tuple[float, np.ndarray]]:
        """Do as `plausible.Look`."""
        return [(score, points[2:].astype(np.float32)) for score, points in self.faces(picture, "near")]

    def track(self, frames: list[np.ndarray]) -> list[np.ndarray | None]:
        """Return the landmarks of consecutive frames."""
        self._track.reset()
        return [_points(self._track.process(np.ascontiguousarray(frame)), frame) for frame in frames]

    def person(self, picture: np.ndarray) -> np.ndarray:
        """Return where a person is in a picture (256, 256, 3)."""
        return np.array(self._person.process(np.ascontiguousarray(picture)).segmentation_mask, np.float32)


def main() -> None:
    """Write the file."""
    from PIL import Image

    picture = np.asarray(Image.open(PORTRAIT).convert("RGB"))
    theirs = MediaPipe()
    (near,), (far,) = theirs.faces(picture, "near"), theirs.faces(picture, "far")
    np.savez_compressed(
        GOLDEN,
        near_score=near[0],
        near_points=near[1],
        far_score=far[0],
        far_points=far[1],
        still=theirs.mesh(picture),
        track=theirs.track(shifted(picture))[-1],
        person=theirs.person(picture[::2, ::2])[::4, ::4].astype(np.float16),
    )


if __name__ == "__main__":
    main()
