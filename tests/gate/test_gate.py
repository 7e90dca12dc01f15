import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtr

from compress.evaluate import compare
from compress.evaluate.discrimination import delong_paired
from compress.evaluate.paired import bca_of_mean, mean_of, replicate
from compress.evidence import (
    ArtifactInfo,
    Candidate,
    Interval,
    Latency,
    Memory,
    Metric,
    Operators,
    Parity,
    Placement,
    to_json,
)
from compress.gate import judge, worst
from compress.recipe import GateConfig
from compress.target import Budgets

FREE = Budgets()


PRIMARY = ("auc", "top_1", "r2")


def metric(name="auc", difference=0.0, low=0.0, high=0.0, *, higher=True, rows=1000, value=0.7, note="", task=""):
    interval = Interval(low, high, 0.95, "DeLong")
    return Metric(name, value, 0.7, difference, interval, higher, rows, note, task, name in PRIMARY)


def agreement(share=1.0, task=""):
    return Metric("agreement", share, None, None, Interval(0.9, 1.0, 0.95, "Wilson"), True, 1000, task=task)


def candidate(*metrics, **fields):
    return Candidate("int8", metrics=(*metrics, agreement()), **fields)


def judged(item, budgets=FREE, margins=None, **policy):
    return judge(item, GateConfig(**policy), budgets, margins or {})


def rule(verdict, name):
    return next(item for item in verdict.rules if item.rule == name)


def latency(median_ms):
    return Latency(1, 1, 9, median_ms, None, None, 10.0, 1.0, None, ())


def artifact(size_bytes):
    return ArtifactInfo("int8", "onnxruntime", "model.onnx", "0" * 64, size_bytes, ("x",), ("risk",), ())


def parity(sqnr_db, output="risk"):
    return Parity("model", 100, output, 0.1, sqnr_db, None, 3.0)


def test_a_loss_within_the_margin_passes():
    verdict = judged(candidate(metric(difference=-0.001, low=-0.0029, high=0.0009)))
    assert verdict.status == "PASS"
    assert verdict.reason == ""
    assert rule(verdict, "auc_margin").reason == "loses 0.0010 AUC (-0.0009 to 0.0029), within the margin 0.003"


def test_a_loss_beyond_the_margin_fails():
    verdict = judged(candidate(metric(difference=-0.0061, low=-0.0080, high=-0.0042)))
    assert verdict.status == "FAIL"
    assert verdict.reason == "loses 0.0061 AUC (0.0042-0.0080), more than the margin 0.003"


def test_between_the_two_it_is_inconclusive_and_says_how_many_rows_settle_it():
    verdict = judged(candidate(metric(difference=-0.001, low=-0.005, high=0.003, rows=400)))
    assert verdict.status == "INCONCLUSIVE"
    # The bad end is 0.004 from the estimate and may be 0.002: twice as narrow, four times the rows.
    assert verdict.reason == (
        "loses 0.0010 AUC (-0.0030 to 0.0050): 400 rows do not tell whether it stays within the margin 0.003, "
        "about 1,600 rows would"
    )


def test_rows_that_would_settle_a_likely_failure_come_from_the_good_end():
    verdict = judged(candidate(metric(difference=-0.005, low=-0.020, high=-0.001, rows=1000)))
    assert "about 4,000 rows would" in verdict.reason


@pytest.mark.parametrize("name", ["log_loss", "brier", "ks", "macro_f1", "mae"])
def test_other_margins_count_only_when_set_and_in_the_metric_s_own_direction(name):
    higher = name in ("ks", "macro_f1")
    worse = -1 if higher else 1
    bad = metric(name, worse * 0.02, *sorted((worse * 0.01, worse * 0.03)), higher=higher)
    good = metric(name, -worse * 0.02, *sorted((-worse * 0.01, -worse * 0.03)), higher=higher)
    assert judged(candidate(metric(), bad)).status == "PASS"
    assert judged(candidate(metric(), bad), **{f"{name}_margin": 0.005}).status == "FAIL"
    assert judged(candidate(metric(), bad), **{f"{name}_margin": 0.02}).status == "INCONCLUSIVE"
    assert judged(candidate(metric(), good), **{f"{name}_margin": 0.0}).status == "PASS"


