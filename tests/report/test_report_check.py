from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from rich.console import Console

from compress.bench.findings import ArtifactFindings, BenchFindings, OperatorTime, Throughput
from compress.bench.verdicts import CheckResult, CheckRow, Rule
from compress.errors import StoreError
from compress.evidence import Comparison, Environment, Interval, Latency, Memory, from_json
from compress.report.check import (
    MARKDOWN_LIMIT,
    check_json,
    github_annotations,
    history_lines,
    markdown,
    render_check,
)
from compress.report.junit import junit
from compress.report.latency import ecdf_png, render_bench
from compress.report.trend import read_history, trend_png

INTERVAL = Interval(1.05, 1.12, 0.99, "sign test")
MEMORY = Rule("memory", 1e6, 5e6, 0.1, True, "1.00 MB -> 5.00 MB above the empty worker")


def row(verdict: Any = "SLOWER", model: str = "credit", **change: Any) -> CheckRow:
    timed = {"ratio": 1.08, "interval": INTERVAL, "pairs": 12, "baseline_ms": 2.0, "candidate_ms": 2.16}
    given = {} if verdict == "INCOMPARABLE" else timed
    return CheckRow(model, "phone", "onnxruntime", verdict, 0.02, **{**given, **change})


def result(*rows: CheckRow) -> CheckResult:
    return CheckResult(
        "main", rows, 0.01, 21.0, "2026-01-01T00:00:00+00:00", Environment({"cpu": "X"}, {"onnxruntime": "1"}, ())
    )


GONE = row("INCOMPARABLE", error="the artifact is gone", hint="restore it: edge-compress baseline restore main")
ALL = result(
    row("SAME", "a", ratio=1.0), row(causes=("operators: Conv 21 -> 24",)), row("UNKNOWN", "c"), GONE,
    row("SAME", "e", rules=(MEMORY,)),
)  # fmt: skip


def terminal(found: CheckResult) -> str:
    stream = io.StringIO()
    render_check(found, Console(file=stream, width=100))
    return stream.getvalue()


@pytest.mark.parametrize(
    ("rows", "code"),
    [
        ((), 3),
        ((row("SAME"),), 0),
        ((row("FASTER"),), 0),
        ((row("SAME"), row("UNKNOWN")), 3),
        ((GONE,), 3),
        ((GONE, row("SLOWER")), 1),
        ((row("FASTER", rules=(MEMORY,)),), 1),
    ],
)
def test_the_exit_code_is_that_of_the_worst_row(rows: tuple[CheckRow, ...], code: int) -> None:
    assert result(*rows).exit_code == code


def test_the_terminal_says_verdict_ratio_interval_and_cause() -> None:
    text = terminal(ALL)
    for said in ("1.080x", "[1.05, 1.12]", "SLOWER", "Conv 21 -> 24", "raise --budget-s", "baseline restore main"):
        assert said in text
    assert "memory: 1.00 MB -> 5.00 MB above the empty worker; allowed is 10% more" in text
    assert "SLOWER in at most 0.5% of runs" in text
    assert "nothing was measured, which is no pass" in terminal(result())


def test_junit_counts_failures_and_errors_and_never_skips() -> None:
    suite = ElementTree.fromstring(junit(ALL))
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("6", "2", "2")
    assert suite.findall(".//skipped") == []
    empty = ElementTree.fromstring(junit(result()))
    assert (empty.get("tests"), empty.get("errors")) == ("1", "1")


def test_junit_is_xml_whatever_a_name_holds() -> None:
    odd = result(row("SLOWER", 'a<b>&"\x1b\x00', causes=("]]>\x08",)))
    assert ElementTree.fromstring(junit(odd)).find("testcase/failure") is not None


def test_markdown_fits_a_comment_and_escapes() -> None:
    text = markdown(ALL)
    assert text.startswith("### Latency check failed\n")
    assert "| credit | phone | 2.00 ms | 2.16 ms | 1.080x | [1.05, 1.12] | 12 | SLOWER |" in text
    many = markdown(result(*[row("SLOWER", "m|" + "x" * 200, causes=("y" * 900,)) for _ in range(400)]))
    assert len(many) <= MARKDOWN_LIMIT
    assert "m|x" not in many
    assert "passed" in markdown(result(row("SAME"))).splitlines()[0]
    assert "undecided" in markdown(result()).splitlines()[0]


