from __future__ import annotations

import numpy as np
import pytest
from fairlearn.metrics import (
    demographic_parity_difference,
    demographic_parity_ratio,
    equal_opportunity_difference,
    equalized_odds_difference,
)
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare, false_discovery_control
from sklearn.metrics import recall_score, roc_auc_score

from compress.errors import DataError
from compress.evaluate.answers import ClassAnswers, NumberAnswers
from compress.evaluate.binary_counts import Counts
from compress.evaluate.fairness import compare_fairness
from compress.evaluate.groups import group
from compress.evaluate.means import mean_figure
from compress.evaluate.segments import (
    Rows,
    compare_segments,
    general_segments,
    holm,
    pattern_p_value,
    worst_segment,
)


def made(rows=2400, seed=0, favourable=0):
    random = np.random.default_rng(seed)
    age = random.integers(20, 80, rows)
    logit = random.normal(0, 1.5, rows) + (age < 30) * 0.5
    labels = random.random(rows) < 1 / (1 + np.exp(-logit))
    before = 1 / (1 + np.exp(-(logit + random.normal(0, 0.7, rows))))
    after = np.clip(before + random.normal(0, 0.04, rows), 0, 1)
    return Rows(labels, before, after, 0.5, favourable, 0.95), age


def test_numbers_fall_into_the_ranges_that_the_recipe_names():
    found = group("age", np.array([18.0, 30, 44, 45, 60, np.nan]), (30, 45, 60))
    assert found.names == ("below 30", "30-44", "45-59", "60 and above", "missing")
    assert found.codes.tolist() == [0, 1, 1, 2, 3, 4]


def test_ranges_of_fractions_and_of_one_number():
    assert group("x", np.array([0.1, 0.6, 0.9]), (0.5, 0.7)).names == ("below 0.5", "0.5 to 0.7", "0.7 and above")
    assert group("x", np.array([1, 2, 3]), (2, 3)).names == ("below 2", "2", "3 and above")


def test_many_numbers_are_cut_at_their_quartiles_and_few_are_not():
    found = group("age", np.arange(100))
    assert np.bincount(found.codes).tolist() == pytest.approx([25] * 4, abs=1)
    assert "100 distinct values" in found.note
    assert group("sex", np.array([2, 1, 1])).names == ("1", "2")
    assert group("town", np.array(["b", "a", ""])).names == ("missing", "a", "b")


def test_text_has_no_ranges_and_an_id_is_no_segment():
    with pytest.raises(DataError, match="'town' holds text, which has no ranges"):
        group("town", np.array(["a"]), (1.0,))
    with pytest.raises(DataError, match="60 distinct texts"):
        group("id", np.array([f"c{index}" for index in range(60)]))


def test_figures_of_a_segment_are_scikit_learns():
    rows, age = made()
    for segment in compare_segments(rows, [group("age", age, (30, 50))], rows_min=100):
        members = {"below 30": age < 30, "30-49": (age >= 30) & (age < 50), "50 and above": age >= 50}[segment.name]
        labels, after = rows.labels[members], rows.candidate[members]
        assert segment.rows == members.sum()
        assert segment.positives == labels.sum()
        assert segment.figure("auc").value == pytest.approx(roc_auc_score(labels, after))
        assert segment.figure("true_positive_rate").value == pytest.approx(recall_score(labels, after >= 0.5))
        assert segment.figure("approval_rate").value == (after < 0.5).mean()
        assert segment.figure("mean_score").value == pytest.approx(after.mean())
        assert segment.figure("calibration_gap").value == pytest.approx(after.mean() - labels.mean())
        for figure in segment.figures:
            if figure.difference is not None:
                assert figure.interval.low <= figure.difference <= figure.interval.high


def test_a_segment_of_one_class_has_documented_gaps_and_no_number():
    rows, _ = made(300)
    codes = np.where(rows.labels, 1, 0)
    bad, good = (compare_segments(rows, [group("paid", codes)], rows_min=10)[index] for index in (1, 0))
    assert bad.figure("auc").value is None
    assert "are of one class" in bad.figure("auc").note
    assert bad.figure("false_positive_rate").value is None
    assert good.figure("true_positive_rate").value is None
    assert good.figure("mean_score").value is not None


def test_small_segments_are_marked_and_never_the_worst():
    rows, _ = made(600)
    few = np.zeros(600, dtype=np.int64)
    few[:20] = 1
    broken = np.where(few == 1, 1 - rows.baseline, rows.baseline)
    found = compare_segments(Rows(rows.labels, rows.baseline, broken, 0.5, 0, 0.95), [group("few", few)], rows_min=100)
    assert [item.small for item in found] == [False, True]
    assert "fewer than 100 rows" in found[1].note
    assert found[1].adjusted_p_value is None
    assert worst_segment(found) == ""


def test_the_worst_segment_is_named():
    rows, age = made()
    groups = group("age", age, (30, 50))
    harmed = np.where(age < 30, 0.7 * rows.baseline + 0.3 * np.random.default_rng(9).random(age.size), rows.baseline)
    found = compare_segments(Rows(rows.labels, rows.baseline, harmed, 0.5, 0, 0.95), [groups], rows_min=100)
    assert worst_segment(found) == "age below 30"


# Holm 1979; statsmodels' multipletests and R's p.adjust give the same for this textbook set.
def test_holm_has_the_published_values():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_is_between_the_raw_and_bonferroni(values):
    adjusted = holm(values)
    hochberg = false_discovery_control(values)
    for raw, each, weaker in zip(values, adjusted, hochberg, strict=True):
        assert raw <= each <= min(1, raw * len(values)) + 1e-12
        assert each >= weaker - 1e-12


