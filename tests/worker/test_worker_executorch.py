"""ExecuTorch programs made elsewhere: opened, run, timed and compared as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from broken_bytes import fuzzed

from compress.errors import ModelError, WorkerError
from compress.hosts.calls import describe, run_outputs
from compress.hosts.local import LocalHost
from compress.workflow.files import open_files

pytest.importorskip("executorch")
pytestmark = pytest.mark.filterwarnings("ignore")
# Where it does not matter: a worker with ExecuTorch takes seconds to start.
FIXED = pytest.mark.parametrize("program", ["fixed"], indirect=True)


class Score(torch.nn.Module):
    """Two layers that a backend takes, and a sum along the rows that none does."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Linear(6, 16), torch.nn.Linear(16, 1)

    def forward(self, features: torch.Tensor, more: torch.Tensor) -> torch.Tensor:
        return torch.cumsum(self.second(torch.relu(self.first(features))), 1).squeeze(-1) + more


@pytest.fixture(scope="module")
def module() -> Score:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Score().eval()


@pytest.fixture(scope="module", params=["open", "fixed"])
def program(request: pytest.FixtureRequest, module: Score, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    batch = torch.export.Dim("batch", min=1, max=16)
    shapes = ({0: batch}, {0: batch}) if request.param == "open" else None
    exported = torch.export.export(module, (torch.randn(4, 6), torch.randn(4)), dynamic_shapes=shapes)
    lowered = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()]).to_executorch()
    path = tmp_path_factory.mktemp(request.param) / "score.pte"
    path.write_bytes(lowered.buffer)
    return path


def test_it_answers_as_the_module_does_for_any_number_of_rows(program: Path, module: Score) -> None:
    random = np.random.default_rng(0)
    features, more = random.normal(size=(37, 6)).astype(np.float32), random.normal(size=37).astype(np.float32)
    given = {"input_0": features, "input_1": more}
    made = run_outputs(LocalHost(), "executorch", program, given, threads=1, batch=64, timeout_s=120)
    with torch.no_grad():
        wanted = module(torch.from_numpy(features), torch.from_numpy(more)).numpy()
    np.testing.assert_allclose(made["output_0"], wanted, atol=1e-5)


@FIXED
def test_delegated_parts_and_portable_operators_are_counted(program: Path) -> None:
    found = describe(LocalHost(), "executorch", program, precision="float", threads=1, timeout_s=120)
    taken = {item.operator: item.accelerated for item in found.placement.operators}
    assert taken["XnnpackBackend"] and taken["aten::cumsum"] is False
    assert all(item.accelerated or item.reason for item in found.placement.operators)


@FIXED
def test_it_is_known_by_its_content(program: Path) -> None:
    (file,) = open_files([program])
    assert (file.runtime, file.precision) == ("executorch", "float")


@FIXED
@pytest.mark.parametrize("damage", ["cut", "foreign"])
def test_a_damaged_program_is_an_error_of_its_own(program: Path, tmp_path: Path, damage: str) -> None:
    data = program.read_bytes()
    path = tmp_path / "damaged.pte"
    path.write_bytes(data[: len(data) // 2] if damage == "cut" else b"\0" * 400)
    with pytest.raises(WorkerError):
        describe(LocalHost(), "executorch", path, precision="float", threads=1, timeout_s=120)


@FIXED
def test_a_fuzzed_program_never_takes_the_caller_down(program: Path, tmp_path: Path) -> None:
    """Offsets that lead anywhere crash its native code: each seed gives an error that names the file, or answers."""
    given = {"input_0": np.zeros((4, 6), np.float32), "input_1": np.zeros(4, np.float32)}
    path, errors = tmp_path / "fuzzed.pte", []
    for seed in range(5):
        path.write_bytes(fuzzed(program.read_bytes(), seed, flips=8))
        try:
            made = run_outputs(LocalHost(), "executorch", path, given, threads=1, batch=4, timeout_s=60)
        except WorkerError as error:
            errors.append(error)
        else:
            assert made
    assert errors, "no seed broke the program: what is damaged is not what is opened"
    assert all(error.exit_code == 2 and "fuzzed.pte" in error.message for error in errors)


def test_it_is_described_without_running_it(program: Path, tmp_path: Path) -> None:
    from compress.cli.inspect import inspect_file

    info = inspect_file(program)
    batch = "?" if "open" in program.parent.name else 4
    assert [(item.name, item.shape, item.dtype) for item in info.inputs] == [
        ("input_0", (batch, 6), "float32"),
        ("input_1", (batch,), "float32"),
    ]
    assert info.operators["XnnpackBackend (delegated)"] >= 1 and info.operators["aten::cumsum"] == 1
    assert any("delegated to XnnpackBackend" in note for note in info.notes)
    damaged = tmp_path / "damaged.pte"
    damaged.write_bytes(program.read_bytes()[:200])
    with pytest.raises(ModelError, match="cannot be read as one ExecuTorch program"):
        inspect_file(damaged)
