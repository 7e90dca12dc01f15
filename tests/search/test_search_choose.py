from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.evidence import ArtifactInfo, Candidate, Comparison, Interval, Latency, Metric, RuleResult, Verdict
from compress.gate import judge
from compress.recipe import GateConfig
from compress.search import choose
from compress.search.wording import decimals_for, has_several_tasks, of_task, percent, ratio, span, title
from compress.target import Budgets

TOLERANCE = 0.02


def verdict_of(low, high):
    if high < 1:
        return "FASTER"
    if low > 1 + TOLERANCE:
        return "SLOWER"
    return "SAME" if low >= 1 - TOLERANCE and high <= 1 + TOLERANCE else "UNKNOWN"


def scheme(name, time=None, size_bytes=1000, error="", timed=None):
    """A candidate with `time` = (ratio, low, high) beside the baseline; None for the baseline."""
    comparison = None
    if time is not None:
        interval = Interval(time[1], time[2], 0.99, "bootstrap")
        comparison = Comparison("float32", time[0], interval, timed or verdict_of(*time[1:]), TOLERANCE, 9)
    latency = Latency(1, 1, 9, 1.0, None, None, 10.0, 1.0, comparison, ())
    info = ArtifactInfo(name, "onnxruntime", f"{name}.onnx", "0" * 64, size_bytes, ("x",), ("risk",), ())
    return Candidate(name, artifact=info, latency=latency, error=error)


def passed(*candidates, **others):
    good = Verdict("PASS", (RuleResult("auc_margin", "PASS", "loses 0.0001 AUC"),))
    found = {item.scheme: good for item in candidates}
    return found | {
        name.replace("_", "-"): Verdict(s, (RuleResult("auc_margin", s, r),)) for name, (s, r) in others.items()
    }


BASE = scheme("float32", size_bytes=4000)


def test_the_fastest_that_passed_ships():
    items = (BASE, scheme("int8-static", (0.62, 0.60, 0.64)), scheme("int8-dynamic", (0.41, 0.39, 0.43), 1100))
    choice = choose(items, passed(*items), "fastest")
    assert choice.scheme == "int8-dynamic"
    assert choice.reason == (
        "int8-dynamic takes 0.41x (0.39-0.43) of the time of float32 in 0.28x of its bytes; its verdict is PASS"
    )
    assert choice.rejected == {
        "float32": "passed, but int8-dynamic is faster: 0.41x against 1.00x",
        "int8-static": "passed, but int8-dynamic is faster: 0.41x against 0.62x",
    }


def test_float_ships_with_a_plain_reason():
    items = (BASE, scheme("int8-static", (1.31, 1.22, 1.40)), scheme("int8-dynamic", (0.41, 0.39, 0.43)))
    loss = "loses 0.0061 AUC (0.0042-0.0080), more than the margin 0.003"
    choice = choose(items, passed(*items, int8_dynamic=("FAIL", loss)), "fastest")
    assert choice.scheme == "float32"
    assert choice.reason == (
        "float32: int8-static is 1.31x slower (1.22-1.40), "
        "int8-dynamic loses 0.0061 AUC (0.0042-0.0080), more than the margin 0.003"
    )
    assert choice.rejected == {"int8-static": "is 1.31x slower (1.22-1.40)", "int8-dynamic": loss}


def test_times_that_cannot_be_told_apart_go_to_the_smaller_file():
    items = (BASE, scheme("a", (0.50, 0.46, 0.54), 2000), scheme("b", (0.53, 0.50, 0.56), 1500))
    choice = choose(items, passed(*items), "fastest")
    assert choice.scheme == "b"
    assert choice.rejected["a"] == (
        "passed, but b is smaller at about the same time: 1,500 against 2,000 bytes, 0.53x against 0.50x"
    )