def test_gains_and_small_margins_are_worded_so_that_they_can_be_read():
    gain = judged(candidate(metric(difference=0.002, low=0.001, high=0.003)))
    assert gain.rules[0].reason == "gains 0.0020 AUC (0.0010-0.0030), within the margin 0.003"
    small = judged(candidate(metric(), metric("brier", 2e-5, 1e-5, 3e-5, higher=False)), brier_margin=1e-5)
    assert "adds 0.000020 Brier score (0.000010-0.000030): 1,000 rows do not tell" in small.reason


def test_the_baseline_itself_passes_with_no_margin_at_all():
    rng = np.random.default_rng(0)
    labels, scores = rng.random(50) < 0.4, rng.random(50)
    metrics = compare(labels, scores, scores, cutoff=0.5, resamples=100, seed=0)
    verdict = judged(
        Candidate("float32", metrics=metrics),
        auc_margin=0.0,
        log_loss_margin=0.0,
        brier_margin=0.0,
        ks_margin=0.0,
        min_agreement=1.0,
    )
    assert verdict.status == "PASS"


def test_an_estimate_on_the_margin_is_not_settled_by_rows():
    verdict = judged(candidate(metric(difference=-0.003, low=-0.004, high=-0.002)))
    assert verdict.status == "INCONCLUSIVE"
    assert verdict.reason.endswith("the estimate lies on it, so more rows may not either")


def test_what_was_not_measured_is_incomparable():
    missing = judged(Candidate("int8", metrics=(agreement(),)))
    assert (missing.status, missing.reason) == (
        "INCOMPARABLE",
        "has no quality beside a baseline: it was not measured",
    )
    assert missing.rules[0].rule == "quality"
    undefined = Metric("auc", None, None, None, None, True, 10, "undefined: all 10 rows are negative", primary=True)
    assert judged(candidate(undefined)).reason == ("has no AUC beside a baseline: undefined: all 10 rows are negative")
    assert judged(Candidate("int8", metrics=(metric(),))).status == "INCOMPARABLE"
    assert judged(Candidate("int8", metrics=(metric(),)), min_agreement=0).status == "PASS"


def test_a_difference_without_an_interval_is_inconclusive():
    short = Metric("auc", 0.7, 0.7, 0.0, None, True, 12, "no interval: 3 positive and 9 negative rows", primary=True)
    verdict = judged(candidate(short))
    assert (verdict.status, verdict.reason) == (
        "INCONCLUSIVE",
        "may lose AUC: no interval: 3 positive and 9 negative rows",
    )


def test_an_error_is_incomparable_with_that_error():
    verdict = judged(candidate(metric(), error="the worker was killed"))
    assert verdict.status == "INCOMPARABLE"
    assert verdict.reason == "could not be measured: the worker was killed"


@pytest.mark.parametrize(
    ("share", "status"), [(0.98, "PASS"), (0.97999, "FAIL"), (1.0, "PASS"), (math.nan, "INCOMPARABLE")]
)
def test_agreement_has_a_bound(share, status):
    verdict = judged(Candidate("int8", metrics=(metric(), agreement(share))))
    assert verdict.status == status
    if status == "FAIL":
        assert verdict.reason == "decides 0.97999 of the rows as the baseline does, less than the bound 98.00 %"


def test_every_parity_output_has_the_bound():
    item = candidate(metric(), parity=(parity(35.0), parity(12.0, "embedding"), parity(None, "scores")))
    assert judged(item).status == "PASS"
    verdict = judged(item, min_sqnr_db=20)
    assert verdict.status == "FAIL"
    assert verdict.reason == "gives embedding with 12.0 dB SQNR against model, less than the bound 20.0 dB"
    assert rule(verdict, "min_sqnr_db[scores]").status == "PASS"
    assert judged(candidate(metric()), min_sqnr_db=20).status == "INCOMPARABLE"


def hidden(difference, low, high, unseen, **changes):
    return candidate(replace(metric(difference=difference, low=low, high=high, **changes), unseen=unseen))


def test_a_loss_on_rows_too_rare_to_be_seen_is_not_ruled_out():
    verdict = judged(hidden(-0.001, -0.0015, -0.0005, 0.0025))
    assert verdict.status == "INCONCLUSIVE"
    # Of the margin 0.002 is left, 0.0025 could hide: a quarter more rows.
    assert verdict.reason == (
        "loses 0.0010 AUC (0.0005-0.0015), within the margin 0.003; but 1,000 rows miss a rare loss of 0.0025 one time "
        "in twenty: about 1,300 rows would tell"
    )
    assert judged(hidden(-0.001, -0.0015, -0.0005, 0.0019)).status == "PASS"
    # A gain leaves room for it.
    assert judged(hidden(0.01, 0.005, 0.015, 0.0025), auc_margin=0.0).status == "PASS"
    assert judged(hidden(0.0, 0.0, 0.0, 0.0025), auc_margin=0.0).reason.endswith("no number of rows would tell")
    # What fails or is not settled anyway says why it does.
    assert judged(hidden(-0.01, -0.012, -0.008, 0.0025)).status == "FAIL"


