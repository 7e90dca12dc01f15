"""Exported programs in torch: what is opened, what is refused, and what it answers."""

from __future__ import annotations

import hashlib
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from compress.errors import ModelError, UnsafeFileError, WorkerError
from compress.hosts.calls import run_outputs
from compress.hosts.local import LocalHost
from compress.hosts.screened import screened
from compress.model.core import TensorInfo
from compress.model.factory import export_module
from compress.worker.errors import JobError
from compress.worker.session import TensorSpec
from compress.worker.torch_session import TorchSession


class Scorer(nn.Module):
    """Two inputs of two kinds, two named outputs; names are no Python identifiers outside."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(5, 6)
        self.head = nn.Linear(6, 2)

    def forward(self, features: torch.Tensor, codes: torch.Tensor) -> dict[str, torch.Tensor]:
        hidden = torch.relu(features + self.table(codes))
        return {"the score": self.head(hidden), "hidden": hidden}


@pytest.fixture(scope="module")
def rows() -> dict[str, Any]:
    random = np.random.default_rng(0)
    return {
        "features": random.standard_normal((7, 6)).astype(np.float32),
        "codes": random.integers(0, 5, 7).astype(np.int64),
    }


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    inputs = [TensorInfo("features", (6,), "float32"), TensorInfo("codes", (), "int64")]
    model = export_module(Scorer().eval(), inputs, (), "scorer")
    path = tmp_path_factory.mktemp("program") / "scorer.pt2"
    path.write_bytes(model.to_bytes(shipped=True))
    return path


@pytest.fixture(scope="module")
def wanted(program: Path, rows: dict[str, Any]) -> dict[str, Any]:
    with torch.no_grad():
        made = torch.export.load(program).module()(*(torch.from_numpy(array) for array in rows.values()))
    return {name: tensor.numpy() for name, tensor in made.items()}


@pytest.fixture(autouse=True)
def _threads() -> Any:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def opened(path: Path, **settings: Any) -> TorchSession:
    return TorchSession(path, 1, screened=(hashlib.sha256(path.read_bytes()).hexdigest(),), **settings)


def test_every_row_is_answered_at_any_batch(program: Path, rows: dict[str, Any], wanted: dict[str, Any]) -> None:
    with opened(program) as session:
        assert session.inputs == {"features": TensorSpec((None, 6), "float32"), "codes": TensorSpec((None,), "int64")}
        assert session.outputs["the score"] == TensorSpec((None, 2), "float32")
        for count in (7, 1, 2):
            made = session.run({name: array[:count] for name, array in rows.items()})
            for name, array in wanted.items():
                np.testing.assert_allclose(made[name], array[:count], rtol=1e-5, atol=1e-6)
        session.prepare(rows)()


def test_a_worker_gives_what_the_program_gives(program: Path, rows: dict[str, Any], wanted: dict[str, Any]) -> None:
    made = run_outputs(LocalHost(), "torch", program, rows, threads=1, batch=3, timeout_s=60)
    for name, array in wanted.items():
        np.testing.assert_allclose(made[name], array, rtol=1e-5, atol=1e-6)


def test_all_operators_run_where_they_were_asked_to(program: Path) -> None:
    with opened(program) as session:
        found = session.placement("float")
    assert found.path == "torch eager kernels, cpu"
    assert {item.operator: item.count for item in found.operators} == {
        "aten.add.Tensor": 1,
        "aten.embedding.default": 1,
        "aten.linear.default": 1,
        "aten.relu.default": 1,
    }
    assert all(item.accelerated for item in found.operators)


def test_every_operator_is_timed(program: Path, rows: dict[str, Any]) -> None:
    with opened(program) as session:
        times = session.profile(rows, 3)
    assert [item.operator for item in times] == [
        "aten.embedding.default",
        "aten.add.Tensor",
        "aten.relu.default",
        "aten.linear.default",
    ]
    assert all(item.ms > 0 for item in times)


def test_an_archive_that_nobody_screened_is_not_opened(program: Path) -> None:
    with pytest.raises(JobError, match=r"nobody has screened this \.pt2"):
        TorchSession(program, 1)
    with pytest.raises(JobError, match=r"nobody has screened this \.pt2"):
        TorchSession(program, 1, screened=("0" * 64,))


class _Runs:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_code_in_an_archive_is_refused_before_it_starts(program: Path, rows: dict[str, Any], tmp_path: Path) -> None:
    mark, crafted = tmp_path / "ran", tmp_path / "crafted.pt2"
    with zipfile.ZipFile(program) as source, zipfile.ZipFile(crafted, "w") as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
        target.writestr("archive/data/constants/opaque_obj_0", pickle.dumps(_Runs(mark)))
    with pytest.raises((UnsafeFileError, ModelError)):
        run_outputs(LocalHost(), "torch", crafted, rows, threads=1, batch=1, timeout_s=60)
    assert not mark.exists()


def test_what_a_worker_gets_is_a_copy_that_was_screened(program: Path) -> None:
    job = {"action": "duel", "runtime": "torch", "artifact": str(program), "rival": str(program)}
    with screened(job) as sent:
        assert {sent["artifact"], sent["rival"]}.isdisjoint({str(program)}) and sent["artifact"] != sent["rival"]
        hashes = [hashlib.sha256(Path(sent[key]).read_bytes()).hexdigest() for key in ("artifact", "rival")]
        assert hashes == sent["screened"]
        assert Path(sent["artifact"]).parent.parent.stat().st_mode & 0o077 == 0
    assert not Path(sent["artifact"]).exists()
    other = {"action": "empty", "runtime": "onnxruntime"}
    with screened(other) as sent:
        assert sent == other


def test_an_archive_made_elsewhere_keeps_its_own_names(tmp_path: Path) -> None:
    class Nested(nn.Module):
        def forward(self, given: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
            return given["a"] * 2, {"sum": given["a"] + given["b"]}

    batch = torch.export.Dim("batch", min=1, max=64)
    given = {"a": torch.ones(2, 3), "b": torch.ones(2, 3)}
    exported = torch.export.export(Nested(), (given,), dynamic_shapes=({"a": {0: batch}, "b": {0: batch}},))
    path = tmp_path / "nested.pt2"
    torch.export.save(exported, path)
    with opened(path) as session:
        assert list(session.inputs) == ["given_a", "given_b"]
        made = session.run({"given_a": np.ones((1, 3), np.float32), "given_b": np.full((1, 3), 2, np.float32)})
    assert {name: array.tolist() for name, array in made.items()} == {
        "output_0": [[2, 2, 2]],
        "output_1_sum": [[3, 3, 3]],
    }


def test_a_file_that_is_no_program_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.pt2"
    path.write_bytes(b"not a program")
    with pytest.raises(JobError, match=r"broken\.pt2: torch .* cannot open it"):
        opened(path)
    with pytest.raises(ModelError, match=r"broken\.pt2: it is no \.pt2 archive"):
        run_outputs(LocalHost(), "torch", path, {"x": np.zeros((1, 1))}, threads=1, batch=1, timeout_s=60)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_told_with_the_remedy(program: Path) -> None:
    with pytest.raises(JobError, match=r"build without CUDA|finds no NVIDIA GPU") as error:
        opened(program, provider="cuda")
    assert error.value.hint
    with pytest.raises(JobError, match="no provider 'tensorrt'"):
        opened(program, provider="tensorrt")


def test_a_setting_that_a_runtime_does_not_know_is_refused(onnx_file: Path) -> None:
    from compress.worker.session import open_session

    with pytest.raises(JobError, match="'onnxruntime' has no setting 'compile'"):
        open_session("onnxruntime", onnx_file, 1, {"compile": True})
    with pytest.raises(WorkerError, match="computes on the CPU only; the job asks for 'cuda'"):
        from compress.hosts.calls import ask

        ask(LocalHost(), {"action": "empty", "runtime": "litert", "provider": "cuda"}, 60)


@pytest.mark.slow
def test_a_compiled_program_answers_the_same(program: Path, rows: dict[str, Any], wanted: dict[str, Any]) -> None:
    with opened(program, compile=True) as session:
        assert session.placement("float").path == "torch TorchInductor, cpu"
        for count in (7, 2):
            made = session.run({name: array[:count] for name, array in rows.items()})
            for name, array in wanted.items():
                np.testing.assert_allclose(made[name], array[:count], rtol=1e-5, atol=1e-6)
        with pytest.raises(JobError, match="no single operators"):
            session.profile(rows, 1)
