from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
from dataclasses import replace

import pytest
from page import parse
from reviewed_evidence import reviewed

from compress.evidence import (
    Candidate,
    Choice,
    Evidence,
    LayerOutcome,
    RuleResult,
    StepInfo,
    Verdict,
    from_json,
    to_json,
)
from compress.report.html import render_html
from compress.report.html_blocks import LONGEST, MOST_ROWS, Cell, table

SECTIONS = [
    ("verdict", "Verdict"),
    ("quality", "Quality"),
    ("decisions", "Decisions"),
    ("segments", "Segments and fairness"),
    ("explanations", "Explanations and robustness"),
    ("parity", "Parity with the original"),
    ("latency", "Latency and memory"),
    ("placement", "Placement, layers and files"),
    ("model", "What was done to the model"),
    ("data", "Data and splits"),
    ("environment", "Environment"),
    ("limits", "Limits of this evidence"),
]


@pytest.fixture(scope="module")
def whole(evidence):
    return reviewed(evidence)


@pytest.fixture(scope="module")
def page(whole):
    return parse(render_html(whole))


@pytest.fixture(params=["bare", "reviewed", "several tasks", "nothing ships", "empty"])
def any_evidence(request, evidence, whole, three_tasks):
    return {
        "bare": evidence,
        "reviewed": whole,
        "several tasks": three_tasks,
        "nothing ships": without_choice(whole),
        "empty": replace(
            evidence, targets=(), steps=(), environment=replace(evidence.environment, machine={}, packages={})
        ),
    }[request.param]


def without_choice(evidence):
    return replace(
        evidence,
        targets=tuple(
            replace(target, choice=Choice(None, "nothing ships: all lose AUC")) for target in evidence.targets
        ),
    )


def section(page, key):
    (found,) = [item for item in page.every("section") if item.attributes["id"] == key]
    return found


def headings(element):
    return [row.text for row in element.every("th") if row.attributes.get("scope") == "col"]


def test_the_sections_stand_in_the_order_in_which_they_are_read(any_evidence):
    page = parse(render_html(any_evidence))
    found = [(item.attributes["id"], item.every("h2")[0].text) for item in page.every("section")]
    assert found == SECTIONS
    (nav,) = page.every("nav")
    assert [(link.attributes["href"], link.text) for link in nav.every("a")] == [
        (f"#{key}", title) for key, title in found
    ]
    for item in page.every("section"):
        # A part without figures says so.
        assert len(item.children) > 1
        assert item.text.strip() != item.every("h2")[0].text


def test_the_verdict_stands_before_everything_else(page):
    (title,) = page.every("title")[:1]
    assert title.text == "PASS: credit-default, compression report"
    (heading,) = page.every("h1")
    assert heading.text.split() == ["credit-default", "PASS"]
    verdict = section(page, "verdict")
    chips = [item.text for item in verdict.every("span") if "chip" in item.classes]
    assert chips == ["PASS", "PASS"]
    assert "Ships: int8-dynamic - 0.62x the latency, 0.26x the size, AUC -0.0003 [-0.0011, +0.0005]" in verdict.text
    assert "Not int8-static: LoweringError: `blocks.0.up` | no range for <activation> blocks_0_up_out" in verdict.text


def test_a_run_that_ships_nothing_says_so_first(whole):
    page = parse(render_html(without_choice(whole)))
    assert page.every("title")[0].text.startswith("FAIL: ")
    assert "a rule failed and nothing ships" in section(page, "verdict").text
    # What a reader now needs is open: why.
    assert all("open" in item.attributes for item in section(page, "decisions").every("details"))


def test_every_rule_is_there_with_its_word_and_its_sign(page, whole):
    captions = {item.attributes["id"]: item.text for item in page.every("p") if "caption" in item.classes}
    tables = {captions[item.attributes["aria-labelledby"]]: item for item in section(page, "verdict").every("table")}
    for target in whole.targets:
        for scheme, verdict in target.verdicts.items():
            shown = tables[f"Rules on {scheme} on {target.target}"].every("tbody")[0].every("tr")
            rows = [tuple(cell.text for cell in row.every("th", "td")) for row in shown]
            assert rows == [(rule.rule, rule.status, rule.reason) for rule in verdict.rules]
    folded = [item.text for item in section(page, "verdict").every("summary")]
    assert "float16 on onnxruntime-cpu: FAIL, 1 of 2 rules passed" in folded


def test_a_verdict_is_never_a_colour_alone(page):
    toned = [item for item in page.every("span", "td") if item.classes & {"pass", "fail", "unsure"}]
    assert toned
    for item in toned:
        assert item.text.strip()
        assert [inner for inner in item.every("span") if "sign" in inner.classes]