@pytest.mark.parametrize(
    ("field", "bound", "inside", "outside", "said"),
    [
        ("latency_ms", 5.0, {"latency": latency(5.0)}, {"latency": latency(7.5)}, "takes 7.5 ms a call (median)"),
        ("size_bytes", 2000, {"artifact": artifact(2000)}, {"artifact": artifact(2001)}, "is a file of 2,001 bytes"),
        (
            "memory_bytes",
            1000,
            {"memory": Memory(51_000, 50_000)},
            {"memory": Memory(53_000, 50_000)},
            "needs 3,000 bytes of memory above an empty worker, more than the bound 1,000 bytes",
        ),
        (
            "min_accelerated",
            0.9,
            {"placement": Placement("XNNPACK", (Operators("conv", 9, True), Operators("mean", 1, False)))},
            {"placement": Placement("XNNPACK", (Operators("conv", 1, True), Operators("mean", 1, False)))},
            "runs 50.00 % of its operators on the accelerated path, less than the bound 90.00 %",
        ),
    ],
)
def test_budgets_are_hard_bounds(field, bound, inside, outside, said):
    budgets = Budgets(**{field: bound})
    assert judged(candidate(metric(), **inside), budgets).status == "PASS"
    verdict = judged(candidate(metric(), **outside), budgets)
    assert verdict.status == rule(verdict, field).status == "FAIL"
    assert said in verdict.reason
    assert judged(candidate(metric(), **outside)).status == "PASS"
    assert judged(candidate(metric()), budgets).status == "INCOMPARABLE"


def test_a_placement_without_operators_is_not_known():
    budgets = Budgets(min_accelerated=0.0)
    assert judged(candidate(metric(), placement=Placement("XNNPACK", ())), budgets).status == "INCOMPARABLE"


def test_the_worst_rule_decides():
    assert worst(["PASS", "INCONCLUSIVE"]) == "INCONCLUSIVE"
    assert worst(["INCOMPARABLE", "INCONCLUSIVE", "PASS"]) == "INCOMPARABLE"
    assert worst(["FAIL", "INCOMPARABLE"]) == "FAIL"
    assert worst(["PASS", "PASS"]) == "PASS"
    assert worst([]) == "INCOMPARABLE"


MULTITASK = Candidate(
    "int8",
    metrics=(
        metric("auc", -0.001, -0.0029, 0.0009, task="default"),
        metric("log_loss", 0.02, 0.01, 0.03, higher=False, task="default"),
        agreement(0.99, "default"),
        metric("top_1", -0.0071, -0.0090, -0.0052, task="delinquency"),
        metric("log_loss", 0.002, 0.001, 0.003, higher=False, task="delinquency"),
        agreement(0.97, "delinquency"),
        metric("r2", -0.004, -0.012, 0.004, rows=500, task="growth"),
        metric("mae", 1.234, -0.5, 2.5, higher=False, value=130.0, task="growth"),
    ),
)


def test_every_task_is_judged_and_named():
    verdict = judged(MULTITASK)
    assert verdict.status == "FAIL"
    assert [(entry.rule, entry.status) for entry in verdict.rules] == [
        ("top_1_margin[delinquency]", "FAIL"),
        ("min_agreement[delinquency]", "FAIL"),
        ("r2_margin[growth]", "INCONCLUSIVE"),
        ("auc_margin[default]", "PASS"),
        ("min_agreement[default]", "PASS"),
    ]
    assert verdict.reason == (
        "loses 0.0071 top-1 accuracy of delinquency (0.0052-0.0090), more than the margin 0.005; "
        "decides 97.00 % of the rows of delinquency as the baseline does, less than the bound 98.00 %; "
        "loses 0.0040 R2 of growth (-0.0040 to 0.0120): 500 rows do not tell whether it stays within the margin 0.005, "
        "about 32,000 rows would"
    )


