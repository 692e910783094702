#!/usr/bin/env bash
# safetensors.*.save_file(tensors, path) no longer writes into the file that is at `path`: since 0.8.0 it writes another
# one beside it and renames that over `path`.
#
# What follows from it on Linux, with safetensors 0.7.0 against 0.8.0 (numpy 2.4.6): a symbolic link at `path` becomes a
# plain file and its target stays as it was; other hard links keep the old content; a lock or a descriptor that somebody
# holds on `path` belongs to a file without a name; a device node at `path`, such as /dev/full in a test of a full disk
# that runs as root, is replaced by a file (not shown here); and the new file has mode 0600 whatever the umask, so that
# nobody but its owner can read a checkpoint. A process that is killed while it saves leaves `.tmpXXXXXX` beside it.
#
# Source: https://github.com/safetensors/safetensors/pull/764 (the change), .../issues/782 (the mode). The pages of
# save_file do not mention it.
# Exits non-zero where 0.8.0, or the version given, behaves otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
cat > "$folder/look.py" <<'PYTHON'
import os
import sys
import tempfile
from importlib.metadata import version

import numpy as np
from safetensors.numpy import save_file

os.umask(0o022)
os.chdir(tempfile.mkdtemp(dir=sys.argv[1]))
for name in ("target", "linked"):
    with open(name, "w") as file:
        file.write("old")
os.symlink("target", "symbolic")
os.link("linked", "hard")
for name in ("symbolic", "hard", "new"):
    save_file({"x": np.zeros(4, np.float32)}, name)
seen = {
    "a symbolic link is replaced": not os.path.islink("symbolic") and open("target").read() == "old",
    "another hard link keeps the old content": open("linked", "rb").read() == b"old",
    "mode of a new file under umask 022": oct(os.stat("new").st_mode & 0o777),
}
print("safetensors", version("safetensors"), seen)
sys.exit(list(seen.values()) != [True, True, "0o600"])
PYTHON
pip="$folder/venv/bin/pip install --quiet --disable-pip-version-check"
$pip numpy==2.4.6 safetensors==0.7.0
"$folder/venv/bin/python" "$folder/look.py" "$folder" && { echo "0.7.0 behaves like 0.8.0"; exit 1; }
$pip "safetensors==${1:-0.8.0}"
"$folder/venv/bin/python" "$folder/look.py" "$folder"
# safetensors 0.7.0 {'a symbolic link is replaced': False, 'another hard link keeps the old content': False, 'mode of a new file under umask 022': '0o644'}
# safetensors 0.8.0 {'a symbolic link is replaced': True, 'another hard link keeps the old content': True, 'mode of a new file under umask 022': '0o600'}
