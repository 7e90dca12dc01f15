"""The scenarios of `benchmarks/interval_coverage.py`, fewer samples of each: intervals cover, harms do not pass."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
from scipy.stats import binom

PATH = Path(__file__).parents[2] / "benchmarks" / "interval_coverage.py"
RUNS = 120


@pytest.fixture(scope="module")
def benchmark():
    specification = importlib.util.spec_from_file_location("interval_coverage", PATH)
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    module.TRUTH_ROWS = 200_000
    return module


@pytest.mark.parametrize(
    "name",
    [
        "noise",
        "noise, bootstrap",
        "a rare large loss, 30 rows",
        "a rare large loss, 2 rows",
        "far from calibrated, then farther",
        "calibrated, then shifted by 0.02",
        "noise, decisions",
        "a group turned away",
        "five classes, calibration",
        "numbers, by period",
    ],
)
def test_intervals_cover_and_harms_on_the_margin_seldom_pass(benchmark, name):
    (scenario,) = (item for item in benchmark.SCENARIOS if item.name == name)
    for result in benchmark.simulate(scenario, RUNS, resamples=200):
        if not name.startswith("a rare"):
            assert result.covered >= binom.ppf(0.0001, RUNS, 0.94), result
        if result.harms:
            # More would be seen one time in ten thousand if the rate were 5 %.
            assert result.passed <= binom.ppf(0.9999, RUNS, 0.05), result
            assert result.failed <= binom.ppf(0.9999, RUNS, 0.05), result


def test_the_table_names_every_figure(benchmark):
    scenario = next(item for item in benchmark.SCENARIOS if item.name == "numbers, by period")
    table = benchmark.table(list(benchmark.simulate(scenario, 20)))
    assert [line.split("|")[2].strip() for line in table.splitlines()[2:]] == ["`r2`", "`mae`", "`mean_error`"]