def test_smallest_takes_the_fewest_bytes_but_never_a_slower_scheme():
    items = (
        BASE,
        scheme("a", (0.50, 0.48, 0.52), 2000),
        scheme("b", (0.90, 0.85, 0.95), 1500),
        scheme("c", (1.50, 1.40, 1.60), 500),
    )
    choice = choose(items, passed(*items), "smallest")
    assert choice.scheme == "b"
    assert choice.rejected["a"] == "passed, but b is smaller: 1,500 against 2,000 bytes"
    assert choice.rejected["c"].startswith("is 1.50x slower")
    assert choose(items, passed(*items), "fastest").scheme == "a"


def test_a_scheme_that_gains_nothing_does_not_ship():
    same = scheme("float16", (0.99, 0.985, 0.995), 4000, timed="SAME")
    larger = scheme("int8-static", (1.0, 0.99, 1.01), 4500)
    choice = choose((BASE, same, larger), passed(BASE, same, larger), "fastest")
    assert choice.scheme == "float32"
    assert choice.rejected["float16"] == "passed, but gains nothing over float32: 1.00x against 0.99x, 4,000 bytes both"
    assert "float32 is smaller at about the same time" in choice.rejected["int8-static"]
    smaller = scheme("float16", (1.0, 0.99, 1.01), 2000)
    assert choose((BASE, smaller), passed(BASE, smaller), "fastest").scheme == "float16"


def test_an_unknown_time_ships_only_for_its_size():
    wide = (0.99, 0.90, 1.10)
    small = scheme("int8", wide, 1000)
    choice = choose((BASE, small), passed(BASE, small), "fastest")
    assert choice.scheme == "int8"
    assert choice.reason == (
        "int8 takes 0.99x (0.90-1.10) of the time of float32 in 0.25x of its bytes; whether it is faster is not "
        "settled, it ships for its size; its verdict is PASS"
    )
    large = scheme("int8", wide, 4000)
    choice = choose((BASE, large), passed(BASE, large), "fastest")
    assert choice.reason == "float32: int8 may be slower: 0.99x (0.90-1.10), and is not smaller"
    likely_slower = scheme("int8", (1.2, 0.9, 1.5), 1000)
    choice = choose((BASE, likely_slower), passed(BASE, likely_slower), "fastest")
    assert choice.reason == "float32: int8 may be slower: 1.20x (0.90-1.50)"


def test_a_settled_time_is_preferred_to_an_unknown_one():
    items = (BASE, scheme("sure", (0.80, 0.78, 0.82), 2000), scheme("unsure", (0.60, 0.30, 1.20), 1000))
    choice = choose(items, passed(*items), "fastest")
    assert choice.scheme == "sure"
    assert choice.rejected["unsure"] == "passed, but its time is not settled: 0.60x (0.30-1.20)"


def test_a_baseline_that_failed_does_not_ship():
    items = (BASE, scheme("int8", (1.0, 0.99, 1.01), 5000))
    too_slow = "takes 9 ms a call (median), more than the bound 5 ms"
    verdicts = passed(*items, float32=("FAIL", too_slow))
    choice = choose(items, verdicts, "fastest")
    assert (choice.scheme, choice.rejected) == ("int8", {"float32": too_slow})
    neither = choose(items, verdicts | passed(int8=("INCONCLUSIVE", "may lose AUC")), "fastest")
    assert neither.scheme is None
    assert neither.reason == f"nothing ships: float32 {too_slow}, int8 may lose AUC"
    assert list(neither.rejected) == ["float32", "int8"]


def test_without_a_measured_baseline_nothing_was_compared():
    broken = scheme("float32", error="the worker was killed")
    int8 = scheme("int8", (0.5, 0.4, 0.6))
    choice = choose((broken, int8), passed(int8, float32=("INCOMPARABLE", "could not be measured")), "fastest")
    assert choice.scheme is None
    assert choice.reason == "float32 could not be measured: the worker was killed; nothing was compared with it"
    assert choice.rejected == {
        "float32": "could not be measured: the worker was killed",
        "int8": "was compared with nothing",
    }


