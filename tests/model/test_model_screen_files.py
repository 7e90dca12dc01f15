"""Archives, weights and kinds of file: good ones pass, damaged and hostile ones are refused with a clear error."""

from __future__ import annotations

import functools
import io
import json
import os
import pickle
import struct
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from compress.errors import CompressError, ModelError, UnsafeFileError
from compress.model.screen import screen_pt2, screen_weights, screened_pt2, sniff


class Named(nn.Module):
    """A small classifier with two named outputs and tied weights."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Linear(6, 4)
        self.decode = nn.Linear(4, 6)
        self.decode.weight = self.again = nn.Parameter(torch.ones(6, 4))
        self.register_buffer("mean", torch.ones(6), persistent=False)
        self.scale = torch.full((6,), 2.0)

    def forward(self, features: torch.Tensor) -> dict[str, torch.Tensor]:
        hidden = torch.relu(self.encode((features - self.mean) * self.scale))
        return {"score 1": self.decode(hidden), "tied": hidden @ self.again.T}


class Recurrent(nn.Module):
    """An LSTM over a sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.LSTM(4, 5, batch_first=True)

    def forward(self, sequence: torch.Tensor) -> torch.Tensor:
        return self.cells(sequence)[0][:, -1]


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )


def transformer() -> nn.Module:
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 1, enable_nested_tensor=False)


EXPORTS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (lambda: nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 1)), (6,)),
    "convolutional": (convolutional, (3, 8, 8)),
    "transformer": (transformer, (5, 8)),
    "named and tied": (Named, (6,)),
    "recurrent": (Recurrent, (7, 4)),
}


@functools.cache
def exported(name: str) -> tuple[torch.export.ExportedProgram, bytes]:
    """Returns a program with a dynamic batch and its archive."""
    make, shape = EXPORTS[name]
    batch = torch.export.Dim("batch", min=1, max=1024)
    inputs = (torch.randn(2, *shape),)
    program = torch.export.export(make().eval(), inputs, dynamic_shapes=({0: batch},), strict=False)
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={"note.json": "{}"})
    return program, buffer.getvalue()


