from __future__ import annotations

import re
from dataclasses import replace

from reviewed_evidence import reviewed

from compress.evidence import Choice
from compress.report.card import render_card

HEADINGS = [
    "Model details",
    "Intended use",
    "Factors",
    "Metrics",
    "Evaluation and training data",
    "Quantitative analyses",
    "Ethical considerations",
    "Caveats and recommendations",
]


def headings(text):
    return re.findall(r"^## (.*)$", text, re.M)


def test_the_card_has_its_headings_whatever_was_measured(evidence, three_tasks):
    for given in (evidence, three_tasks, reviewed(evidence), replace(evidence, targets=())):
        text = render_card(given)
        assert headings(text) == HEADINGS
        assert text.startswith(f"# Model card: {given.name}\n")


def test_the_card_tells_what_ships_and_its_figures(evidence):
    text = render_card(evidence)
    assert "Gate: **PASS**." in text
    assert "| onnxruntime-cpu | int8-dynamic | int8-dynamic.onnx | 861 kB | " + "ab" * 32 in text
    assert "| onnxruntime-cpu | AUC | 0.7791 | 0.7794 | -0.0003 | [-0.0011, +0.0005] | 6,000 |" in text
    assert "No segments or sensitive columns were looked at." in text
    assert "float16.onnx" not in text


def test_the_card_tells_who_is_treated_otherwise(evidence):
    text = render_card(reviewed(evidence))
    assert "Looked at by SEX, AGE, EDUCATION" in text
    assert "largest loss in AGE 45 to 60" in text
    assert "| AGE 60 and above (small, not judged) | 80 |" in text
    assert "cut-off 0.5: decided otherwise 22 of 6,000" in text


def test_what_a_run_cannot_know_is_not_made_up(evidence):
    assert "Not known to the run that wrote this card." in render_card(evidence)


def test_a_run_that_ships_nothing_says_so(evidence):
    target = replace(evidence.targets[0], choice=Choice(None, "nothing ships"))
    text = render_card(replace(evidence, targets=(target,)))
    assert "Gate: **FAIL**." in text
    assert "Nothing ships." in text


def test_names_from_files_stay_text(evidence):
    bad = "<script>|x|</script>\n# more"
    target = replace(evidence.targets[0], target=bad)
    text = render_card(replace(evidence, name=bad, targets=(target,)))
    assert "<script>" not in text
    assert headings(text) == HEADINGS
    assert "\n# more" not in text
