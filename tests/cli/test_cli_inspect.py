"""`edge-compress inspect`: from a file's content to the right reader, to text, and to JSON."""

from __future__ import annotations

import io
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cli_command import Command
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console
from safetensors.torch import save_file

from compress.cli.inspect import inspect_file, render, to_plain
from compress.errors import ModelError, UnsafeFileError
from compress.model.fileinfo import FileInfo, Identity, LayerRow, Precision, StoredTensor, Value


@pytest.fixture
def onnx_file(tmp_path: Path) -> Path:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["h"], name="score"), helper.make_node("Sigmoid", ["h"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["s0", 1200])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["s0", 2])],
        [numpy_helper.from_array(np.ones((1200, 2), np.float32), "w")],
    )
    path = tmp_path / "odds.bin"
    path.write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]).SerializeToString())
    return path


def shown(info: FileInfo, layers: bool = False, width: int = 100) -> str:
    stream = io.StringIO()
    render(info, Console(file=stream, width=width), layers=layers)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())


def test_content_decides_and_not_the_ending(onnx_file: Path) -> None:
    assert inspect_file(onnx_file).kind == "onnx"


def test_a_description_reads_so(onnx_file: Path) -> None:
    info = inspect_file(onnx_file)
    assert shown(info, layers=True) == (
        f"odds.bin: onnx, {info.identity.size_bytes / 1000:.2f} kB, sha256 {info.identity.sha256[:16]}\n"
        "inputs      x: float32[batch, 1200]\n"
        "outputs     y: float32[batch, 2]\n"
        "parameters  2,400 (2.40 k)\n"
        "MACs        2,400 (2.40 k) for one row\n"
        "precision   float32; weights: float32 100 %\n"
        "operators   1 MatMul  1 Sigmoid\n"
        "notes       - opset 20\n"
        "\n"
        "layer   operator   weight      parameters    MACs\n"
        "─────────────────────────────────────────────────\n"
        "score   MatMul     [1200, 2]        2,400   2,400"
    )


def test_without_layers_there_is_no_table(onnx_file: Path) -> None:
    assert "score" not in shown(inspect_file(onnx_file))


def test_json_holds_everything_and_survives_a_round_trip(onnx_file: Path) -> None:
    plain = to_plain(inspect_file(onnx_file))
    assert json.loads(json.dumps(plain)) == plain
    assert plain["inputs"] == [{"name": "x", "shape": ["batch", 1200], "dtype": "float32"}]
    assert (plain["schema"], plain["parameters"], plain["macs"], plain["unknown_macs"]) == (1, 2400, 2400, 0)
    assert plain["operators"] == {"MatMul": 1, "Sigmoid": 1}
    assert plain["precision"] == {"summary": "float32", "shares": {"float32": 1.0}}
    assert plain["layers"] == [
        {"name": "score", "operator": "MatMul", "weight": [1200, 2], "parameters": 2400, "macs": 2400}
    ]
    assert plain["sha256"] == inspect_file(onnx_file).identity.sha256


def test_a_file_of_weights_shows_some_tensors_and_all_on_demand(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file({f"layer.{number:02}": torch.zeros(2, 3) for number in range(20)}, path)
    info = inspect_file(path)
    text, full = shown(info), shown(info, layers=True)
    assert "MACs" not in text
    assert "layer.11: float32[2, 3]" in text
    assert "layer.12" not in text
    assert "and 8 more (--layers lists them)" in text
    assert "layer.19: float32[2, 3]" in full


def test_an_exported_program_goes_to_its_reader(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(
        torch.nn.Linear(3, 2).eval(), (torch.zeros(2, 3),), dynamic_shapes=({0: batch},), strict=False
    )
    torch.export.save(program, stream := io.BytesIO())
    path.write_bytes(stream.getvalue())
    info = inspect_file(path)
    assert (info.kind, info.parameters, info.macs) == ("pt2", 8, 6)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "an empty file"),
        (b"\x89HDF\r\n\x1a\n" + bytes(40), "an HDF5 file"),
        (b"plain text, no model at all", "of unknown content"),
    ],
)
def test_other_files_are_named_with_a_remedy(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "thing"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=said) as caught:
        inspect_file(path)
    assert str(path) in caught.value.message
    assert caught.value.hint


def test_a_torchscript_program_is_named(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    torchscript(path)
    with pytest.raises(ModelError, match="a TorchScript program"):
        inspect_file(path)


def torchscript(path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(path, "w") as writer:
        for name in ("m/data.pkl", "m/constants.pkl", "m/code/__torch__.py"):
            writer.writestr(name, b"\x80\x02N.")


def test_a_pickle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.pkl"
    path.write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(UnsafeFileError, match=r"m\.pkl"):
        inspect_file(path)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        inspect_file(tmp_path / "none.onnx")


def made(**more: Any) -> FileInfo:
    return FileInfo(Identity("m.onnx", 10, "0" * 64), "onnx", 5_300_000, Precision("none", {}), **more)


def test_names_from_a_file_cannot_drive_the_terminal() -> None:
    evil = "a\x1b[31m\u202e[bold]b"
    info = made(
        inputs=(Value(evil, (evil, 2), "float32"),),
        operators={evil: 1},
        layers=(LayerRow(evil, evil, (2, 3), 6, 6),),
        tensors=(StoredTensor(evil, "float32", (1,), 1),),
        notes=(evil,),
    )
    text = shown(info, layers=True, width=300)
    assert "\x1b" not in text and "\u202e" not in text
    assert text.count("[bold]b") == 7


def test_arithmetic_that_is_partly_or_wholly_unknown_is_said_so() -> None:
    assert "MACs        at least 1,500 (1.50 k) for one row" in shown(
        made(macs=1500, unknown_macs=2, operators={"a": 3})
    )
    assert "MACs        unknown" in shown(made(operators={"a": 3}))
    assert "parameters  5,300,000 (5.30 M)" in shown(made())


def test_a_console_without_the_characters_escapes_them() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    render(made(notes=("größe",)), Console(file=stream, width=80))
    stream.flush()
    assert b"gr\\xf6\\xdfe" in stream.buffer.getvalue()  # type: ignore[attr-defined]


def test_importing_it_loads_no_framework() -> None:
    heavy = "{'torch', 'onnx', 'ai_edge_litert', 'pandas'}"
    code = f"import sys, compress.cli.inspect; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_groups_of_a_model_are_listed_with_what_cannot_be_cut(onnx_file: Path, command: Command) -> None:
    said = command("inspect", onnx_file, "--groups", "--layers")
    assert said.code == 0
    assert "an input of the model" in said.out and "an output of the model" in said.out
    assert "0 of 2 groups can be cut" in said.out
    plain = json.loads(command("inspect", onnx_file, "--groups", "--json").out)
    assert [group["can_be_cut"] for group in plain["groups"]] == [False, False]
    assert {group["reason"] for group in plain["groups"]} == {"an input of the model", "an output of the model"}


def test_weights_have_no_groups(tmp_path: Path, command: Command) -> None:
    save_file({"a.weight": torch.zeros(2, 2)}, tmp_path / "a.safetensors")
    said = command("inspect", tmp_path / "a.safetensors", "--groups")
    assert said.code == 2
    assert "groups are found in a graph" in said.err and "Traceback" not in said.err
