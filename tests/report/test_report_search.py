"""What a search found, in Markdown and HTML: every attempt with its reason, every layer, and a plot of the worst."""

from __future__ import annotations

from dataclasses import replace

import pytest

from compress.evidence import LayerEffect, Repair, RepairStep, Sensitivity, from_json, to_json
from compress.report.html import render_html
from compress.report.html_search import search_section, sensitivity_plot
from compress.report.markdown import render_markdown
from compress.report.search_rows import repair_rows, sensitivity_rows

LAYERS = (
    LayerEffect("blocks.0.conv<1>", "conv2d", 17.41, 0.953, 1.08, 0.041),
    LayerEffect("blocks.1.conv", "conv2d", 22.2, 0.98, 0.99, -0.0043),
    LayerEffect("head", "linear", 41.0, 1.0),
    LayerEffect("exact", "linear", None, 1.0),
    LayerEffect("odd|one", "linear", None, None, error="the quantizer | failed"),
)
SENSITIVITY = Sensitivity("int8-static", "alone", "validation", 256, LAYERS)
REPAIR = Repair(
    scheme="int8-static",
    candidate="int8-static-repaired",
    split="validation",
    rows=2535,
    steps=(
        RepairStep("calibration", "mse", "FAIL", 0.0004, 16.9, True, "decides 96.37 % of the rows alike", 41.25),
        RepairStep("conditioning", "smooth", None, None, None, False, "the pass 'smooth' changed nothing", 3.0),
        RepairStep("layers back to float", "1 layer back to float: head", "PASS", -0.0001, None, True, "", 12.0),
        RepairStep("training", "qat", None, None, None, False, "int8-dynamic has no ranges to learn", 0.0),
    ),
    outcome="repaired: calibration by mse, 1 layer in float; before: loses too much",
    left_float=("head",),
)


@pytest.fixture
def searched(evidence):
    first, *others = evidence.targets
    found = replace(first, sensitivities=(SENSITIVITY,), repairs=(REPAIR,))
    return replace(evidence, targets=(found, *others))


def test_a_search_survives_the_way_to_json_and_back(searched):
    again = from_json(type(searched), to_json(searched))
    assert again.targets[0].repairs == (REPAIR,)
    assert again.targets[0].sensitivities == (SENSITIVITY,)


def test_rows_hold_every_figure():
    assert sensitivity_rows(SENSITIVITY) == [
        ("blocks.0.conv<1>", "conv2d", "17.4 dB", "0.9530", "1.08x", "0.041 ms", "-"),
        ("blocks.1.conv", "conv2d", "22.2 dB", "0.9800", "0.99x", "-0.0043 ms", "-"),
        ("head", "linear", "41.0 dB", "1.0000", "-", "-", "-"),
        ("exact", "linear", "equal", "1.0000", "-", "-", "-"),
        ("odd|one", "linear", "-", "-", "-", "-", "the quantizer | failed"),
    ]
    assert repair_rows(REPAIR) == [
        ("calibration", "mse", "FAIL", "0.0004", "16.9 dB", "yes", "41.2", "decides 96.37 % of the rows alike"),
        ("conditioning", "smooth", "not tried", "-", "-", "no", "3.0", "the pass 'smooth' changed nothing"),
        ("layers back to float", "1 layer back to float: head", "PASS", "-0.0001", "equal", "yes", "12.0", "-"),
        ("training", "qat", "not tried", "-", "-", "no", "-", "int8-dynamic has no ranges to learn"),
    ]


def test_markdown_tells_the_search_and_nothing_where_there_was_none(evidence, searched):
    text = render_markdown(searched)
    assert "### Sensitivity" in text
    assert "the file with this layer alone quantized beside the float file, on 256 validation rows" in text
    assert "### Repair" in text
    assert "In float: head." in text
    assert "Judged on 2,535 validation rows." in text
    plain = render_markdown(evidence)
    assert "### Sensitivity" not in plain
    assert "### Repair" not in plain


def test_html_tells_the_search_and_escapes_names(evidence, searched):
    page = render_html(searched)
    assert "Sensitivity and repair" in page
    assert "blocks.0.conv&lt;1&gt;" in page
    assert "conv<1>" not in page
    assert "Attempts to repair int8-static, in order" in page
    assert search_section(evidence) == ()
    assert "Sensitivity and repair" not in render_html(evidence)


def test_the_plot_has_a_mark_a_layer_the_worst_on_top():
    plot = sensitivity_plot(SENSITIVITY)
    body = str(plot.body)
    assert body.count("<circle") == 3
    assert body.count('class="full"') == 2
    heights = [float(part.split('cy="')[1].split('"')[0]) for part in body.split("<circle")[1:]]
    places = [float(part.split('cx="')[1].split('"')[0]) for part in body.split("<circle")[1:]]
    assert heights == sorted(heights)
    assert places == sorted(places)
    assert "17.4 dB, +0.041 ms in float" in body


def test_many_layers_and_none_are_drawn_as_far_as_that_goes():
    many = replace(SENSITIVITY, layers=tuple(LayerEffect(f"layer{i}", "linear", 10.0 + i, 1.0) for i in range(99)))
    plot = sensitivity_plot(many)
    assert str(plot.body).count("<circle") == 30
    assert "The 30 most harmful of 99 layers." in plot.description
    assert sensitivity_plot(replace(SENSITIVITY, layers=LAYERS[3:])) is None
