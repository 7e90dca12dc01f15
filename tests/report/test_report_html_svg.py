from __future__ import annotations

import itertools
import math
import re
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from reviewed_evidence import review, reviewed

from compress.report import html_svg as svg
from compress.report.html_plots import Change, forest, latency_ecdf, pareto, reliability, roc
from compress.review import Interval

FINITE = st.floats(-1e9, 1e9)


@given(FINITE, st.floats(1e-6, 1e9), st.integers(2, 12))
@settings(deadline=None)
def test_ticks_are_few_round_and_inside(low, width, about):
    assume(width > abs(low) * 1e-6)
    high = low + width
    marks = svg.ticks(low, high, about)
    assert len(marks) <= 2 * about + 1
    step = (marks[1] - marks[0]) if len(marks) > 1 else None
    for mark in marks:
        assert low - width * 1e-6 <= mark <= high + width * 1e-6
        if step and width > 1e-3 and abs(low) < 1e6:
            assert math.isclose(mark / step, round(mark / step), abs_tol=1e-3)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 1.0, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (-0.0011, 0.0005, [-0.001, -0.0005, 0.0, 0.0005]),
        (3.0, 3.0, []),
        (float("nan"), 1.0, []),
    ],
)
def test_ticks_that_are_known(low, high, expected):
    assert svg.ticks(low, high) == pytest.approx(expected)


def test_ticks_are_written_with_the_decimals_of_their_step():
    assert [svg.tick_text([0.0, 0.25, 0.5])(value) for value in (0.0, 0.25)] == ["0.0", "0.2"]
    assert svg.tick_text([0.0, 0.0005])(0.0005) == "0.0005"
    assert svg.tick_text([0.0, 1000.0])(1000.0) == "1,000"
    assert svg.tick_text([-0.1, 0.0])(-0.0) == "0.0"


@given(st.lists(FINITE | st.just(float("nan")), max_size=6), FINITE)
def test_a_scale_never_leaves_the_drawing(values, value):
    scale = svg.Scale(*svg.padded(values), 60.0, 386.0)
    assert 60.0 <= scale(value) <= 386.0


@given(st.lists(st.floats(0, 200), min_size=1, max_size=10))
@settings(deadline=None)
def test_labels_are_moved_apart_in_their_order(places):
    moved = svg.spread(places, 13, 0, 250)
    order = sorted(range(len(places)), key=lambda index: places[index])
    gaps = [moved[after] - moved[before] for before, after in itertools.pairwise(order)]
    assert all(gap >= 13 - 1e-6 for gap in gaps)
    assert max(moved) <= 250


def numbers(body):
    """Every coordinate of a drawing."""
    found = re.findall(r'(?<![-\w])(?:x|y|x1|y1|x2|y2|cx|cy|r)="([^"]*)"', body)
    found += [part for points in re.findall(r'points="([^"]*)"', body) for part in re.split(r"[ ,]", points)]
    return [float(text) for text in found]


def plots(evidence):
    made = review(0.006)
    target = reviewed(evidence).targets[0]
    return [
        roc(made.ranking, "a", "b"),
        reliability(made.calibration, "a", "b"),
        latency_ecdf(target),
        pareto(target, ""),
        forest("t", "d", [Change("a", 0.1, Interval(0.0, 0.2, 0.95, "m")), Change("b", -0.1, None, is_marked=True)]),
    ]


def test_every_mark_lies_inside_its_drawing(evidence):
    for plot in plots(evidence):
        assert plot is not None
        places = numbers(plot.body)
        assert len(places) > 10
        assert all(math.isfinite(place) and -5 <= place <= max(plot.width, plot.height) + 5 for place in places)


def test_drawings_hold_what_they_say(evidence):
    curves, reliable, ecdf, trade, changes = plots(evidence)
    assert curves.body.count("<polyline") == 2
    assert "KS 0.4" in curves.body
    assert reliable.body.count('class="full"') == reliable.body.count('class="hollow"') == 10
    assert ecdf.body.count("<polyline") == 3
    assert [key.mark for key in ecdf.keys] == ["base", "lead", "other1"]
    assert trade.body.count("<circle") == 3
    assert "Not beaten in all three at once: float32, int8-dynamic, float16." in trade.description
    assert changes.body.count('class="bad"') == 1


def test_the_curve_of_latency_is_exact_for_few_samples(evidence):
    target = evidence.targets[0]
    base = target.candidates[0]
    times = ((1.0, 2.0), (3.0, 4.0))
    one = replace(target, candidates=(replace(base, latency=replace(base.latency, samples=times)),))
    plot = latency_ecdf(one)
    (points,) = re.findall(r'<polyline class="base" points="([^"]*)"', plot.body)
    pairs = [tuple(map(float, pair.split(","))) for pair in points.split()]
    low, high = svg.TOP, svg.HEIGHT - svg.BOTTOM
    heights = sorted({round((high - height) / (high - low), 3) for _, height in pairs})
    assert heights == pytest.approx([0, 0.25, 0.5, 0.75, 1.0], abs=1e-3)
    assert [across for across, _ in pairs] == sorted(across for across, _ in pairs)


def test_nothing_to_draw_gives_no_drawing(evidence):
    made = review(0.0)
    assert roc(replace(made.ranking, baseline_roc=()), "a", "b") is None
    assert reliability(replace(made.calibration, baseline_curve=(), candidate_curve=()), "a", "b") is None
    assert forest("t", "d", [Change("a", float("nan"), None)]) is None
    bare = replace(evidence.targets[0], candidates=(replace(evidence.targets[0].candidates[0], latency=None),))
    assert latency_ecdf(bare) is None
    assert pareto(bare, "") is None


def test_words_in_a_drawing_are_escaped():
    plot = forest("t", "d", [Change("<b>&", 0.1, None)])
    assert "&lt;b&gt;&amp;" in plot.body
    assert "<b>" not in plot.body


def test_words_under_a_tick_stay_within_the_drawing():
    for place in (0, 2, svg.WIDTH / 2, svg.WIDTH - 2, svg.WIDTH):
        x = float(re.search(r' x="([0-9.]+)"', svg.below(place, 10, "+0.0100")).group(1))
        assert 3 * 7 <= x <= svg.WIDTH - 3 * 7
    assert ' x="200"' in svg.below(200, 10, "+0.0100")