def test_a_task_s_own_margin_replaces_that_of_its_primary_metric_only():
    verdict = judged(MULTITASK, margins={"delinquency": 0.01, "growth": 0.02}, min_agreement=0.9, log_loss_margin=0.005)
    assert [(entry.rule, entry.status) for entry in verdict.rules] == [
        ("log_loss_margin[default]", "FAIL"),
        ("auc_margin[default]", "PASS"),
        ("top_1_margin[delinquency]", "PASS"),
        ("log_loss_margin[delinquency]", "PASS"),
        ("r2_margin[growth]", "PASS"),
        ("min_agreement[default]", "PASS"),
        ("min_agreement[delinquency]", "PASS"),
    ]
    assert rule(judged(MULTITASK, margins={"default": 0.0}), "auc_margin[default]").status == "INCONCLUSIVE"


def test_a_single_task_is_not_named():
    alone = Candidate(
        "int8", metrics=(metric("r2", task="growth"), metric("mae", 6.0, 5, 7, higher=False, task="growth"))
    )
    verdict = judged(alone, mae_margin=25.0)
    assert [entry.rule for entry in verdict.rules] == ["r2_margin", "mae_margin"]
    assert verdict.rules[1].reason == "adds 6.00 mean absolute error (5.00-7.00), within the margin 25"
    assert judged(alone, margins={"growth": 0.0}).status == "PASS"


def test_a_task_that_decides_nothing_needs_no_agreement():
    assert judged(Candidate("int8", metrics=(metric("r2", task="growth"),)), min_agreement=1.0).status == "PASS"
    both = Candidate("int8", metrics=(metric("r2", task="growth"), metric("top_1", task="kind")))
    assert judged(both).reason == "has no agreement with the baseline's decisions of kind: it was not measured"


def test_metrics_that_do_not_occur_are_not_gated():
    assert judged(candidate(metric()), macro_f1_margin=0.0, mae_margin=0.0, r2_margin=0.0).status == "PASS"


def test_a_margin_of_a_task_that_was_not_measured_is_no_pass():
    verdict = judged(candidate(metric(task="default")), margins={"growth": 0.01}, min_agreement=0)
    assert verdict.status == "INCOMPARABLE"
    assert verdict.reason == "has no quality of growth beside a baseline: it was not measured"
    assert rule(verdict, "quality[growth]").status == "INCOMPARABLE"


def test_an_undefined_figure_names_its_task():
    undefined = Metric("r2", None, None, None, None, True, 9, "undefined: all labels are equal", "growth", True)
    short = Metric("mae", 1.0, 1.0, 0.0, None, False, 9, "no interval: 9 rows", "growth")
    verdict = judged(candidate(metric(task="default"), undefined, short), min_agreement=0, mae_margin=1.0)
    assert verdict.reason == (
        "has no R2 of growth beside a baseline: undefined: all labels are equal; "
        "may add mean absolute error of growth: no interval: 9 rows"
    )


numbers = st.floats() | st.sampled_from([0.0, 0.003, -0.003])
maybe = st.none() | numbers
ends = numbers | st.floats(-0.01, 0.01)
intervals = st.builds(Interval, ends, ends, st.just(0.95), st.just("DeLong"))
counts = st.integers(0, 10**12)
metrics = st.builds(
    lambda name, *fields: Metric(name, *fields, name in PRIMARY),
    st.sampled_from(["auc", "auc", "top_1", "r2", "agreement", "agreement", "log_loss", "macro_f1", "mae"]),
    st.sampled_from([None, 0.7, 1.0]) | numbers,
    maybe,
    maybe,
    st.none() | intervals,
    st.booleans(),
    counts,
    st.text(max_size=5),
    st.sampled_from(["", "default", "growth"]),
)
candidates = st.builds(
    Candidate,
    scheme=st.text(max_size=5),
    artifact=st.none() | st.builds(artifact, counts),
    metrics=st.lists(metrics, max_size=8).map(tuple),
    parity=st.lists(st.builds(parity, maybe, st.text(max_size=5)), max_size=3).map(tuple),
    latency=st.none() | st.builds(latency, numbers),
    memory=st.none() | st.builds(Memory, counts, counts),
    placement=st.none()
    | st.builds(
        Placement,
        st.just("XNNPACK"),
        st.lists(st.builds(Operators, st.just("conv"), counts, st.booleans()), max_size=3).map(tuple),
    ),
    error=st.sampled_from(["", "", "", "crashed"]),
)
positive = st.none() | st.floats(0, 1e6)
policies = st.builds(
    GateConfig,
    auc_margin=st.floats(0, 1),
    top_1_margin=st.floats(0, 1),
    r2_margin=st.floats(0, 1),
    macro_f1_margin=positive,
    mae_margin=positive,
    log_loss_margin=positive,
    min_agreement=st.just(0.0) | st.floats(0, 1),
    min_sqnr_db=st.none() | st.floats(-100, 100),
)
limits = st.builds(
    Budgets,
    latency_ms=st.none() | st.floats(1e-3, 1e3),
    size_bytes=st.none() | st.integers(1, 10**12),
    memory_bytes=st.none() | st.integers(1, 10**12),
    min_accelerated=st.none() | st.floats(0, 1),
)