def test_every_part_of_a_review_is_shown(page):
    assert (
        "22 of 6,000 (0.37 %, 0.26 to 0.51 %) decided otherwise than by the baseline" in section(page, "decisions").text
    )
    assert "flips.phone.int8-static.csv" in section(page, "decisions").text
    heat = [item for item in section(page, "decisions").every("table") if "heat" in item.classes]
    assert len(heat[0].every("tr")) == 11
    assert heat[0].every("td")[0].classes >= {"n", "strong", "h9"}
    segments = section(page, "segments")
    assert "The segment with the largest loss is AGE 45 to 60." in segments.text
    assert "AGE 60 and above\nsmall, not judged" in segments.text
    assert "equalised odds, difference" in segments.text
    assert "2025-06" in segments.text
    explanations = section(page, "explanations")
    assert "Reasons told to declined customers changed for 1 of 800" in explanations.text
    assert "NaN in one column" in explanations.text
    assert "12 of 6,000 rows of test have the inputs of a row of train" in section(page, "data").text


def test_what_was_not_measured_is_said(evidence):
    page = parse(render_html(evidence))
    assert "Nothing was measured by segment: name columns" in section(page, "segments").text
    assert "Decisions were not reviewed row by row" in section(page, "decisions").text
    assert "Share of rows decided as the baseline decides" in section(page, "decisions").text
    assert "Attributions were not compared" in section(page, "explanations").text
    assert "was not looked for" in section(page, "data").text


def test_the_plots_are_there_and_say_in_words_what_they_show(page):
    titles = [figure.every("figcaption")[0].every("strong")[0].text for figure in page.every("figure")]
    for title in (
        "AUC, latency and bytes on onnxruntime-cpu",
        "Primary metrics on litert-cpu",
        "ROC and KS",
        "Reliability",
        "AUC by segment",
        "Approval rate by segment",
        "Latency on onnxruntime-cpu",
    ):
        assert title in titles
    for figure in page.every("figure"):
        (drawing, *_) = figure.every("svg")
        words = {item.attributes["id"]: item.text for item in drawing.every("title", "desc") if "id" in item.attributes}
        assert drawing.attributes["role"] == "img"
        assert drawing.attributes["aria-labelledby"].split() == list(words)
        assert all(words.values())