def test_annotations_name_failed_and_undecided_rows() -> None:
    lines = github_annotations(ALL)
    assert [line.partition(" ")[0] for line in lines] == ["::error", "::warning", "::warning", "::error"]
    assert lines[0].startswith("::error title=latency of credit on phone::1.080x [1.05, 1.12] SLOWER")
    injected = github_annotations(result(row("SLOWER", "a\n::set-output name=x::1", causes=("100%\nb",))))
    assert len(injected) == 1
    assert "\n" not in injected[0]
    assert "100%25" in injected[0]
    assert github_annotations(result())[0].startswith("::error")


def test_json_goes_there_and_back() -> None:
    assert from_json(CheckResult, check_json(ALL)) == ALL


def test_history_is_read_back_and_a_torn_last_line_skipped(tmp_path: Path) -> None:
    path = tmp_path / "h.jsonl"
    path.write_text("".join(f"{line}\n" for line in history_lines(ALL)) + '{"torn')
    history = read_history(path)
    assert [item["verdict"] for item in history] == ["SAME", "SLOWER", "UNKNOWN", "INCOMPARABLE", "SAME"]
    assert history[1]["interval"] == [1.05, 1.12]
    path.write_text('{"torn\n' + history_lines(ALL)[0] + "\n")
    with pytest.raises(StoreError, match=r"h\.jsonl: line 1"):
        read_history(path)
    with pytest.raises(StoreError, match=r"none\.jsonl"):
        read_history(tmp_path / "none.jsonl")


def test_a_trend_is_a_picture_even_without_ratios() -> None:
    pytest.importorskip("matplotlib")
    history = [json.loads(line) for line in history_lines(ALL)]
    assert trend_png(history * 2).startswith(b"\x89PNG")
    assert trend_png([]).startswith(b"\x89PNG")


def findings(p99_ms: float | None = None) -> BenchFindings:
    def latency(comparison: Comparison | None) -> Latency:
        return Latency(1, 1, 2, 2.0, 2.2, p99_ms, 8.0, 3.0, comparison, ((2.0, 2.1), (1.9, 2.0)))

    compared = Comparison("a.onnx", 1.08, INTERVAL, "SLOWER", 0.02, 12)
    operators = tuple(OperatorTime(f"op{k}", "Conv", 0.1, "stem" if not k else "") for k in range(20))
    one = ArtifactFindings("a.onnx", "0" * 64, 1000, "float", latency(None), Memory(5 << 20, 1 << 20),
                           (Throughput(1, 1, 2.0), Throughput(8, 1, 4.0)), 3.5, operators)  # fmt: skip
    two = ArtifactFindings(
        "b.onnx", "1" * 64, 2000, "int8", latency(compared), None, one.throughput, None, (), "no tool"
    )
    bad = ArtifactFindings("c.onnx", "2" * 64, 10, "float", None, None, one.throughput[:1], None, (), error="crashed")
    machine = Environment({"cpu": "X", "allowed_cores": 2}, {"onnxruntime": "1"}, ("busy",))
    return BenchFindings("phone", "onnxruntime", "1 synthetic rows", (one, two, bad), machine, "now")


def test_a_bench_says_what_was_measured_and_what_is_missing() -> None:
    stream = io.StringIO()
    render_bench(findings(), Console(file=stream, width=120))
    text = stream.getvalue()
    for said in (
        "1 synthetic rows", "2.20 ms", "3.50 ms", "1.08x [1.05, 1.12] of a.onnx: SLOWER (12 pairs)", "2000",
        "p99 662", "stem", "and 5 more", "b.onnx: no tool", "c.onnx: not measured: crashed", "warning: busy",
    ):  # fmt: skip
        assert said in text
    assert findings().exit_code == 3
    assert from_json(BenchFindings, __import__("compress.evidence").evidence.to_json(findings())) == findings()


def test_layers_stand_beside_each_other() -> None:
    one, two, bad = findings().artifacts
    twin = replace(two, operators=(OperatorTime("x", "Conv", 0.25, "stem"), OperatorTime("y", "Add", 0.5)))
    stream = io.StringIO()
    render_bench(replace(findings(), artifacts=(one, twin, bad)), Console(file=stream, width=120))
    table = stream.getvalue().partition("layer of the Model")[2]
    (stem,) = [line.split() for line in table.splitlines() if line.startswith("stem")]
    assert stem == ["stem", "0.10", "ms", "0.25", "ms"]
    (other,) = [line.split() for line in table.splitlines() if line.startswith("(between")]
    assert other == ["(between", "layers)", "1.90", "ms", "0.50", "ms"]


def test_the_distribution_is_a_picture() -> None:
    pytest.importorskip("matplotlib")
    assert ecdf_png(findings()).startswith(b"\x89PNG")