def test_the_policy_bounds_costs_on_every_target_beside_its_budgets():
    item = candidate(metric(), latency=latency(5.0), artifact=artifact(2000), memory=Memory(51_000, 50_000))
    verdict = judged(item, max_latency_ms=6.0, max_size_bytes=1000, max_memory_bytes=1000)
    assert {rule.rule: rule.status for rule in verdict.rules if rule.rule.startswith("max_")} == {
        "max_latency_ms": "PASS",
        "max_size_bytes": "FAIL",
        "max_memory_bytes": "PASS",
    }
    both = judged(item, Budgets(latency_ms=4.0), max_latency_ms=6.0)
    assert (rule(both, "latency_ms").status, rule(both, "max_latency_ms").status) == ("FAIL", "PASS")
    assert rule(judged(item, min_accelerated=0.5), "min_accelerated").status == "INCOMPARABLE"


@settings(max_examples=200, deadline=None)
@given(candidates, policies, limits, st.dictionaries(st.sampled_from(["default", "growth", "age"]), st.floats(0, 1)))
def test_any_candidate_gets_a_verdict(item, policy, budgets, margins):
    verdict = judge(item, policy, budgets, margins)
    to_json(verdict)
    assert verdict.rules
    assert verdict.status == worst(entry.status for entry in verdict.rules)
    assert all(entry.reason for entry in verdict.rules)
    if verdict.status == "PASS":
        assert not item.error
        assert item.primary
        assert margins.keys() <= {entry.task for entry in item.primary}
        for entry in item.primary:
            ends = (entry.interval.low, entry.interval.high)
            margin = margins.get(entry.task, getattr(policy, f"{entry.name}_margin"))
            assert max(-end if entry.higher_is_better else end for end in ends) <= margin
            if policy.min_agreement and entry.name != "r2":
                assert item.metric("agreement", entry.task).value >= policy.min_agreement


@settings(deadline=None)
@given(st.floats(-0.1, 0.1), st.floats(0, 0.1), st.floats(0, 0.1), st.floats(0, 0.05), st.floats(0, 0.05))
def test_a_wider_margin_never_judges_worse(difference, below, above, margin, more):
    item = candidate(metric(difference=difference, low=difference - below, high=difference + above))
    order = ["PASS", "INCONCLUSIVE", "INCOMPARABLE", "FAIL"]
    narrow = judged(item, auc_margin=margin).status
    assert order.index(judged(item, auc_margin=margin + more).status) <= order.index(narrow)


def auc_status(labels, a, b, margin):
    found = delong_paired(labels, a, b)
    interval = found.interval(0.95)
    shown = Metric("auc", found.auc_b, found.auc_a, found.difference, interval, True, labels.size, primary=True)
    return judged(candidate(shown), auc_margin=margin).status


@pytest.mark.parametrize(("positives", "negatives"), [(40, 160), (300, 900)])
def test_a_loss_of_the_margin_passes_at_most_one_time_in_twenty(positives, negatives):
    """Normal classes 1 apart, noise of variance 0.16 added: the AUC loss is known, and the margin is set to it."""
    loss = float(ndtr(1 / math.sqrt(2)) - ndtr(1 / math.sqrt(2 * 1.16)))
    rng = np.random.default_rng(7)
    labels = np.arange(positives + negatives) < positives
    statuses = []
    for _ in range(1000):
        a = labels + rng.normal(size=labels.size)
        statuses.append(auc_status(labels, a, a + 0.4 * rng.normal(size=labels.size), loss))
    assert statuses.count("PASS") / 1000 <= 0.05
    assert statuses.count("FAIL") / 1000 <= 0.05


