"""What a target's own machine said of itself before and after times were taken, and what was not asked of it."""

from __future__ import annotations

from collections.abc import Iterator

from compress.evidence import Evidence, TargetEvidence
from compress.report.numbers import MISSING
from compress.report.text import plain
from compress.report.values import flatten

DEVICE = ("fact", "before", "after")


def device_rows(target: TargetEvidence) -> list[tuple[str, str, str]]:
    """Returns the cells under `DEVICE`; no rows where times were taken on the machine of the whole evidence."""
    before, after = (dict(flatten(target.device.get(key) or {})) for key in ("before", "after"))
    return [(name, before.get(name, MISSING), after.get(name, MISSING)) for name in {**before, **after}]


def device_notes(evidence: Evidence) -> Iterator[tuple[str, str]]:
    """Yields (target, sentence): what was not asked of a target's machine, and what disturbed its times."""
    for target in evidence.targets:
        if target.unanswered:
            yield plain(target.target), plain(target.unanswered)
        said = (target.device.get(key) or {} for key in ("before", "after"))
        for text in dict.fromkeys(str(text) for facts in said for text in facts.get("warnings", ())):
            yield plain(target.target), plain(f"warning: {text}")
