"""The parity certificate in a run, with a stand-in for the emulated processor: this one, its answers shifted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_project import Project, check_whole

from compress.errors import RecipeError, WorkerError
from compress.evidence import Candidate, Evidence, to_json
from compress.hosts.emulated import EmulatedHost
from compress.hosts.emulation import emulation_folder, find_emulation
from compress.hosts.local import LocalHost
from compress.processors import PROCESSORS
from compress.worker.arrays import read_arrays, write_arrays
from compress.workflow.certify import spread

pytestmark = pytest.mark.usefixtures("canned_latency")

TARGET = 'schema = 1\nruntime = "onnxruntime"\nhost = "emulated"\ncpu = "{}"\n'


class Elsewhere:
    """Answers of an emulated processor: those of this one plus `shift` for files whose sha256 is among `wrong`."""

    def __init__(self) -> None:
        self.shift = 0.0
        self.schemes: set[str] = set()
        self.error: str = ""
        self.asked: list[tuple[str, int]] = []
        self.shas: dict[str, str] = {}

    def run(self, host: EmulatedHost, job: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        if self.error:
            raise WorkerError(self.error, "edge-compress doctor --setup emulated.")
        name = host.machine.partition(" ")[0]
        if job["action"] == "outputs":
            self.asked.append((name, len(next(iter(read_arrays(Path(job["inputs"])).values())))))
        answer = LocalHost().run(job, timeout_s)
        if job["action"] == "outputs" and Path(job["artifact"]).name in self.shas.values():
            made = read_arrays(Path(job["outputs"]))
            write_arrays(
                Path(job["outputs"]), {key: (value + self.shift).astype(value.dtype) for key, value in made.items()}
            )
        return answer


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Elsewhere:
    found = Elsewhere()
    monkeypatch.setattr(EmulatedHost, "run", lambda host, job, timeout_s: found.run(host, job, timeout_s))
    return found


def with_places(project: Project, *cpus: str, **changes: Any) -> Project:
    (project.folder / "targets").mkdir(exist_ok=True)
    for cpu in cpus:
        project.write(f"targets/{cpu}.toml", TARGET.format(cpu))
    parity = {"hosts": list(cpus), "rows": 50, **changes.pop("parity", {})}
    return project.change(parity=parity, **changes)


def candidate(evidence: Evidence, scheme: str) -> Candidate:
    return next(item for item in evidence.targets[0].candidates if item.scheme == scheme)


def learn(elsewhere: Elsewhere, project: Project, *schemes: str) -> None:
    """Lets the answers of these schemes' files be shifted."""
    for scheme in schemes:
        artifact = candidate(project.evidence(), scheme).artifact
        assert artifact is not None
        elsewhere.shas[scheme] = artifact.sha256


def test_what_ships_is_asked_once_more_everywhere(project: Project, elsewhere: Elsewhere) -> None:
    outcome = with_places(project, "haswell", "cortex-a53").run()
    evidence = project.evidence()
    shipped = evidence.targets[0].choice.scheme
    assert shipped is not None and shipped.startswith("int8")
    assert outcome.exit_code == 0
    assert [(place.name, place.host, place.cpu) for place in evidence.places] == [
        ("haswell", "emulated", "haswell"),
        ("cortex-a53", "emulated", "cortex-a53"),
    ]
    found = candidate(evidence, shipped)
    assert [(item.place, item.reference, item.rows, item.max_abs, item.flips) for item in found.elsewhere] == [
        ("haswell", "local", 50, 0.0, 0),
        ("cortex-a53", "local", 50, 0.0, 0),
    ]
    assert len(found.fidelity) == 1 and found.fidelity[0].reference == "graph"
    rules = {rule.rule: rule.status for rule in evidence.targets[0].verdicts[shipped].rules}
    assert rules["min_parity_agreement[haswell logit]"] == rules["max_parity_difference[cortex-a53 logit]"] == "PASS"
    # Only what was to ship: the other files cost no emulation.
    assert [item.scheme for item in evidence.targets[0].candidates if item.elsewhere] == [shipped]
    assert elsewhere.asked == [("haswell", 50), ("cortex-a53", 50)]
    report = (project.out / "report.md").read_text()
    assert "## Parity on other processors" in report
    assert "answers compared on haswell (haswell, emulated), cortex-a53 (cortex-a53, emulated)" in report
    assert "The same files on other processors" in (project.out / "report.html").read_text()
    check_whole(project.out)


