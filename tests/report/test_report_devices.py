from __future__ import annotations

from dataclasses import replace

from compress.evidence import Evidence
from compress.report import render_markdown
from compress.report.devices import device_notes, device_rows
from compress.report.html import render_html
from compress.report.limits import limits
from compress.report.summary import notes

BEFORE = {"device": "Acme <Lite> 4", "battery_percent": 80.0, "temperatures_c": {"cpu": 31.5}, "warnings": []}
AFTER = {**BEFORE, "battery_percent": 79.0, "warnings": ["it is charging, which warms it"]}
WHY = "quality was not checked there, because benchmark_model gives no outputs"


def on_a_phone(evidence: Evidence) -> Evidence:
    first, *others = evidence.targets
    times = [
        item if item.latency is None else replace(item, latency=replace(item.latency, cpus=(6, 7)))
        for item in first.candidates
    ]
    changed = replace(
        first,
        machine="Acme Lite 4",
        device={"before": BEFORE, "after": AFTER},
        unanswered=WHY,
        candidates=tuple(times),
    )
    return replace(evidence, targets=(changed, *others))


def test_before_and_after_stand_beside_each_other(evidence: Evidence) -> None:
    rows = device_rows(on_a_phone(evidence).targets[0])
    assert ("battery_percent", "80", "79") in rows
    assert ("temperatures_c.cpu", "31.5", "31.5") in rows
    assert ("warnings", "-", "it is charging, which warms it") in rows
    assert device_rows(evidence.targets[0]) == []


def test_every_report_says_what_was_not_asked_there_and_what_disturbed_it(evidence: Evidence) -> None:
    changed = on_a_phone(evidence)
    name = changed.targets[0].target
    assert list(device_notes(changed)) == [(name, WHY), (name, "warning: it is charging, which warms it")]
    assert any(WHY in text for text in notes(changed))
    said = limits(changed)
    assert f"{name}: {WHY}." in said
    assert f"Not of that machine but of the target's own: {name} (Acme Lite 4)." in said
    for text in (render_markdown(changed), render_html(changed)):
        assert WHY in text.replace("\\_", "_")
        assert "6, 7" in text
        assert "cold start" in text
        assert "<Lite>" not in text
    plain = render_markdown(evidence)
    assert "The machine" not in plain
    assert "not checked there" not in plain
