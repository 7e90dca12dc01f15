from itertools import permutations

import pytest

from compress.evidence import Choice, RuleResult, TargetEvidence, Verdict
from compress.gate import overall


def target(chosen, error="", **statuses):
    verdicts = {name: Verdict(status, (RuleResult("auc_margin", status, "said"),)) for name, status in statuses.items()}
    return TargetEvidence("phone", "litert", {}, (), verdicts, Choice(chosen, "said"), error)


SHIPS = target("float32", float32="PASS", int8="FAIL")
FAILED = target(None, float32="FAIL", int8="INCONCLUSIVE")
UNSETTLED = target(None, float32="INCONCLUSIVE", int8="INCONCLUSIVE")
INCOMPARABLE = target(None, float32="INCOMPARABLE", int8="PASS")
BROKEN = target(None, error="the runtime could not start")


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (SHIPS, ("PASS", 0)),
        (FAILED, ("FAIL", 1)),
        (UNSETTLED, ("INCONCLUSIVE", 3)),
        (INCOMPARABLE, ("INCOMPARABLE", 3)),
        (BROKEN, ("INCOMPARABLE", 3)),
        (target("float32", error="stopped half way", float32="PASS"), ("INCOMPARABLE", 3)),
        (target(None, float32="PASS"), ("INCOMPARABLE", 3)),
        (target("int8", float32="PASS"), ("INCOMPARABLE", 3)),
        (target("int8", float32="PASS", int8="FAIL"), ("FAIL", 1)),
    ],
)
def test_one_target(item, expected):
    assert overall([item]) == expected


def test_fail_dominates_in_any_order():
    for items in permutations([SHIPS, FAILED, UNSETTLED, BROKEN]):
        assert overall(items) == ("FAIL", 1)
    for items in permutations([SHIPS, UNSETTLED, BROKEN]):
        assert overall(items) == ("INCOMPARABLE", 3)
    assert overall([SHIPS, UNSETTLED]) == ("INCONCLUSIVE", 3)
    assert overall([SHIPS, SHIPS]) == ("PASS", 0)


def test_nothing_checked_is_no_pass():
    assert overall([]) == ("INCOMPARABLE", 3)
