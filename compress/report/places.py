"""The parity certificate as one matrix, and in words: on which processors answers were compared, and what came out."""

from __future__ import annotations

from collections.abc import Iterator

from compress.evidence import Candidate, Evidence, Parity, Place, TargetEvidence
from compress.report.numbers import MISSING, format_count, format_significant, plural
from compress.report.text import first_line, plain

MEANING = (
    "Each cell: the largest difference, its share of the output's range, and the rows that decide otherwise. Here: "
    "against what the file was made from; elsewhere: the same file on the same rows against its answers here."
)

# A share of the output's range below which its digits tell nothing.
_TINY = 1e-5


def matrix(evidence: Evidence) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Returns the headings and a row an output of every artifact that ran in another place; no rows where none did."""
    headings = ("artifact", "output", "here", *(_heading(place) for place in evidence.places))
    rows = []
    for target, candidate in _checked(evidence):
        reasons = dict(candidate.unchecked)
        for own in candidate.fidelity:
            found = {item.place: item for item in candidate.elsewhere if item.output == own.output}
            cells = [_cell(found.get(place.name), reasons.get(place.name, "")) for place in evidence.places]
            rows.append(
                (f"{plain(target.target)} {plain(candidate.scheme)}", plain(own.output), _cell(own, ""), *cells)
            )
    return headings, rows


def checked_on(evidence: Evidence) -> tuple[str, ...]:
    """Returns in sentences where answers were compared, how far they differ at most, and where nobody could look."""
    if not evidence.places:
        return ()
    everything = [(target, item, row) for target, item in _checked(evidence) for row in item.elsewhere]
    said = []
    reached = [place for place in evidence.places if any(row.place == place.name for _, _, row in everything)]
    if everything:
        rows = max(row.rows for _, _, row in everything)
        names = ", ".join(_heading(place) for place in reached)
        said.append(f"answers compared on {names} with those here, {format_count(rows)} rows: {_worst(everything)}")
    for target, candidate in _checked(evidence):
        name = f"{plain(target.target)} {plain(candidate.scheme)}"
        said += [f"{name} was not checked on {plain(place)}: {first_line(why)}" for place, why in candidate.unchecked]
    return tuple(said)


def difference(row: Parity) -> str:
    """Returns the largest difference and its share of the output's range: `0.012 (0.20 %)`, or `equal`."""
    if row.max_abs == 0:
        return "equal"
    return f"{format_significant(row.max_abs, 2)} ({_percent(row)})"


def _worst(found: list[tuple[TargetEvidence, Candidate, Parity]]) -> str:
    flips = sum(row.flips or 0 for _, _, row in found)
    decided = any(row.flips is not None for _, _, row in found)
    target, candidate, row = max(found, key=lambda item: _share(item[2]))
    text = "all are equal to the last bit"
    if row.max_abs:
        where = f"{plain(target.target)} {plain(candidate.scheme)}, {plain(row.output)}, on {plain(row.place)}"
        text = f"the largest difference is {format_significant(row.max_abs, 2)}, {_percent(row)} of the range ({where})"
    changed = f"{plural(flips, 'decision')} changed" if flips else "no decision differs"
    return f"{text}; {changed}" if decided else text


def _percent(row: Parity) -> str:
    share = row.range_share
    if share is None:
        return MISSING
    return f"{share * 100:.2g} %" if share >= _TINY else f"<{_TINY * 100:g} %"


def _share(row: Parity) -> float:
    return float("inf") if row.range_share is None else row.range_share


def _cell(row: Parity | None, reason: str) -> str:
    if row is None:
        return "not checked" if reason else MISSING
    return difference(row) if row.flips is None else f"{difference(row)}, {row.flips:,} of {row.rows:,}"


def _heading(place: Place) -> str:
    return f"{plain(place.name)} ({plain(place.cpu)}, {plain(place.host)})"


def _checked(evidence: Evidence) -> Iterator[tuple[TargetEvidence, Candidate]]:
    for target in evidence.targets:
        for candidate in target.candidates:
            if candidate.elsewhere or candidate.unchecked:
                yield target, candidate
