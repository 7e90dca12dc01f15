"""A latency check as JUnit XML, which every CI reads: a test a row, a test a rule."""

from __future__ import annotations

from xml.etree import ElementTree

from compress.bench.verdicts import CheckResult, CheckRow
from compress.report.check import reasons, summary
from compress.report.text import plain


def junit(result: CheckResult) -> bytes:
    """Returns the XML.

    SLOWER and a broken rule are failures; UNKNOWN and INCOMPARABLE are errors, since a skipped test would pass; so
    is a check without rows.
    """
    suite = ElementTree.Element("testsuite", name="edge-compress check", time=f"{result.seconds:.1f}")
    for row in result.rows:
        _latency(suite, row)
        for rule in row.rules:
            case = _case(suite, row, rule.name)
            if rule.broken:
                _child(case, "failure", f"{rule.name}: {rule.text}", "")
    if not result.rows:
        case = ElementTree.SubElement(suite, "testcase", classname="edge-compress", name="check")
        _child(case, "error", summary(result), "")
    for name, tag in (("failures", "failure"), ("errors", "error")):
        suite.set(name, str(len(suite.findall(f"testcase/{tag}"))))
    suite.set("tests", str(len(suite.findall("testcase"))))
    ElementTree.indent(suite)
    text: bytes = ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True)
    return text + b"\n"


def _latency(suite: ElementTree.Element, row: CheckRow) -> None:
    case = _case(suite, row, "latency")
    ratio = f"{row.ratio:.3f}x " if row.ratio is not None else ""
    if row.verdict == "SLOWER":
        _child(case, "failure", f"{ratio}SLOWER", "\n".join(reasons(row)))
    elif row.verdict in ("UNKNOWN", "INCOMPARABLE"):
        _child(case, "error", f"{ratio}{row.verdict}", "\n".join(reasons(row)))
    else:
        ElementTree.SubElement(case, "system-out").text = plain(f"{ratio}{row.verdict}, {row.pairs} processes")


def _case(suite: ElementTree.Element, row: CheckRow, name: str) -> ElementTree.Element:
    return ElementTree.SubElement(suite, "testcase", classname=plain(f"{row.target}.{row.model}"), name=name)


def _child(case: ElementTree.Element, tag: str, message: str, text: str) -> None:
    ElementTree.SubElement(case, tag, message=plain(message)).text = text
