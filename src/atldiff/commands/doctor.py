"""`atldiff doctor`: look at this machine and the installation."""

from __future__ import annotations

from dataclasses import dataclass, field

from atldiff.commands.options import ReportOptions, read


@dataclass(frozen=True, slots=True, kw_only=True)
class Doctor:
    """Look at this machine and the installation, and say how to mend what is wrong."""

    report: ReportOptions = field(default_factory=ReportOptions)


def run(args: list[str]) -> int:
    """Run the sub-command; 1 where something is wrong."""
    options = read(Doctor, "doctor", args)

    from atldiff import doctor

    return doctor.run(json=options.report.json)
