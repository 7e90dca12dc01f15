"""Files for devices that were cut or are no models: named, with the exit code, in every command that opens them."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import pytest
from check_kit import Bench, LocalHost, write_model
from cli_command import Command

RECIPE = """
schema = 1
name = "t"
targets = ["onnxruntime-cpu"]
[model]
source = "whole.onnx"
[data]
source = "rows.csv"
id = "id"
label = "y"
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with `whole.onnx` and `whole.ort`, halves of it and of a `.tflite`, and a recipe."""
    onnx = write_model(tmp_path / "whole.onnx", "v1")
    ort = as_ort(onnx)
    data = ort.read_bytes()
    (tmp_path / "half.ort").write_bytes(data[: len(data) // 2])
    # What is left of a .tflite: its mark, and offsets that lead outside.
    (tmp_path / "half.tflite").write_bytes(b"\x1c\x00\x00\x00TFL3" + bytes(range(200)))
    (tmp_path / "recipe.toml").write_text(RECIPE)
    rows = [f"{row},{row % 7},{row % 5},{row % 3},{row % 2},{row % 2}" for row in range(60)]
    (tmp_path / "rows.csv").write_text("\n".join(["id,a,b,c,d,y", *rows]) + "\n")
    return tmp_path


def as_ort(path: Path) -> Path:
    """Writes the `.ort` beside an `.onnx`."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(path.with_suffix(".ort"))
    options.add_session_config_entry("session.save_model_format", "ORT")
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return path.with_suffix(".ort")


@pytest.mark.parametrize("name", ["half.ort", "half.tflite"])
@pytest.mark.parametrize(
    "arguments",
    [
        ("inspect", "FILE"),
        ("bench", "FILE"),
        ("bench", "FILE", "--target", "tflite-runtime-cpu"),
        ("evaluate", "FILE", "--against", "whole.onnx", "--recipe", "recipe.toml"),
        ("evaluate", "whole.onnx", "--against", "FILE", "--recipe", "recipe.toml"),
        ("baseline", "save", "main", "FILE"),
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_a_file_that_was_cut_is_named(project: Path, command: Command, arguments: tuple[str, ...], name: str) -> None:
    said = command(*(name if item == "FILE" else item for item in arguments), folder=project)
    assert said.code == 2
    assert name in said.err and "Traceback" not in said.err
    assert "hint: " in said.err


def test_a_whole_ort_is_described_and_measured(project: Path, command: Command) -> None:
    said = command("inspect", "whole.ort", folder=project)
    assert said.code == 0
    assert "ORT format version" in said.out and "x: float32[batch, 4]" in said.out
    said = command(
        "bench",
        "whole.onnx",
        "whole.ort",
        "--pairs",
        "5",
        "--seconds",
        "0.02",
        "--sparse",
        "0",
        "--budget-s",
        "1",
        folder=project,
    )
    assert said.code == 0 and "whole.ort" in said.out


def test_a_file_of_another_runtime_is_named(project: Path, command: Command) -> None:
    said = command("bench", "whole.ort", "--target", "litert-cpu", folder=project)
    assert said.code == 2
    assert "whole.ort: is for onnxruntime; the target 'litert-cpu' is litert" in said.err


def test_a_check_keeps_the_other_rows(tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path / "project")
    # The canned worker reads a note that only an .onnx has.
    other = write_model(bench.folder / "phone.onnx", "v1")
    monkeypatch.setattr(LocalHost, "run", lambda host, job, timeout_s: bench.answer(job, timeout_s))
    monkeypatch.delenv("EDGE_COMPRESS_STORE", raising=False)
    assert command("baseline", "save", "main", "model.onnx", "phone.onnx", folder=bench.folder).code == 0
    bench.change()
    data = as_ort(other).read_bytes()
    other.write_bytes(data[: len(data) // 2])
    said = command("check", "--json", "-", folder=bench.folder)
    assert said.code == 3
    assert '"SAME"' in said.out and '"INCOMPARABLE"' in said.out
    assert "phone.onnx: it cannot be read" in said.out
