"""What ships and why, in a line; what was left out or skipped, in a sentence."""

from __future__ import annotations

from dataclasses import replace

from compress.evidence import Choice, Evidence, LayerOutcome
from compress.report.summary import (
    count_reasons,
    left_in_float,
    no_speed_up,
    not_accelerated,
    notes,
    verdict_line,
    why_not,
)


def test_the_line_of_a_shipped_scheme_gives_its_gain_and_its_price(evidence: Evidence) -> None:
    assert verdict_line(evidence.targets[0]) == (
        "ships: int8-dynamic - 0.62x the latency, 0.26x the size, AUC -0.0003 [-0.0011, +0.0005]"
    )


def test_a_latency_that_is_not_faster_is_marked(evidence: Evidence) -> None:
    target = replace(evidence.targets[0], choice=Choice("float16", "the smallest"))
    assert verdict_line(target).startswith("ships: float16 - 1.08x the latency (SLOWER), 0.50x the size")


def test_the_baseline_ships_for_a_reason(evidence: Evidence) -> None:
    target = replace(evidence.targets[0], choice=Choice("float32", "float32: float16 is 1.08x slower"))
    assert verdict_line(target) == "ships: float32 (the baseline) - float16 is 1.08x slower"


def test_nothing_ships_for_a_reason(evidence: Evidence) -> None:
    target = replace(evidence.targets[0], choice=Choice(None, "nothing ships: float32 takes 6.1 ms"))
    assert verdict_line(target) == "ships: nothing - float32 takes 6.1 ms"
    failed = replace(target, candidates=(), error="WorkerError: no worker\nHint: see the log.")
    assert verdict_line(failed) == "ships: nothing - WorkerError: no worker Hint: see the log."
    assert verdict_line(replace(target, choice=Choice(None, ""))) == "ships: nothing - no reason was recorded"


def test_a_reason_is_left_out_only_where_the_line_gave_it_for_that_scheme(evidence: Evidence) -> None:
    choice = Choice("float32", "float32: float16 is slower", {"float16": "is slower", "int8-dynamic": "is slower"})
    target = replace(evidence.targets[0], choice=choice)
    assert [row.scheme for row in why_not(target)] == ["int8-dynamic", "int8-static"]


def test_a_choice_without_figures_falls_back_to_its_reason(evidence: Evidence) -> None:
    target = evidence.targets[0]
    bare = replace(target.candidates[1], artifact=None, latency=None, metrics=())
    changed = replace(target, candidates=(target.candidates[0], bare))
    assert verdict_line(changed) == "ships: int8-dynamic - the fastest scheme that passes the gate"
    assert verdict_line(replace(changed, candidates=())).startswith("ships: int8-dynamic - the fastest")


def test_layers_left_in_float_are_counted_by_reason(evidence: Evidence) -> None:
    baseline, quantized = evidence.targets[0].candidates[:2]
    assert left_in_float(quantized) == (
        "2 of 14 layers left in float32: no int8 kernel for layer_norm (1), excluded by the pattern `head*` (1)"
    )
    assert left_in_float(baseline) == ""
    assert quantized.artifact is not None
    whole = replace(quantized.artifact, layers=(LayerOutcome("a", "linear", (), "int8"),))
    assert left_in_float(replace(quantized, artifact=whole)) == ""


def test_operators_off_the_accelerated_path_are_counted(evidence: Evidence) -> None:
    baseline, quantized = evidence.targets[0].candidates[:2]
    assert not_accelerated(quantized) == "3 of 21 operators not on MLAS: no kernel on <MLAS>: Gather (3)"
    assert not_accelerated(baseline) == ""


def test_a_smaller_model_that_is_not_faster_says_so(evidence: Evidence) -> None:
    target = evidence.targets[0]
    slow = replace(target.candidates[3 if target.candidates[3].latency else 2], scheme="float32")
    assert slow.latency is not None and slow.latency.comparison is not None
    said = no_speed_up(evidence, slow)
    assert said.startswith("no speed-up of the smaller model was measured: 71 % of the multiply-adds, ")
    assert said.endswith(f"the latency ({slow.latency.comparison.verdict})")
    assert any(
        said in note
        for note in notes(replace(evidence, targets=(replace(target, candidates=(target.candidates[0], slow)),)))
    )
    # A model of the same arithmetic promised nothing; another scheme differs by more than the passes.
    assert no_speed_up(replace(evidence, compressed=evidence.model), slow) == ""
    assert no_speed_up(evidence, replace(slow, scheme="int8-static")) == ""
    fast = replace(slow.latency, comparison=replace(slow.latency.comparison, verdict="FASTER"))
    assert no_speed_up(evidence, replace(slow, latency=fast)) == ""


def test_reasons_are_sorted_counted_and_bounded() -> None:
    assert count_reasons(["a", "b", "b", ""]) == "b (2), a (1), no reason given (1)"
    assert count_reasons(list("abcdef")) == "a (1), b (1), c (1), d (1), others (2)"


def test_notes_say_everything_once_with_its_places(evidence: Evidence) -> None:
    found = notes(evidence)
    assert len(found) == len(set(found))
    left = "2 of 14 layers left in float32: no int8 kernel for layer_norm (1), excluded by the pattern `head*` (1)"
    assert f"onnxruntime-cpu int8-dynamic, float16; litert-cpu int8-static, int8-dynamic: {left}" in found
    assert any(note.startswith("prune: 6 changed, 3 skipped: the model's output (2)") for note in found)
    assert any(note.startswith("warning: load average 1.9") for note in found)
    assert any(note.startswith("data: 35 rows") for note in found)


def test_notes_say_why_the_auc_lacks_something(evidence: Evidence) -> None:
    target = evidence.targets[0]
    candidate = target.candidates[1]
    noted = replace(candidate.metrics[0], note="no interval: 3 positive rows")
    changed = replace(target, candidates=(target.candidates[0], replace(candidate, metrics=(noted,))))
    assert "onnxruntime-cpu int8-dynamic: AUC: no interval: 3 positive rows" in notes(
        replace(evidence, targets=(changed,))
    )


def test_a_target_that_broke_off_is_noted(evidence: Evidence) -> None:
    broken = replace(evidence.targets[0], error="WorkerError: the machine is full")
    assert "onnxruntime-cpu: WorkerError: the machine is full" in notes(replace(evidence, targets=(broken,)))