def test_a_loss_well_within_the_margin_passes_and_one_well_beyond_fails():
    loss = float(ndtr(1 / math.sqrt(2)) - ndtr(1 / math.sqrt(2 * 1.16)))
    rng = np.random.default_rng(8)
    labels = np.arange(4000) < 1000
    wide, narrow = [], []
    for _ in range(100):
        a = labels + rng.normal(size=labels.size)
        b = a + 0.4 * rng.normal(size=labels.size)
        wide.append(auc_status(labels, a, b, 2 * loss))
        narrow.append(auc_status(labels, a, b, loss / 3))
    assert wide.count("PASS") >= 80
    assert narrow.count("FAIL") >= 80


def test_a_log_loss_of_the_margin_passes_at_most_one_time_in_twenty():
    """Skewed per-row losses of mean 0.02, 500 samples of 400 rows at once, each with its own bootstrap interval."""
    rng = np.random.default_rng(9)
    labels = np.arange(400) % 4 == 0
    shifts = 0.02 + 0.1 * (rng.exponential(size=(400, 500)) - 1)
    replicates = replicate(labels, [mean_of(shifts)], resamples=400, seed=0)
    passed = 0
    for k in range(500):
        interval = bca_of_mean(labels, shifts[:, k], replicates[:, k], 0.95)
        shown = Metric("log_loss", 0.5, 0.48, float(shifts[:, k].mean()), interval, False, 400)
        passed += judged(candidate(metric(), shown), log_loss_margin=0.02).status == "PASS"
    assert passed / 500 <= 0.05


def elsewhere(max_abs=0.0, flips=0, place="haswell", spread=2.0, output="risk"):
    share = None if flips is None else 1 - flips / 500
    return Parity("local", 500, output, max_abs, None, share, spread, flips, place)


def placed(*rows, claimed=("haswell",), unchecked=(), **policy):
    item = candidate(metric(), parity=(parity(40.0), *rows), unchecked=unchecked)
    return judge(item, GateConfig(**policy), FREE, claimed=claimed)


def test_the_same_file_must_answer_alike_where_the_target_says_so():
    assert placed(elsewhere()).status == "PASS"
    assert placed(elsewhere(max_abs=0.02)).status == "PASS"
    verdict = placed(elsewhere(max_abs=0.021))
    assert verdict.reason == (
        "gives risk on haswell with a difference of up to 1.05 % of its range, more than the bound 1.00 %"
    )
    verdict = placed(elsewhere(flips=1))
    assert verdict.reason == "decides 99.80 % of 500 rows on haswell as it does here, less than the bound 99.90 %"
    assert placed(elsewhere(max_abs=1.0, flips=9), claimed=()).status == "PASS"


def test_every_place_and_output_has_its_bounds():
    rows = (elsewhere(), elsewhere(place="cortex-a53"), elsewhere(output="other", flips=None))
    names = {item.rule for item in placed(*rows, claimed=("haswell", "cortex-a53")).rules if "parity" in item.rule}
    assert names == {
        "min_parity_agreement[haswell risk]",
        "max_parity_difference[haswell risk]",
        "min_parity_agreement[cortex-a53 risk]",
        "max_parity_difference[cortex-a53 risk]",
        "max_parity_difference[haswell other]",
    }


def test_a_constant_output_that_changed_is_not_comparable():
    assert placed(elsewhere(spread=0.0)).status == "PASS"
    verdict = placed(elsewhere(max_abs=1e-6, spread=0.0))
    assert verdict.status == "INCOMPARABLE"
    assert verdict.reason == "gives another constant risk on haswell"


def test_a_place_that_was_not_reached_is_no_pass_unless_nothing_is_claimed_of_it():
    missing = (("haswell", "no QEMU"),)
    assert placed(unchecked=missing).reason == "was not checked on haswell: no QEMU"
    assert placed(unchecked=missing).status == "INCOMPARABLE"
    assert placed(unchecked=missing, claimed=()).status == "PASS"


def test_bounds_elsewhere_can_be_moved_and_switched_off():
    far = elsewhere(max_abs=1.0, flips=250)
    assert placed(far, min_parity_agreement=0.5, max_parity_difference=0.5).status == "PASS"
    assert (
        placed(far, unchecked=(("haswell", "x"),), min_parity_agreement=0, max_parity_difference=None).status == "PASS"
    )


def test_answers_elsewhere_are_not_the_distance_from_the_graph():
    verdict = placed(elsewhere(), min_sqnr_db=35)
    assert verdict.status == "PASS"
    assert [item.rule for item in verdict.rules if item.rule.startswith("min_sqnr_db")] == ["min_sqnr_db[risk]"]
