"""The figures of tasks: what the column is called, what each entry says, and in which order."""

from __future__ import annotations

from dataclasses import replace

import pytest
from multitask_evidence import multitask_candidate

from compress.evidence import Evidence, Interval, Metric
from compress.report.quality import Figure, caveats, decimals, differences, figures, heading, several_tasks
from compress.report.summary import notes, verdict_line
from compress.report.table import COLUMNS, headings, legend, table_rows


def only(evidence: Evidence, *names: str) -> Evidence:
    """The evidence with the tasks whose primary metrics have these names."""
    target = evidence.targets[0]
    tasks = {item.task for candidate in target.candidates for item in candidate.primary if item.name in names}
    candidates = tuple(
        replace(candidate, metrics=tuple(item for item in candidate.metrics if item.task in tasks))
        for candidate in target.candidates
    )
    return replace(evidence, targets=(replace(target, candidates=candidates),))


def as_binary(evidence: Evidence) -> Evidence:
    """The evidence with an AUC instead of every other primary metric."""
    target = evidence.targets[0]
    candidates = tuple(
        replace(
            candidate,
            metrics=tuple(replace(item, name="auc") if item.primary else item for item in candidate.metrics),
        )
        for candidate in target.candidates
    )
    return replace(evidence, targets=(replace(target, candidates=candidates),))


def test_one_figure_a_task_says_task_and_metric(three_tasks: Evidence) -> None:
    target = three_tasks.targets[0]
    assert several_tasks(target)
    assert figures(target, multitask_candidate(three_tasks, "int8-dynamic")) == (
        Figure("default: AUC", "0.7791 (-0.0003 [-0.0011, +0.0005])"),
        Figure("delinquency: top-1", "0.8300 (-0.0012 [-0.0043, +0.0019])"),
        Figure("bill_growth: R2", "0.4015 (-0.0006 [-0.0036, +0.0024])"),
    )
    assert figures(target, target.candidates[0])[0] == Figure("default: AUC", "0.7794")
    assert figures(target, multitask_candidate(three_tasks, "int8-static")) == ()
    cell = table_rows(three_tasks)[0].cells[COLUMNS.index("quality")]
    assert cell == "default: AUC 0.7794; delinquency: top-1 0.8312; bill_growth: R2 0.4021"


@pytest.mark.parametrize(("name", "title"), [("auc", "AUC"), ("top_1", "top-1"), ("r2", "R2")])
def test_a_single_task_gives_the_column_its_name(three_tasks: Evidence, name: str, title: str) -> None:
    alone = only(three_tasks, name)
    target = alone.targets[0]
    assert heading(alone) == title
    assert headings(alone) == tuple(title if column == "quality" else column for column in COLUMNS)
    assert not several_tasks(target)
    assert [figure.label for figure in figures(target, target.candidates[1])] == [""]
    assert legend(alone)[title] == "value (difference to the baseline [95 % interval])"


def test_tasks_of_one_kind_are_told_apart_by_name(three_tasks: Evidence) -> None:
    binary = as_binary(three_tasks)
    target = binary.targets[0]
    assert heading(binary) == "AUC"
    labels = [figure.label for figure in figures(target, target.candidates[1])]
    assert labels == ["default:", "delinquency:", "bill_growth:"]


def test_tasks_of_several_kinds_share_a_column(three_tasks: Evidence) -> None:
    assert heading(three_tasks) == heading(replace(three_tasks, targets=())) == "quality"
    assert legend(three_tasks)["quality"].startswith("a figure a task, value (difference")
    unknown = only(three_tasks, "auc")
    assert heading(unknown) == "AUC"
    target = three_tasks.targets[0]
    other = Metric("f_beta", 0.5, 0.5, 0.0, None, True, 10, primary=True)
    renamed = replace(target, candidates=(replace(target.candidates[0], metrics=(other,)),))
    assert heading(replace(three_tasks, targets=(renamed,))) == "quality"


def test_differences_name_the_worst_task_first(three_tasks: Evidence) -> None:
    target = three_tasks.targets[0]
    assert differences(target, multitask_candidate(three_tasks, "float16")) == [
        "top-1 of delinquency -0.0100 [-0.0131, -0.0069]",
        "R2 of bill_growth -0.0050 [-0.0080, -0.0020]",
        "AUC of default -0.0025 [-0.0033, -0.0017]",
    ]
    line = verdict_line(target)
    assert line.startswith("ships: int8-dynamic - 0.62x the latency, 0.26x the size, top-1 of delinquency -0.0012 [")
    assert line.index("top-1 of delinquency") < line.index("R2 of bill_growth") < line.index("AUC of default")


def test_a_loss_is_a_loss_in_its_own_direction(three_tasks: Evidence) -> None:
    target = three_tasks.targets[0]
    gain = Metric("auc", 0.7, 0.6, 0.1, None, True, 10, task="a", primary=True)
    loss = Metric("cost", 0.7, 0.6, 0.1, None, False, 10, task="b", primary=True)
    unknown = Metric("r2", None, None, None, None, True, 10, task="c", primary=True)
    found = differences(target, replace(target.candidates[1], metrics=(gain, loss, unknown)))
    assert found == ["cost of b +0.1000", "AUC of a +0.1000"]


def test_caveats_name_metric_and_task(three_tasks: Evidence) -> None:
    target = three_tasks.targets[0]
    rests = "the interval rests on about 7 rows; a rare large error may have been missed"
    assert caveats(target, multitask_candidate(three_tasks, "float16")) == [f"R2 of bill_growth: {rests}"]
    assert f"onnxruntime-cpu int8-dynamic, float16: R2 of bill_growth: {rests}" in notes(three_tasks)
    alone = only(three_tasks, "r2")
    assert f"onnxruntime-cpu int8-dynamic, float16: R2: {rests}" in notes(alone)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [("auc", 1287.4, 4), ("mae", 1287.4, 1), ("mae", 0.5, 5), ("rmse", 3e6, 0), ("rmse", 2e-5, 9), ("mae", 0.0, 4)],
)
def test_figures_in_the_labels_unit_are_given_five_digits(name: str, value: float, expected: int) -> None:
    interval = Interval(0.0, 0.0, 0.95, "equal scores")
    assert decimals(Metric(name, value, value, 0.0, interval, False, 10)) == expected
    assert decimals(Metric(name, None, None, None, None, False, 10)) == 4