def test_a_screen_reader_finds_its_way(any_evidence):
    page = parse(render_html(any_evidence))
    (root,) = page.every("html")
    assert root.attributes["lang"] == "en"
    ids = [item.attributes["id"] for item in page.every() if "id" in item.attributes]
    assert len(ids) == len(set(ids))
    for item in page.every():
        for name in item.attributes.get("aria-labelledby", "").split():
            assert name in ids
    for item in page.every("table"):
        assert item.attributes["aria-labelledby"]
        assert headings(item)
        for row in item.every("tbody")[0].every("tr"):
            assert [cell.attributes.get("scope") for cell in row.every("th")] == ["row"]
            assert len(row.every("th", "td")) == len(headings(item))
    # What scrolls can be reached by the keyboard.
    assert all("tabindex" in item.attributes for item in page.every("div") if "scroll" in item.classes)
    levels = [int(item.tag[1]) for item in page.every("h1", "h2", "h3", "h4")]
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def check_self_contained(text):
    page = parse(text)
    allowed = {
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "header",
        "nav",
        "main",
        "section",
        "a",
        "p",
        "h1",
        "h2",
    }
    allowed |= {
        "h3",
        "h4",
        "ol",
        "ul",
        "li",
        "div",
        "span",
        "strong",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "pre",
    }
    allowed |= {"details", "summary", "figure", "figcaption", "svg", "desc", "text", "line", "circle", "polyline", ""}
    assert {item.tag for item in page.every()} <= allowed
    for item in page.every():
        assert not [name for name in item.attributes if name.startswith("on") or name in ("style", "src", "srcdoc")]
        assert item.attributes.get("href", "#").startswith("#")
    (style,) = page.every("style")
    assert "url(" not in style.text
    assert "@import" not in style.text
    (policy,) = [item.attributes["content"] for item in page.every("meta") if "http-equiv" in item.attributes]
    sha = base64.b64encode(hashlib.sha256(style.text.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{sha}'; base-uri 'none'; form-action 'none'"
    return page


def test_the_page_needs_no_network_and_no_script(any_evidence):
    text = render_html(any_evidence)
    check_self_contained(text)
    assert not re.search(r"https?://", text)


HOSTILE = "</style></title><script>alert(1)</script>\"'><svg onload=x>{{ 7*7 }}{% x %}<!--&amp;\x1b[2J\u202e]]>"


def hostile(evidence):
    """The evidence with that text in place of every string that a file could hold."""
    kept = {"PASS", "FAIL", "INCONCLUSIVE", "INCOMPARABLE", "FASTER", "SAME", "SLOWER", "UNKNOWN", "float32"}

    def walk(value, key=""):
        if isinstance(value, dict):
            return {name if name in known else f"{name}{HOSTILE}": walk(item, name) for name, item in value.items()}
        if isinstance(value, list):
            return [walk(item, key) for item in value]
        # Schemes and metrics are looked up by name; they keep theirs at the front.
        return f"{value}{HOSTILE}" if isinstance(value, str) and value not in kept and key not in ("kind",) else value

    plain = json.loads(to_json(evidence))
    known = set(re.findall(r'"(\w+)":', to_json(evidence))) - {"train", "test", "calibration", "validation"}
    return from_json(Evidence, json.dumps(walk(plain)))


@pytest.mark.parametrize("which", ["bare", "reviewed", "three tasks"])
def test_names_from_files_stay_text(evidence, whole, three_tasks, which):
    text = render_html(hostile({"bare": evidence, "reviewed": whole, "three tasks": three_tasks}[which]))
    page = check_self_contained(text)
    assert "<script>alert(1)</script>" in page.text
    assert "{{ 7*7 }}" in page.text
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert [item.attributes["id"] for item in page.every("section")] == [key for key, _ in SECTIONS]


def test_the_page_is_bounded_whatever_a_file_holds(whole):
    layers = tuple(
        LayerOutcome(f"layer {number} " + "x" * 5000, "linear", (), "int8", "y" * 5000) for number in range(3000)
    )
    target = whole.targets[0]
    first = target.candidates[1]
    samples = tuple(tuple(0.3 + 0.0001 * (number % 97) for number in range(5000)) for _ in range(40))
    crowded = tuple(
        replace(
            item,
            artifact=replace(item.artifact, layers=layers),
            latency=replace(item.latency, samples=samples),
        )
        for item in target.candidates
        if item.artifact is not None
    )
    review = first.reviews[0]
    many = replace(review, segments=tuple(replace(review.segments[0], name=f"s{number}") for number in range(2000)))
    crowded = (crowded[0], replace(crowded[1], reviews=(many,)), *crowded[2:])
    step = StepInfo("prune", tuple("z" * 3000 for _ in range(5000)), (), whole.model, whole.compressed)
    text = render_html(replace(whole, targets=(replace(target, candidates=crowded),), steps=(step,)))
    assert len(text) < 2_000_000
    page = parse(text)
    assert "2850 more are in evidence.json" in page.text
    assert max(len(item.every("tbody")[0].every("tr")) for item in page.every("table")) == MOST_ROWS
    assert max(len(item.text) for item in page.every("td", "th", "li")) <= 2 * LONGEST


def test_a_target_that_failed_is_told(whole):
    target = replace(whole.targets[0], error="LoweringError: no\nHint: none", candidates=(), verdicts={})
    page = parse(render_html(replace(whole, targets=(target,))))
    assert page.every("title")[0].text.startswith("INCOMPARABLE: ")
    assert "This target failed: LoweringError: no" in section(page, "placement").text


def test_figures_are_to_the_right_and_words_to_the_left():
    made = table(
        "c",
        ("a", "b", "c", "d", "note"),
        [("x", "1,200", "[0.1, 0.2]", Cell("0.5 x y"), "-"), ("y", "-", "-", "-", "-")],
    )
    assert made.numeric == (False, True, True, False)
    assert made.headings == ("a", "b", "c", "d")
    assert table("c", ("a", "b"), [("x", "-")]).numeric == (False, False)
    with pytest.raises(ValueError, match="a row of 1 cells in a table of 2 columns"):
        table("c", ("a", "b"), [("x",)])


def test_evidence_read_back_gives_the_same_page(whole):
    assert render_html(from_json(Evidence, to_json(whole))) == render_html(whole)


def test_a_scheme_that_ships_against_a_rule_says_which(whole):
    target = whole.targets[0]
    bad = Verdict("FAIL", (RuleResult("max_flips", "FAIL", "flips 3.1 % of the decisions"),))
    changed = replace(target, verdicts={**target.verdicts, "int8-dynamic": bad})
    page = parse(render_html(replace(whole, targets=(changed,))))
    assert "Rules that did not pass: flips 3.1 % of the decisions" in section(page, "verdict").text


def test_a_candidate_without_anything_still_has_its_row(evidence):
    target = replace(evidence.targets[0], candidates=(Candidate("float32"), Candidate("int8-dynamic")), verdicts={})
    page = parse(render_html(replace(evidence, targets=(target,))))
    assert "int8-dynamic" in section(page, "verdict").text
    assert not section(page, "latency").every("figure")


def contrast(one, other):
    """The ratio of WCAG 2.1, 1.4.3, of two colours as #rrggbb."""

    def luminance(colour):
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_can_be_read_on_their_ground(page, scheme):
    (style,) = page.every("style")
    blocks = re.findall(r":root \{([^}]*--paper[^}]*)\}", style.text)
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", blocks[("light", "dark").index(scheme)]))
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    for name in ("ink", "quiet", "accent", "pass", "fail", "unsure"):
        assert contrast(colours[name], colours["paper"]) >= 4.5, name
    for name in ("pass", "fail", "unsure"):
        for words in (name, "ink", "quiet"):
            assert contrast(colours[words], colours[f"{name}-wash"]) >= 4.5, (words, name)
