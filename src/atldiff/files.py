"""How small files are written, whole or not at all; the digest of a file of any size; the bundled portrait."""

from __future__ import annotations

import hashlib
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text under a temporary name in the same folder and move it into place."""
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def sha256(path: Path) -> str:
    """Return the digest of a file in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def demo_portrait() -> Path | None:
    """Return the bundled portrait: in the wheel, or in the checkout this package runs from; None in neither."""
    package = Path(__file__).resolve().parent
    places = (package / "examples" / "portrait.jpg", package.parents[1] / "examples" / "portrait.jpg")
    return next((place for place in places if place.is_file()), None)