def test_the_baseline_is_known_by_its_place_not_its_name():
    original = scheme("original", size_bytes=4000)
    compressed = scheme("float32", (0.7, 0.68, 0.72), 2000)
    choice = choose((original, compressed), passed(original, compressed), "fastest")
    assert choice.scheme == "float32"
    assert "of the time of original" in choice.reason
    slower = scheme("float32", (1.7, 1.68, 1.72), 2000)
    assert choose((original, slower), passed(original, slower), "fastest").scheme == "original"


def test_what_is_missing_does_not_ship():
    untimed, unjudged = scheme("untimed"), scheme("unjudged", (0.5, 0.4, 0.6))
    no_file = Candidate("no-file", latency=unjudged.latency)
    broken = scheme("broken", (0.5, 0.4, 0.6), error="crashed")
    items = (BASE, untimed, unjudged, no_file, broken)
    choice = choose(items, passed(BASE, untimed, no_file, broken), "fastest")
    assert choice.scheme == "float32"
    assert choice.rejected == {
        "untimed": "was not timed beside float32",
        "unjudged": "was not judged",
        "no-file": "has no file",
        "broken": "could not be measured: crashed",
    }


def test_alone_and_empty():
    assert choose((BASE,), passed(BASE), "fastest").reason == "float32: no other scheme was tried"
    assert choose((), {}, "fastest").scheme is None


times = st.tuples(st.floats(0.1, 3), st.floats(0, 0.5), st.floats(0, 0.5)).map(
    lambda t: (t[0], t[0] - t[1], t[0] + t[2])
)


@settings(deadline=None)
@given(
    st.lists(st.tuples(times, st.integers(1, 6000), st.sampled_from(["PASS", "FAIL", "INCONCLUSIVE"])), max_size=6),
    st.sampled_from(["PASS", "FAIL", "INCOMPARABLE"]),
    st.sampled_from(["fastest", "smallest", "best"]),
)
def test_what_ships_passed_and_is_not_slower(rows, of_baseline, objective):
    items = (BASE, *(scheme(f"s{k}", time, size) for k, (time, size, _) in enumerate(rows)))
    statuses = {"float32": of_baseline} | {f"s{k}": row[2] for k, row in enumerate(rows)}
    verdicts = {name: Verdict(status, (RuleResult("r", status, "said"),)) for name, status in statuses.items()}
    choice = choose(items, verdicts, objective)
    assert {choice.scheme, *choice.rejected} - {None} == set(statuses)
    assert choice.scheme not in choice.rejected
    assert all(choice.rejected.values())
    if choice.scheme is None:
        assert of_baseline != "PASS"
        return
    assert statuses[choice.scheme] == "PASS"
    shipped = next(item for item in items if item.scheme == choice.scheme)
    if shipped is not BASE:
        comparison = shipped.latency.comparison
        assert comparison.verdict != "SLOWER"
        gains = comparison.verdict == "FASTER" or shipped.artifact.size_bytes < 4000
        assert gains or of_baseline != "PASS"


@pytest.mark.parametrize(
    ("low", "high", "shown"),
    [(0.0042, 0.008, "(0.0042-0.0080)"), (-0.001, 0.0, "(-0.0010 to 0.0000)"), (-1e-9, 0.5, "(0.0000-0.5000)")],
)
def test_intervals_are_written_so_that_signs_are_seen(low, high, shown):
    assert span(low, high, 4) == shown


def test_figures_are_written_with_their_digits():
    assert (ratio(0.4149), percent(0.97539)) == ("0.41x", "97.54 %")
    assert [decimals_for(bound) for bound in (0.0, 0.5, 0.003, 0.0005, 1e-5, 1e-300)] == [4, 4, 4, 5, 6, 12]
    assert [decimals_for(bound) for bound in (9.9, 10, 250, 1000, 1e9)] == [4, 2, 1, 0, 0]