def kept(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def members(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(table: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in table.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.mark.parametrize("name", EXPORTS)
@pytest.mark.filterwarnings("ignore:The tensor attributes:UserWarning")
def test_exports_pass_and_load(name: str, tmp_path: Path) -> None:
    program, content = exported(name)
    path = kept(tmp_path / "model.pt2", content)
    screen_pt2(path)
    loaded = torch.export.load(screened_pt2(path))
    features = torch.randn(3, *EXPORTS[name][1])
    expected, got = program.module()(features), loaded.module()(features)
    assert torch.utils._pytree.tree_structure(expected) == torch.utils._pytree.tree_structure(got)
    for a, b in zip(torch.utils._pytree.tree_leaves(expected), torch.utils._pytree.tree_leaves(got), strict=True):
        assert torch.equal(a, b)
    assert loaded.example_inputs is None
    assert sniff(path) == "pt2"


def test_archive_may_be_named_in_any_script_and_be_compressed(tmp_path: Path) -> None:
    table = members(exported("mlp")[1])
    renamed = {name.replace("archive/", "модель v1 (neu)/"): content for name, content in table.items()}
    screen_pt2(kept(tmp_path / "a.pt2", zipped(renamed, zipfile.ZIP_DEFLATED)))


@pytest.mark.parametrize("content", [b"", b"garbage" * 99, b"PK\x03\x04", b"PK\x05\x06" + bytes(18), pickle.dumps([1])])
def test_what_is_no_archive_is_refused(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"model\.pt2"):
        screen_pt2(kept(tmp_path / "model.pt2", content))


@pytest.mark.parametrize("share", [0.01, 0.3, 0.9, 0.999])
def test_truncated_archives_are_refused(share: float, tmp_path: Path) -> None:
    content = exported("mlp")[1]
    with pytest.raises(ModelError, match="truncated"):
        screen_pt2(kept(tmp_path / "model.pt2", content[: int(len(content) * share)]))


def test_missing_files_folders_and_devices_are_refused(tmp_path: Path) -> None:
    for check in (screen_pt2, screened_pt2, screen_weights, sniff):
        with pytest.raises(ModelError, match="no such file"):
            check(tmp_path / "absent")
        with pytest.raises(ModelError, match="folder"):
            check(tmp_path)
        with pytest.raises(ModelError, match="device"):
            check(Path("/dev/null"))


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read every file")
def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    path = kept(tmp_path / "model.pt2", b"x")
    path.chmod(0)
    with pytest.raises(ModelError, match="cannot be opened"):
        sniff(path)


def _without(name: str) -> Callable[[dict[str, bytes]], None]:
    return lambda table: table.pop(f"archive/{name}") and None


def _with(name: str, content: bytes) -> Callable[[dict[str, bytes]], None]:
    return lambda table: table.update({name: content})


DAMAGES = {
    "other format": _with("archive/archive_format", b"zip"),
    "other version": _with("archive/archive_version", b"7"),
    "no format": _without("archive_format"),
    "no program": _without("models/model.json"),
    "no weights table": _without("data/weights/model_weights_config.json"),
    "no weight": _without("data/weights/weight_0"),
    "no constants table": _without("data/constants/model_constants_config.json"),
    "no sample inputs": _without("data/sample_inputs/model.pt"),
    "program is no JSON": _with("archive/models/model.json", b"{"),
    "program is nested": _with("archive/models/model.json", b"[" * 100_000),
    "program is a list": _with("archive/models/model.json", b"[]"),
    "program of another schema": _with("archive/models/model.json", b'{"schema_version": {"major": 99}}'),
    "weights table is a list": _with("archive/data/weights/model_weights_config.json", b"[]"),
    "binary extra file": _with("archive/extra/payload", b"\xff\xfe"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_archives_are_model_errors(damage: Callable[[dict[str, bytes]], None], tmp_path: Path) -> None:
    table = members(exported("mlp")[1])
    damage(table)
    with pytest.raises(ModelError) as caught:
        screen_pt2(kept(tmp_path / "model.pt2", zipped(table)))
    assert not isinstance(caught.value, UnsafeFileError)
    assert caught.value.hint


@pytest.mark.parametrize(
    "name",
    [
        "archive/../evil",
        "/etc/evil",
        "archive/a\\evil",
        "archive/evil/",
        "archive/a//evil",
        "evil",
        "other/evil",
        "archive/./evil",
    ],
)
def test_names_that_leave_the_archive_are_refused(name: str, tmp_path: Path) -> None:
    table = {**members(exported("mlp")[1]), name: b""}
    with pytest.raises(UnsafeFileError, match="evil"):
        screen_pt2(kept(tmp_path / "model.pt2", zipped(table)))


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
@pytest.mark.parametrize("second", ["archive/models/model.json", "archive/MODELS/model.json"])
def test_names_that_occur_twice_are_refused(second: str, tmp_path: Path) -> None:
    buffer = io.BytesIO(exported("mlp")[1])
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr(second, b"{}")
    with pytest.raises(UnsafeFileError, match="twice"):
        screen_pt2(kept(tmp_path / "model.pt2", buffer.getvalue()))


def test_links_and_encrypted_members_are_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO(exported("mlp")[1])
    with zipfile.ZipFile(buffer, "a") as archive:
        link = zipfile.ZipInfo("archive/extra/link")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(UnsafeFileError, match="link"):
        screen_pt2(kept(tmp_path / "model.pt2", buffer.getvalue()))


def test_zip_bombs_are_refused(tmp_path: Path) -> None:
    table = members(exported("mlp")[1])
    table["archive/data/weights/weight_9"] = bytes(8 << 20)
    path = kept(tmp_path / "model.pt2", zipped(table, zipfile.ZIP_DEFLATED))
    with pytest.raises(UnsafeFileError, match="more than 100 times"):
        screen_pt2(path)
    with pytest.raises(UnsafeFileError, match="unpack to"):
        screen_pt2(path, max_bytes=1 << 20)
    with pytest.raises(ModelError, match="the limit is 1000"):
        screen_pt2(path, max_bytes=1000)


def test_too_many_members_are_refused(tmp_path: Path) -> None:
    table = {f"archive/extra/{index}": b"" for index in range(65_537)}
    with pytest.raises(UnsafeFileError, match="lists 65537 members"):
        screen_pt2(kept(tmp_path / "model.pt2", zipped(table)))


def test_hidden_bytes_and_second_directories_are_refused(tmp_path: Path) -> None:
    content = exported("mlp")[1]
    start = content.rindex(b"PK\x06\x06")
    for changed in (b"MZ" * 50 + content, content + b"x", content[:start] + b"x" * 99 + content[start:]):
        with pytest.raises(ModelError):
            screen_pt2(kept(tmp_path / "model.pt2", changed))


def test_local_header_that_names_another_member_is_refused(tmp_path: Path) -> None:
    content = exported("mlp")[1].replace(b"archive/models/model.json", b"archive/models/other.json", 1)
    with pytest.raises(UnsafeFileError, match="contradicts"):
        screen_pt2(kept(tmp_path / "model.pt2", content))


def test_damaged_weights_fail_their_checksum(tmp_path: Path) -> None:
    table = members(exported("mlp")[1])
    weight = table["archive/data/weights/weight_0"]
    path = kept(tmp_path / "model.pt2", exported("mlp")[1].replace(weight, weight[::-1], 1))
    for check in (screen_pt2, screened_pt2):
        with pytest.raises(ModelError, match=r"weight_0.*damaged"):
            check(path)


@pytest.mark.parametrize(
    "change",
    [
        {"sizes": [{"as_int": 10**9}, {"as_int": 6}]},
        {"sizes": [{"as_int": 10**12}, {"as_int": 6}], "strides": [{"as_int": 0}, {"as_int": 1}]},
        {"strides": [{"as_int": 7}, {"as_int": 1}]},
        {"storage_offset": {"as_int": 1}},
        {"dtype": 8},
    ],
)
def test_tensors_that_claim_more_than_is_there_are_refused(change: dict[str, object], tmp_path: Path) -> None:
    table = members(exported("mlp")[1])
    config = json.loads(table["archive/data/weights/model_weights_config.json"])
    config["config"]["0.weight"]["tensor_meta"].update(change)
    table["archive/data/weights/model_weights_config.json"] = json.dumps(config).encode()
    with pytest.raises(UnsafeFileError, match=r"the tensor (claims|would take)"):
        screen_pt2(kept(tmp_path / "model.pt2", zipped(table)))


def test_empty_member_for_a_large_tensor_is_refused(tmp_path: Path) -> None:
    table = {**members(exported("mlp")[1]), "archive/data/weights/weight_0": b""}
    with pytest.raises(UnsafeFileError, match="holds 0"):
        screen_pt2(kept(tmp_path / "model.pt2", zipped(table)))


def test_messages_show_hostile_text_in_quotes(tmp_path: Path) -> None:
    table = {**members(exported("mlp")[1]), "archive/data/weights/weight_0\x1b[31m": b""}
    with pytest.raises(UnsafeFileError) as caught:
        screen_pt2(kept(tmp_path / "model.pt2", zipped(table)))
    assert "\x1b" not in str(caught.value)


@given(st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_damage_passes_or_is_a_compress_error(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(_small_archives()[data.draw(st.integers(0, 2))])
    for _ in range(data.draw(st.integers(1, 4))):
        # Half of the flips hit the last kilobyte: the directory decides what is read.
        low = max(0, len(content) - 1024) if data.draw(st.booleans()) else 0
        content[data.draw(st.integers(low, len(content) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content)))]
    path = kept(tmp_path / "damaged", bytes(content))
    assert isinstance(sniff(path), str)
    for check in (screen_pt2, screen_weights):
        try:
            check(path)
        except CompressError as error:
            assert str(path) in error.message


@functools.cache
def _small_archives() -> tuple[bytes, bytes, bytes]:
    buffer = io.BytesIO()
    torch.save({"w": torch.ones(2), "b": torch.zeros(1)}, buffer)
    return exported("mlp")[1], buffer.getvalue(), safetensors.torch.save({"w": torch.ones(2), "b": torch.zeros(1)})


def safetensors_file(header: object, data: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def test_weights_pass_by_content_whatever_their_ending(tmp_path: Path) -> None:
    tensors = {"w": torch.ones(2, 3), "i": torch.ones(3, dtype=torch.int64), "h": torch.ones(2, dtype=torch.bfloat16)}
    path = tmp_path / "weights.pth"
    safetensors.torch.save_file(tensors, path, metadata={"format": "pt"})
    assert screen_weights(path) == sniff(path) == "safetensors"
    path = tmp_path / "weights.safetensors"
    torch.save(tensors, path)
    assert screen_weights(path) == sniff(path) == "state_dict"


@pytest.mark.parametrize(
    "value",
    [
        nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).state_dict(),
        {"epoch": 3, "loss": 0.1, "name": "a", "flags": [True, None], "state_dict": OrderedDict(w=torch.ones(2))},
        {"w": nn.Parameter(torch.ones(2)), "u": torch.ones(2, dtype=torch.uint16), "d": torch.float32},
        {"f8": torch.ones(4).to(torch.float8_e4m3fn), "view": torch.ones(9)[3:], "size": torch.Size([1])},
    ],
)
def test_state_dictionaries_pass_and_load(value: object, tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    torch.save(value, path)
    assert screen_weights(path) == "state_dict"
    torch.load(path, weights_only=True)


class Runs:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("legacy", [False, True])
def test_pickles_that_run_code_are_refused(legacy: bool, tmp_path: Path) -> None:
    path, canary = tmp_path / "weights.pth", tmp_path / "ran"
    torch.save({"w": torch.ones(1), "x": Runs(canary)}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(
        UnsafeFileError, match="refused: it is a bare pickle" if legacy else r"run code: posix\.mkdir"
    ) as caught:
        screen_weights(path)
    assert "torch.save(model.state_dict()" in caught.value.hint
    assert "safetensors.torch.save_file" in caught.value.hint
    assert not canary.exists()
    torch.load(path, weights_only=False)
    assert canary.exists()


def test_whole_models_and_torchscript_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save(nn.Linear(2, 2), path)
    with pytest.raises(UnsafeFileError, match=r"run code: torch\.nn\.modules\.linear\.Linear"):
        screen_weights(path)
    table = {"archive/constants.pkl": b"", "archive/data.pkl": b"", "archive/code/model.py": b""}
    kept(path, zipped(table))
    assert sniff(path) == "torchscript"
    with pytest.raises(UnsafeFileError, match="TorchScript"):
        screen_weights(path)


def torch_file(pickled: bytes, **stored: bytes) -> bytes:
    return zipped({"archive/data.pkl": pickled, **{f"archive/data/{key[1:]}": data for key, data in stored.items()}})


def storage(kind: str = "FloatStorage", elements: bytes = b"K\x02", key: bytes = b"0") -> bytes:
    text = b"X" + struct.pack("<I", len(key)) + key
    return b"(X\x07\0\0\0storagectorch\n" + kind.encode() + b"\n" + text + b"X\x03\0\0\0cpu" + elements + b"tQ"


PICKLES = {
    "computed function": b"\x80\x02}}R.",
    "function with attributes": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}b.",
    "class as a result": b"\x80\x02ctorch\nTensor\n)\x81.",
    "call of a type": b"\x80\x02ctorch\nTensor\n)R.",
    "old call": b"\x80\x02(cposix\nsystem\no.",
    "instance": b"\x80\x02(S'true'\niposix\nsystem\n.",
    "name from the stack": b"\x80\x04\x8c\x05posix\x8c\x06system\x93.",
    "python 2 name": b"\x80\x02c__builtin__\neval\nX\x01\0\0\x001\x85R.",
    "attribute of a module": b"\x80\x02ctorch\nos.system\nX\x01\0\0\x001\x85R.",
    "next buffer": b"\x80\x05\x97.",
    "extension": b"\x80\x02\x82\x01.",
    "set on a tensor": b"\x80\x02ctorch\nSize\n)R}b.",
    "rebuild through another function": (
        b"\x80\x02ctorch._tensor\n_rebuild_from_type_v2\n(ctorch\nSize\nctorch\nTensor\n)}tR."
    ),
    "foreign reference": b"\x80\x02X\x01\0\0\x00aQ.",
    "reference to a module": storage().replace(b"storage", b"modules"),
    "negative storage": b"\x80\x02" + storage(elements=b"J\xff\xff\xff\xff") + b".",
    "long storage": b"\x80\x02" + storage("DoubleStorage") + b".",
}


@pytest.mark.parametrize("pickled", PICKLES.values(), ids=PICKLES)
def test_crafted_pickles_are_refused(pickled: bytes, tmp_path: Path) -> None:
    with pytest.raises(UnsafeFileError, match=r"data\.pkl"):
        screen_weights(kept(tmp_path / "w.pth", torch_file(pickled, _0=bytes(8))))


@pytest.mark.parametrize(
    "pickled", [b"", b"\x80\x02", b"\x80\x02t.", b"\x80\x02h\x07.", b"\x80\x02a.", b"\xff", storage(key=b"7")]
)
def test_broken_pickles_are_model_errors(pickled: bytes, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"data\.pkl"):
        screen_weights(kept(tmp_path / "w.pth", torch_file(pickled)))


SAFETENSORS = {
    "header is a list": safetensors_file([]),
    "unknown type": safetensors_file({"w": {"dtype": "F4", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)),
    "beyond the end": safetensors_file({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, bytes(4)),
    "shape and bytes differ": safetensors_file({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, bytes(4)),
    "negative": safetensors_file({"w": {"dtype": "F32", "shape": [-1], "data_offsets": [4, 0]}}, bytes(4)),
    "three offsets": safetensors_file({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 4]}}, bytes(4)),
    "hole": safetensors_file({"w": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, bytes(8)),
    "rest": safetensors_file({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, bytes(8)),
    "overlap": safetensors_file(
        {name: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for name in ("a", "b")}, bytes(4)
    ),
    "metadata": safetensors_file({"__metadata__": {"a": 1}}),
    "header too long": struct.pack("<Q", 1 << 60) + b"{}",
}


@pytest.mark.parametrize("content", SAFETENSORS.values(), ids=SAFETENSORS)
def test_wrong_safetensors_are_refused(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        screen_weights(kept(tmp_path / "w.safetensors", content))


def test_renamed_files_are_named_by_content(tmp_path: Path) -> None:
    onnx = b"\x08\x0a\x12\x07pytorch\x1a\x04test\x3a\x02\x0a\x00"
    kinds = {
        "empty": b"",
        "onnx": onnx,
        "tflite": b"\x1c\0\0\0TFL3" + bytes(16),
        "pte": b"\x20\0\0\0ET12" + bytes(16),
        "hdf5": b"\x89HDF\r\n\x1a\n" + bytes(16),
        "pickle": pickle.dumps({"a": 1}),
        "zip": zipped({"a.txt": b"a"}),
        "unknown": b"hello, world",
    }
    for kind, content in kinds.items():
        path = kept(tmp_path / "model.pt2", content)
        assert sniff(path) == kind
        with pytest.raises(ModelError):
            screen_pt2(path)
        with pytest.raises(ModelError):
            screen_weights(path)
    assert sniff(kept(tmp_path / "m", onnx[:11])) == "unknown"
    assert sniff(kept(tmp_path / "m", zipped({"version": b"", "serialized_exported_program.json": b""}))) == "pt2"
    assert sniff(kept(tmp_path / "m", b"PK\x03\x04" + zlib.compress(b"x"))) == "zip"


def test_exports_of_other_formats_are_recognised(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", [], [])
    path = tmp_path / "model.pt2"
    onnx.save(onnx.helper.make_model(graph), path)
    assert sniff(path) == "onnx"
    with pytest.raises(ModelError, match="looks like: onnx"):
        screen_pt2(path)
