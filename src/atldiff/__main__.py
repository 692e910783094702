"""Run the command line as `python -m atldiff`."""

from __future__ import annotations

from atldiff.cli import main

if __name__ == "__main__":
    main()