def test_a_second_run_asks_nobody(project: Project, elsewhere: Elsewhere) -> None:
    with_places(project, "haswell").run()
    elsewhere.asked.clear()
    before = to_json(project.evidence())
    assert project.run().made == 0
    assert elsewhere.asked == []
    assert to_json(project.evidence()) == before


def test_a_file_that_answers_otherwise_there_does_not_ship(project: Project, elsewhere: Elsewhere) -> None:
    with_places(project, "haswell").run()
    first = project.evidence().targets[0].choice.scheme
    assert first is not None
    learn(elsewhere, project, first)
    elsewhere.shift = 3.0
    project.forget("elsewhere")
    outcome = project.run()
    evidence = project.evidence()
    verdict = evidence.targets[0].verdicts[first]
    assert verdict.status == "FAIL"
    assert (
        "with a difference of up to" in verdict.reason and "of its range, more than the bound 1.00 %" in verdict.reason
    )
    assert "of 50 rows on haswell as it does here, less than the bound 99.90 %" in verdict.reason
    flips = candidate(evidence, first).elsewhere[0].flips
    assert flips is not None and flips > 0
    # The next one was checked before it took its place.
    second = evidence.targets[0].choice.scheme
    assert second not in (None, first)
    assert outcome.exit_code == 0
    assert candidate(evidence, str(second)).elsewhere


@pytest.mark.slow
def test_bounds_can_be_moved(project: Project, elsewhere: Elsewhere) -> None:
    with_places(project, "haswell").run()
    first = str(project.evidence().targets[0].choice.scheme)
    learn(elsewhere, project, first)
    elsewhere.shift = 3.0
    project.forget("elsewhere")
    gate = {"min_parity_agreement": 0, "max_parity_difference": 10.0}
    with_places(project, "haswell", gate=gate).run()
    assert project.evidence().targets[0].choice.scheme == first


@pytest.mark.slow
def test_a_target_for_this_processor_claims_nothing_of_others(project: Project, elsewhere: Elsewhere) -> None:
    project.write("here.toml", 'schema = 1\nruntime = "onnxruntime"\ncpu = "native"\n')
    with_places(project, "haswell", targets=["here.toml"]).run()
    first = str(project.evidence().targets[0].choice.scheme)
    learn(elsewhere, project, first)
    elsewhere.shift = 3.0
    project.forget("elsewhere")
    project.run()
    evidence = project.evidence()
    assert evidence.targets[0].choice.scheme == first
    share = candidate(evidence, first).elsewhere[0].range_share
    assert share is not None and share > 0.01
    assert not [rule for rule in evidence.targets[0].verdicts[first].rules if "parity" in rule.rule]


def test_a_place_out_of_reach_is_told_and_nothing_else_is_lost(project: Project, elsewhere: Elsewhere) -> None:
    elsewhere.error = "there is no aarch64 system to run cortex-a53 in"
    outcome = with_places(project, "cortex-a53").run()
    evidence = project.evidence()
    (target,) = evidence.targets
    assert (outcome.status, outcome.exit_code) == ("INCOMPARABLE", 3)
    assert target.choice.scheme is None
    for item in target.candidates:
        assert item.metrics and item.latency and item.placement and not item.error
        assert item.unchecked == (("cortex-a53", f"{elsewhere.error}\nHint: edge-compress doctor --setup emulated."),)
        assert target.verdicts[item.scheme].reason.startswith(f"was not checked on cortex-a53: {elsewhere.error}")
    # Once it is in reach, everything else is there already.
    elsewhere.error = ""
    after = project.run()
    assert after.exit_code == 0
    assert after.made == 1


