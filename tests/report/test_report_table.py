"""The rows of the table: one candidate each, every figure beside its baseline's, every gap a dash."""

from __future__ import annotations

from dataclasses import replace

import pytest

from compress.evidence import Candidate, Choice, Evidence, Interval, Metric, Parity, TargetEvidence, Verdict
from compress.report.quality import Figure
from compress.report.table import COLUMNS, REASON_LENGTH, Row, legend, table_rows, target_rows


def row_of(evidence: Evidence, target: str, scheme: str) -> Row:
    return next(row for row in table_rows(evidence) if (row.target, row.scheme) == (target, scheme))


def with_candidate(target: TargetEvidence, candidate: Candidate) -> TargetEvidence:
    others = (item for item in target.candidates if item.scheme != candidate.scheme)
    return replace(target, candidates=(*others, candidate))


def test_one_row_a_candidate_baseline_first(evidence: Evidence) -> None:
    rows = table_rows(evidence)
    assert [(row.target, row.scheme) for row in rows] == [
        (target.target, candidate.scheme) for target in evidence.targets for candidate in target.candidates
    ]
    assert all(len(row.cells) == len(COLUMNS) for row in rows)


def test_cells_of_a_measured_candidate(evidence: Evidence) -> None:
    row = row_of(evidence, "onnxruntime-cpu", "int8-dynamic")
    assert row.size == "861 kB (0.26x)"
    assert row.latency == "0.31 ms  0.62x [0.60, 0.65] FASTER"
    assert row.memory == "6.10 MB"
    assert row.quality == (Figure("", "0.7791 (-0.0003 [-0.0011, +0.0005])"),)
    assert row.cells[COLUMNS.index("quality")] == "0.7791 (-0.0003 [-0.0011, +0.0005])"
    assert row.parity == "34.1 dB  max 0.012"
    assert row.accelerated == "86 % (18/21)"
    assert (row.ships, row.outcome) == ("ships", "ships")


def test_the_baseline_is_not_compared_with_itself(evidence: Evidence) -> None:
    row = row_of(evidence, "onnxruntime-cpu", "float32")
    assert (row.size, row.latency) == ("3.26 MB", "0.50 ms  baseline")
    assert row.quality == (Figure("", "0.7794"),)


def test_an_error_shows_its_first_line_and_dashes(evidence: Evidence) -> None:
    row = row_of(evidence, "onnxruntime-cpu", "int8-static")
    assert row.cells[2:8] == ("-",) * 6
    assert row.outcome == "error"
    assert row.reason == "LoweringError: `blocks.0.up` | no range for <activation> blocks_0_up_out"
    assert row.ships.startswith("error: LoweringError: ")
    assert "Hint" not in row.ships


def test_an_error_is_never_hidden_by_a_choice(evidence: Evidence) -> None:
    target = evidence.targets[0]
    broken = with_candidate(target, Candidate("int8-dynamic", error="WorkerError: crashed"))
    assert target_rows(broken)[-1].ships == "error: WorkerError: crashed"


def test_the_reason_is_that_of_the_choice_then_of_the_gate(evidence: Evidence) -> None:
    target = evidence.targets[1]
    assert row_of(evidence, "litert-cpu", "int8-dynamic").reason == target.verdicts["int8-dynamic"].reason
    rejected = replace(target, choice=replace(target.choice, rejected={"int8-dynamic": "too large"}))
    assert target_rows(rejected)[2].ships == "no: too large"


@pytest.mark.parametrize(
    ("scheme", "reason"), [("int8-static", "another scheme ships"), (None, "nothing ships on this target")]
)
def test_a_missing_reason_is_said(evidence: Evidence, scheme: str | None, reason: str) -> None:
    target = replace(evidence.targets[1], choice=Choice(scheme, ""), verdicts={"float32": Verdict("PASS", ())})
    assert target_rows(target)[0].ships == f"no: {reason}"


def test_long_reasons_are_cut_in_the_table_only(evidence: Evidence) -> None:
    row = row_of(evidence, "onnxruntime-cpu", "float16")
    assert row.ships.endswith("...")
    assert len(row.ships) <= REASON_LENGTH + len("no: ")
    assert row.reason.endswith("exceeds the tolerance of 2 %")


def test_a_target_without_candidates_keeps_a_row(evidence: Evidence) -> None:
    target = replace(evidence.targets[0], candidates=(), error="WorkerError: no such runtime\nHint: install it.")
    (row,) = target_rows(target)
    assert row.cells == ("onnxruntime-cpu", *("-",) * 7, "error: WorkerError: no such runtime")


def test_partial_figures(evidence: Evidence) -> None:
    target = evidence.targets[0]
    whole = target.candidates[1]
    assert whole.latency is not None
    auc = Metric("auc", 0.7791, 0.7794, -0.0003, None, True, 12, "no interval: 3 positive rows", primary=True)
    partial = replace(
        whole, latency=replace(whole.latency, comparison=None), metrics=(auc,), placement=None, memory=None
    )
    row = target_rows(with_candidate(target, partial))[-1]
    assert row.latency == "0.31 ms  not compared"
    assert row.quality == (Figure("", "0.7791 (-0.0003)"),)
    assert (row.memory, row.accelerated) == ("-", "-")
    undefined = replace(partial, metrics=(replace(auc, value=None, difference=None),))
    assert target_rows(with_candidate(target, undefined))[-1].quality == (Figure("", "-"),)
    unmeasured = replace(partial, metrics=())
    assert target_rows(with_candidate(target, unmeasured))[-1].cells[COLUMNS.index("quality")] == "-"


def test_no_ratio_without_a_baseline_artifact(evidence: Evidence) -> None:
    target = evidence.targets[0]
    baseline = replace(target.candidates[0], artifact=None)
    rows = target_rows(replace(target, candidates=(baseline, *target.candidates[1:])))
    assert (rows[0].size, rows[1].size) == ("-", "861 kB")


def test_parity_is_that_of_the_worst_output(evidence: Evidence) -> None:
    target = evidence.targets[0]
    exact = Parity("torch", 1000, "a", 0.0, None, 1.0, 1.0)
    outputs = (exact, Parity("torch", 1000, "b", 0.5, 12.0, 0.9, 1.0), Parity("torch", 1000, "c", 0.1, 40.0, 1.0, 1.0))
    rows = target_rows(with_candidate(target, replace(target.candidates[1], parity=outputs)))
    assert rows[-1].parity == "12.0 dB  max 0.50"
    rows = target_rows(with_candidate(target, replace(target.candidates[1], parity=(exact,))))
    assert rows[-1].parity == "equal"


def test_the_legend_names_a_level_only_if_all_intervals_share_it(evidence: Evidence) -> None:
    assert "[99 % interval]" in legend(evidence)["latency"]
    assert "[95 % interval]" in legend(evidence)["AUC"]
    target = evidence.targets[0]
    other = Metric("auc", 0.7, 0.7, 0.0, Interval(-0.1, 0.1, 0.9, "DeLong"), True, 10, primary=True)
    changed = with_candidate(target, replace(target.candidates[1], metrics=(other,)))
    assert "[interval]" in legend(replace(evidence, targets=(changed, evidence.targets[1])))["AUC"]
