"""Prints the table of examples/README.md from what the examples' runs left behind.

python examples/table.py
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from compress.evidence import Candidate, TargetEvidence, load_evidence

HERE = Path(__file__).resolve().parent
# Each output folder as the commands in the README leave it.
RUNS = {
    "credit_default": "credit_default/out",
    "credit_multitask, hard": "credit_multitask/out/hard",
    "credit_multitask, soft": "credit_multitask/out/soft",
    "message_intent": "message_intent/out",
    "fashion_items": "fashion_items/out",
}
HEAD = ("example", "target", "scheme", "size", "latency", "quality, difference [95 % interval]", "ships")


def main() -> None:
    """Prints the table; a run that is missing is named."""
    print("| " + " | ".join(HEAD) + " |")
    print("|" + "---|" * len(HEAD))
    for name, folder in RUNS.items():
        path = HERE / folder / "current" / "evidence.json"
        if not path.is_file():
            print(f"| {name} | not run | | | | | |")
            continue
        for target in load_evidence(path).targets:
            for cells in rows(target):
                print("| " + " | ".join((name, *cells)) + " |")


def rows(target: TargetEvidence) -> Iterator[tuple[str, ...]]:
    """Yields the cells of every scheme of a target."""
    baseline = target.candidates[0]
    for candidate in target.candidates:
        yield (
            target.target,
            candidate.scheme,
            size(candidate, baseline),
            latency(candidate),
            "; ".join(quality(candidate)),
            "**yes**" if target.choice.scheme == candidate.scheme else target.verdicts[candidate.scheme].status,
        )


def size(candidate: Candidate, baseline: Candidate) -> str:
    """Bytes, and their ratio to the baseline's."""
    if candidate.artifact is None or baseline.artifact is None:
        return "-"
    bytes_ = candidate.artifact.size_bytes
    return f"{bytes_ / 1e6:.2f} MB ({bytes_ / baseline.artifact.size_bytes:.2f}x)"


def latency(candidate: Candidate) -> str:
    """Median of a call, and the ratio to the baseline's with its interval."""
    if candidate.latency is None:
        return "-"
    found = candidate.latency.comparison
    median = f"{candidate.latency.median_ms:.3g} ms"
    if found is None:
        return median
    return f"{median}, {found.ratio:.2f}x [{found.interval.low:.2f}, {found.interval.high:.2f}] {found.verdict}"


def quality(candidate: Candidate) -> Iterator[str]:
    """The primary metric of each task."""
    for metric in candidate.primary:
        name = f"{metric.task} {metric.name}".strip()
        text = f"{name} {metric.value:.4f}" if metric.value is not None else name
        if metric.difference and metric.interval is not None:
            text += f", {metric.difference:+.4f} [{metric.interval.low:+.4f}, {metric.interval.high:+.4f}]"
        yield text


if __name__ == "__main__":
    main()
