"""`.ort` files: they answer like the graph, say what a build must have, and what cannot survive the conversion."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from tiny_models import TINY, engine, sqnr_db

from compress.cli.inspect import inspect_file
from compress.errors import LoweringError, ModelError
from compress.recipe import BUILTIN_SCHEMES, LayerRule
from compress.target import Target
from compress.worker.errors import JobError
from compress.worker.session import open_session
from compress.workflow.files import open_files

FLOORS_DB = {"float32": 80, "int8-static": 20, "int8-dynamic": 20, "int4-weights": 8, "int4-dynamic": 8}
MOBILE = {"schema": 1, "runtime": "onnxruntime", "format": "ort", "target_platform": "arm"}
ARM = Target.model_validate(MOBILE)
X86 = Target.model_validate({**MOBILE, "target_platform": "amd64", "cpu": "native"})


def finished(workshop, name, scheme, target=ARM):
    return engine("onnxruntime").finish(workshop.artifact("onnxruntime", name, BUILTIN_SCHEMES[scheme]), target)


@pytest.fixture
def written(workshop, tmp_path):
    def write(name, scheme, target=ARM):
        path = tmp_path / f"{name}.{scheme}.ort"
        path.write_bytes(finished(workshop, name, scheme, target).data)
        return path

    return write


@pytest.mark.parametrize("target", [ARM, X86], ids=["arm", "amd64"])
@pytest.mark.parametrize("scheme", FLOORS_DB)
@pytest.mark.parametrize("name", sorted(TINY))
def test_a_file_answers_like_the_graph(workshop, tmp_path, name, scheme, target):
    made = finished(workshop, name, scheme, target)
    before = workshop.artifact("onnxruntime", name, BUILTIN_SCHEMES[scheme])
    assert made.suffix == ".ort"
    assert (made.inputs, made.outputs, made.outcomes) == (before.inputs, before.outputs, before.outcomes)
    assert made.arithmetic == before.arithmetic
    # A cache names files by their content, without an ending.
    path = tmp_path / "0f3a"
    path.write_bytes(made.data)
    rows = workshop.tiny(name).rows(40, seed=1)
    wanted = workshop.tiny(name).model.run(rows)
    with open_session("onnxruntime", path, 1) as session:
        got = session.run(rows)
        assert tuple(session.inputs) == made.inputs
        placement = session.placement(made.arithmetic, rows)
    assert placement.operators
    for output, array in wanted.items():
        assert got[output].dtype == np.float32
        assert sqnr_db(array, got[output]) > FLOORS_DB[scheme]


def test_what_a_build_must_have_lies_beside_it(workshop):
    ((ending, text),) = finished(workshop, "conv", "int8-static").texts
    assert ending == ".required_operators.config"
    lines = dict(line.rsplit(";", 1) for line in text.splitlines())
    assert "QLinearConv" in lines["com.microsoft;1"].split(",")
    assert all(re.fullmatch(r"[a-z.]+;\d+", domain) for domain in lines)
    assert "#" not in text and "/" not in text


def test_a_file_says_nothing_of_this_machine(workshop):
    data = finished(workshop, "attention", "float32").data
    for word in (b"/tmp", b"/home", b"/work", b"site-packages", b"edge-compress-", b"tiny_models"):
        assert word not in data


@pytest.mark.parametrize("scheme", ["float16", "int8-weights"])
def test_weights_that_are_only_stored_smaller_are_refused(workshop, scheme):
    with pytest.raises(LoweringError, match=r"an \.ort file cannot hold it: .* float32 again"):
        finished(workshop, "mlp", scheme)


def test_a_layer_that_is_float_again_is_told(workshop):
    rules = (LayerRule(layers=("middle",), use="float16"),)
    scheme = BUILTIN_SCHEMES["int8-dynamic"].model_copy(update={"name": "mixed", "rules": rules})
    mixed = workshop.artifact("onnxruntime", "mlp", scheme)
    assert {item.layer: item.precision for item in mixed.outcomes}["middle"] == "float16"
    told = {item.layer: item for item in engine("onnxruntime").finish(mixed, ARM).outcomes}
    assert told["middle"].precision == "float32" and "float32 again" in told["middle"].reason
    assert told["up"].precision == "int8" and not told["up"].reason


@pytest.mark.parametrize("scheme", ["float32", "int8-static"])
def test_it_is_described_like_the_onnx_that_it_was(workshop, written, tmp_path, scheme):
    path = written("mlp", scheme)
    onnx = tmp_path / "mlp.onnx"
    onnx.write_bytes(workshop.artifact("onnxruntime", "mlp", BUILTIN_SCHEMES[scheme]).data)
    found, before = inspect_file(path), inspect_file(onnx)
    assert found.kind == "ort"
    assert (found.inputs, found.outputs) == (before.inputs, before.outputs)
    assert (found.parameters, found.macs) == (before.parameters, before.macs)
    assert dict(found.precision.shares) == dict(before.precision.shares)
    assert any("ORT format version" in note for note in found.notes)
    (file,) = open_files([path])
    assert (file.kind, file.runtime, file.precision) == (
        "ort",
        "onnxruntime",
        scheme[:4] if "int8" in scheme else "float",
    )


def test_a_layout_for_x86_is_told(written):
    notes = {
        name: inspect_file(written("conv", "float32", target)).notes for name, target in (("arm", ARM), ("x86", X86))
    }
    assert any("laid out for x86" in note for note in notes["x86"])
    assert not any("laid out for x86" in note for note in notes["arm"])


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_file_that_was_cut_is_an_error_of_that_file(written, share):
    path = written("attention", "int8-static")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(JobError, match=r"attention\.int8-static\.ort: ONNX Runtime .* cannot open it"):
        open_session("onnxruntime", path, 1)
    try:
        inspect_file(path)
    except ModelError as error:
        assert "cannot be read" in error.message


def test_a_file_of_random_damage_is_described_or_refused(written):
    """Never a traceback, whatever is read."""
    path = written("conv", "float32")
    whole, random = path.read_bytes(), np.random.default_rng(0)
    refused = 0
    for _ in range(60):
        data = bytearray(whole)
        for position in random.integers(8, len(data), 12):
            data[position] = random.integers(256)
        path.write_bytes(data)
        try:
            inspect_file(path)
        except ModelError as error:
            refused += 1
            assert error.hint
    assert refused


def test_a_file_that_claims_to_hold_more_than_it_may_is_refused(written, monkeypatch):
    from compress.runtimes.onnxruntime import inspect_ort

    path = written("mlp", "float32")
    monkeypatch.setattr(inspect_ort, "MAX_ENTRIES", 20)
    with pytest.raises(ModelError, match="more than 20 entries"):
        inspect_file(path)


def test_a_file_laid_out_for_another_processor_is_an_error_of_that_file(written):
    """There, the operators of the layout are not known: the same happens to operators of an unknown domain."""
    path = written("conv", "float32", X86)
    data = path.read_bytes()
    assert b"com.microsoft.nchwc" in data
    path.write_bytes(data.replace(b"com.microsoft.nchwc", b"com.microsoft.nchwx"))
    with pytest.raises(JobError, match=r"conv\.float32\.ort: ONNX Runtime .* cannot open it"):
        open_session("onnxruntime", path, 1)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"format": "ort"}, "needs the key target_platform"),
        ({"target_platform": "arm"}, 'belongs to format = "ort"'),
        ({"format": "ort", "target_platform": "amd64"}, "needs cpu = \"native\"; got 'any'"),
        ({"format": "ort", "target_platform": "arm", "flavour": "tensorrt"}, 'flavour = "cpu"'),
        ({"format": "ort", "target_platform": "arm", "runtime": "litert"}, 'runtime = "onnxruntime"'),
        ({"format": "ort", "target_platform": "mips"}, "'arm' or 'amd64'"),
    ],
)
def test_settings_that_contradict_each_other_are_named(values, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        Target.model_validate({"schema": 1, "runtime": "onnxruntime", **values})


def test_the_profile_for_phones_ships_ort():
    from compress.target import load_target

    found = load_target("onnxruntime-mobile", Path())
    assert (found.format, found.target_platform, found.runtime) == ("ort", "arm", "onnxruntime")