def test_metrics_are_named_with_their_task_where_there_are_several():
    assert [title(name) for name in ("auc", "top_1", "mae", "f_beta")] == [
        "AUC",
        "top-1 accuracy",
        "mean absolute error",
        "f_beta",
    ]
    assert (of_task("AUC", "default", several=True), of_task("AUC", "default", several=False)) == (
        "AUC of default",
        "AUC",
    )
    one, other = (Metric("auc", 0.7, 0.7, 0.0, None, True, 10, task=task) for task in ("default", "growth"))
    assert has_several_tasks(Candidate("int8", metrics=(one, other)))
    assert not has_several_tasks(Candidate("int8", metrics=(one, one)))
    assert not has_several_tasks(Candidate("int8"))


def test_the_reason_of_the_choice_names_the_task_that_lost():
    lost = Metric(
        "top_1", 0.71, 0.72, -0.01, Interval(-0.012, -0.008, 0.95, "Tango score"), True, 900, "", "kind", True
    )
    kept = Metric("r2", 0.5, 0.5, 0.0, Interval(-0.001, 0.001, 0.95, "bootstrap"), True, 900, "", "growth", True)
    int8 = replace(scheme("int8", (0.41, 0.39, 0.43)), metrics=(kept, lost))
    verdict = judge(int8, GateConfig(min_agreement=0), Budgets())
    choice = choose((BASE, int8), passed(BASE) | {"int8": verdict}, "fastest")
    reason = "loses 0.0100 top-1 accuracy of kind (0.0080-0.0120), more than the margin 0.005"
    assert choice.rejected == {"int8": reason}
    assert choice.reason == f"float32: int8 {reason}"


def losing(item, loss):
    metric = Metric("auc", 0.77, 0.77 + loss, -loss, Interval(-loss, -loss, 0.95, "DeLong"), True, 900, "", "", True)
    return replace(item, metrics=(metric,))


def test_best_ships_what_loses_least_among_those_that_gain_something():
    small = losing(scheme("small", (0.4, 0.38, 0.42), 1000), 0.002)
    good = losing(scheme("good", (0.7, 0.68, 0.72), 2000), 0.0005)
    idle = losing(scheme("idle", (1.0, 0.99, 1.01), 4000), 0.0)
    items = (BASE, small, good, idle)
    choice = choose(items, passed(*items), "best")
    assert choice.scheme == "good"
    assert choice.rejected["small"] == "passed, but good loses less: 0.0005 against 0.0020"
    assert choose((BASE, idle), passed(BASE, idle), "best").scheme == "float32"


def test_without_a_fallback_the_original_does_not_ship():
    slow = scheme("slow", (1.5, 1.4, 1.6))
    choice = choose((BASE, slow), passed(BASE, slow), "fastest", fallback=False)
    assert choice.scheme is None
    assert choice.rejected["float32"] == "is the original, which is not to ship (gate.fallback = false)"
    fast = scheme("fast", (0.5, 0.4, 0.6))
    assert choose((BASE, fast), passed(BASE, fast), "fastest", fallback=False).scheme == "fast"


def untimed(name, size_bytes):
    return Candidate(name, artifact=scheme(name, size_bytes=size_bytes).artifact)


def test_where_no_times_are_taken_the_smallest_that_passed_ships():
    items = (untimed("float32", 4000), untimed("int8-static", 1200), untimed("int8-dynamic", 1100))
    choice = choose(items, passed(*items), "fastest", timed=False)
    assert choice.scheme == "int8-dynamic"
    assert choice.reason == (
        "int8-dynamic has 1,100 bytes, float32 4,000; its verdict is PASS; no times are taken here"
    )
    assert choice.rejected == {
        "float32": "passed, but int8-dynamic is smaller: 1,100 against 4,000 bytes",
        "int8-static": "passed, but int8-dynamic is smaller: 1,100 against 1,200 bytes",
    }
    # With times, the same figures ship nothing but the baseline.
    assert choose(items, passed(*items), "fastest").scheme == "float32"


def test_without_times_the_verdict_still_counts():
    items = (untimed("float32", 4000), untimed("int8-static", 1200))
    choice = choose(items, passed(items[0], int8_static=("FAIL", "differs")), "fastest", timed=False)
    assert (choice.scheme, choice.rejected) == ("float32", {"int8-static": "differs"})