def table(up0, down0, up1, down1):
    return Counts(np.array([[[500, up0], [down0, 100]], [[80, up1], [down1, 200]]], dtype=np.int64))


def test_patterns_without_a_flip_have_no_p_value():
    assert pattern_p_value(table(0, 0, 0, 0)) is None


def test_the_pattern_test_is_mcnemars_of_both_labels():
    expected = chisquare([40, 20]).statistic + chisquare([10, 25]).statistic
    from scipy.stats import chi2

    assert pattern_p_value(table(40, 20, 10, 25)) == pytest.approx(chi2.sf(expected, 2))


def test_few_flips_are_tested_exactly():
    from scipy.stats import binomtest

    assert pattern_p_value(table(1, 7, 0, 0)) == pytest.approx(binomtest(1, 8).pvalue)
    assert pattern_p_value(table(0, 1, 0, 0)) == 1


def test_the_pattern_test_keeps_its_level_and_has_power():
    random = np.random.default_rng(0)

    def rejected(chance_up, rate, runs=1500):
        hits = 0
        for _ in range(runs):
            flips = random.poisson([rate, rate])
            up = random.binomial(flips, chance_up)
            p = pattern_p_value(table(up[0], flips[0] - up[0], up[1], flips[1] - up[1]))
            hits += p is not None and p < 0.05
        return hits / runs

    assert rejected(0.5, 30) < 0.065
    assert rejected(0.5, 4) < 0.06
    assert rejected(0.8, 30) > 0.95


@pytest.mark.parametrize("favourable", [0, 1])
def test_fairness_is_fairlearns(favourable):
    rows, age = made(favourable=favourable)
    groups = group("age", age, (30, 50))
    (found,) = compare_fairness(rows, [groups], rows_min=10, resamples=100, seed=0)
    deserving = rows.labels == bool(favourable)
    for scores, side in ((rows.candidate, "value"), (rows.baseline, "baseline")):
        selected = (scores >= 0.5) == bool(favourable)
        arguments = {"y_true": deserving, "y_pred": selected, "sensitive_features": groups.codes}
        for name, function in (
            ("demographic_parity_difference", demographic_parity_difference),
            ("demographic_parity_ratio", demographic_parity_ratio),
            ("equal_opportunity_difference", equal_opportunity_difference),
            ("equalized_odds_difference", equalized_odds_difference),
        ):
            figure = next(item for item in found.figures if item.name == name)
            assert getattr(figure, side) == pytest.approx(function(**arguments)), name


def test_fairness_needs_two_groups_of_some_size():
    rows, _ = made(300)
    codes = np.zeros(300, dtype=np.int64)
    codes[:5] = 1
    (found,) = compare_fairness(rows, [group("few", codes)], rows_min=100, resamples=50, seed=0)
    assert found.figures == ()
    assert "1 segment of 100 rows or more" in found.note
    assert "left out with fewer than 100 rows: 1" in found.note


def test_equal_decisions_change_no_gap():
    rows, age = made()
    same = Rows(rows.labels, rows.baseline, rows.baseline, 0.5, 0, 0.95)
    (found,) = compare_fairness(same, [group("age", age, (30, 50))], rows_min=10, resamples=50, seed=0)
    assert {(item.difference, item.interval.low, item.interval.high) for item in found.figures} == {(0, 0, 0)}


def test_the_interval_of_a_widened_gap_covers_what_it_says():
    random = np.random.default_rng(5)
    covered, runs, size = 0, 150, 1500
    for _ in range(runs):
        codes = random.integers(0, 2, size)
        labels = random.random(size) < 0.4
        before = random.random(size) < np.where(codes == 1, 0.6, 0.4)
        # One in ten selected rows of group 0 is selected no more: the gap grows by 0.04.
        after = before & ~((codes == 0) & (random.random(size) < 0.1))
        rows = Rows(labels, before * 1.0, after * 1.0, 0.5, 1, 0.95)
        (found,) = compare_fairness(rows, [group("g", codes)], rows_min=1, resamples=200, seed=0)
        interval = found.figures[0].interval
        covered += interval.low <= 0.04 <= interval.high
    assert 0.89 <= covered / runs <= 0.99


def test_means_have_the_interval_of_a_paired_test():
    random = np.random.default_rng(6)
    before = random.random(400)
    after = before + random.normal(0.01, 0.05, 400)
    figure = mean_figure("mean_score", before, after, 0.95)
    half = 1.959964 * (after - before).std(ddof=1) / 20
    assert (figure.interval.low, figure.interval.high) == pytest.approx(
        (figure.difference - half, figure.difference + half)
    )
    assert mean_figure("mean_score", before[:10], after[:10], 0.95).interval is None


def test_segments_of_other_tasks():
    labels = np.array([0, 1, 2, 1] * 50)
    before, after = labels.copy(), labels.copy()
    after[::4] = 2
    groups = group("g", np.arange(200) % 2)
    losses = np.zeros(200), np.where(after == labels, 0.0, 1.0)
    found = general_segments(ClassAnswers(labels, before, after, *losses, 0.95), [groups], rows_min=10)
    assert [item.figure("top_1").value for item in found] == [0.5, 1.0]
    assert found[0].figure("agreement").value == 0.5
    assert found[0].figure("log_loss").difference == 0.5
    errors = np.zeros(200), np.where(np.arange(200) % 2, 2.0, 0.0)
    found = general_segments(NumberAnswers(labels.astype(float), *errors, 0.95), [groups], rows_min=10)
    assert [item.figure("mae").difference for item in found] == [0.0, 2.0]
