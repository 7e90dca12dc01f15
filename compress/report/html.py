"""The report as one HTML file for a reader of model risk: self-contained, no script, no network, the verdict first.

1. The template lays blocks out and knows nothing of evidence; autoescape is on, so every string is text.
2. Nothing is fetched: style and drawings are inside. The page forbids everything else by its own policy, in which the
   style stands by its hash; no element carries a style of its own.
3. A colour never stands alone: verdicts are words with a sign, lines differ by their dashes, heat tables by numbers.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from importlib import resources

import jinja2
from markupsafe import Markup

from compress.evidence import Evidence
from compress.gate import overall
from compress.report.html_blocks import TONES, Section, clean
from compress.report.html_machine import latency_section, parity_section, placement_section
from compress.report.html_origin import data_section, environment_section, limits_section, model_section
from compress.report.html_people import decisions_section, explanations_section, segments_section
from compress.report.html_search import search_section
from compress.report.html_verdict import quality_section, verdict_section


def render_html(evidence: Evidence) -> str:
    """Returns the report as HTML: every string from a file is escaped, every table and drawing bounded."""
    status, _ = overall(evidence.targets)
    style = _style()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    page = _environment().get_template("report.html.j2")
    return page.render(
        name=clean(evidence.name),
        verdict=status,
        tone=TONES[status],
        created=clean(evidence.created),
        version=clean(evidence.version),
        recipe_digest=clean(evidence.recipe_digest),
        sections=sections(evidence),
        # Ours, and free of what ends a style element.
        style=Markup(style),
        style_digest=digest,
    )


def sections(evidence: Evidence) -> tuple[Section, ...]:
    """Returns the sections of the page, in the order in which they are read."""
    return (
        verdict_section(evidence),
        quality_section(evidence),
        decisions_section(evidence),
        segments_section(evidence),
        explanations_section(evidence),
        parity_section(evidence),
        latency_section(evidence),
        placement_section(evidence),
        *search_section(evidence),
        model_section(evidence),
        data_section(evidence),
        environment_section(evidence),
        limits_section(evidence),
    )


@functools.cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FunctionLoader(_read),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )


@functools.cache
def _style() -> str:
    return _read("report.css")


def _read(name: str) -> str:
    return resources.files("compress.report").joinpath("templates", name).read_text(encoding="utf-8")