def test_all_files_can_be_asked(project: Project, elsewhere: Elsewhere) -> None:
    with_places(project, "haswell", parity={"artifacts": "all"}).run()
    assert all(item.elsewhere for item in project.evidence().targets[0].candidates)
    assert len(elsewhere.asked) == 3


def test_an_emulated_target_is_judged_without_times(project: Project, elsewhere: Elsewhere) -> None:
    with_places(project, "haswell", targets=["onnxruntime-cpu", "haswell"], parity={"hosts": []})
    outcome = project.run()
    here, there = project.evidence().targets
    assert outcome.exit_code == 0
    assert here.candidates[0].latency is not None
    assert there.settings["host"] == "emulated"
    assert all(item.latency is None and item.memory is None and item.metrics for item in there.candidates)
    sizes = {item.scheme: item.artifact.size_bytes for item in there.candidates if item.artifact}
    assert there.choice.scheme == min(sizes, key=lambda name: sizes[name])
    # On a model as small as this one the float file has the fewest bytes.
    assert "is smaller: " in there.choice.reason
    assert "haswell: emulated, which tells answers and not speed" in (project.out / "report.md").read_text()


def test_an_emulated_target_out_of_reach_is_an_error_of_its_own(project: Project, elsewhere: Elsewhere) -> None:
    elsewhere.error = "qemu-x86_64-static is not installed"
    with_places(project, "haswell", targets=["onnxruntime-cpu", "haswell"], parity={"hosts": []})
    outcome = project.run()
    here, there = project.evidence().targets
    assert here.choice.scheme is not None
    assert all(elsewhere.error in item.error for item in there.candidates)
    assert (there.choice.scheme, outcome.exit_code) == (None, 3)


@pytest.mark.parametrize(
    ("hosts", "said"),
    [
        (["onnxruntime-cpu"], "parity.hosts: 'onnxruntime-cpu' is this machine"),
        (["haswel"], "parity.hosts: targets: there is no target 'haswel'"),
        (["haswell", "haswell"], "parity.hosts: 'haswell' is named twice"),
    ],
)
def test_a_wrong_place_is_named_before_anything_runs(project: Project, hosts: list[str], said: str) -> None:
    with_places(project, "haswell", parity={"hosts": hosts})
    with pytest.raises(RecipeError, match=said):
        project.run()
    assert not project.out.exists()


@pytest.mark.parametrize(
    ("count", "chosen"), [(1, [3]), (2, [3, 40]), (4, [3, 9, 21, 40]), (9, [3, 5, 9, 11, 21, 30, 40])]
)
def test_rows_are_spread_over_the_whole(count: int, chosen: list[int]) -> None:
    rows = np.array([3, 5, 9, 11, 21, 30, 40])
    assert spread(rows, count).tolist() == chosen


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_what_ships_is_certified_by_real_emulation(project: Project) -> None:
    cpus = ("haswell", "cortex-a53")
    for cpu in cpus:
        try:
            find_emulation(PROCESSORS[cpu], emulation_folder(), "litert")
        except WorkerError as error:
            pytest.skip(str(error))
    outcome = with_places(project, *cpus, targets=["onnxruntime-cpu", "litert-cpu"]).run()
    assert outcome.exit_code == 0
    for target in project.evidence().targets:
        shipped = next(item for item in target.candidates if item.scheme == target.choice.scheme)
        assert [item.place for item in shipped.elsewhere] == list(cpus)
        assert all(item.flips == 0 for item in shipped.elsewhere)
    assert all("qemu" in place.machine for place in project.evidence().places)
