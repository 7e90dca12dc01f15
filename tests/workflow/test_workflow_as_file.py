"""The main job on an `.onnx` file with operators that cannot be imported."""

from __future__ import annotations

import hashlib

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file
from tiny_project import FEATURES

from compress.errors import ModelError, RecipeError, StoreError
from compress.model import onnx_file
from compress.runtimes.onnxruntime import draft
from compress.store.outdir import OutputFolder
from compress.workflow.approval import approve


def write(folder, *, opset=17, external=False, outputs=("logit",)):
    """The trained scorer with ONNX Runtime's own `FastGelu` in it, an input that nothing reads, nodes without names."""
    weights = load_file(folder / "weights.safetensors")
    constants = {
        "w1": weights["first.weight"].T,
        "w2": weights["second.weight"],
        "b2": weights["second.bias"],
        "w3": weights["head.weight"].T,
    }
    bias = numpy_helper.from_array(weights["first.bias"], "")
    nodes = [
        helper.make_node("Constant", [], ["b1"], value=bias),
        helper.make_node("MatMul", ["features", "w1"], ["h"]),
        helper.make_node("FastGelu", ["h", "b1"], ["g"], domain="com.microsoft"),
        helper.make_node("Gemm", ["g", "w2", "b2"], ["k"], transB=1, name="second"),
        helper.make_node("Relu", ["k"], ["r"]),
        helper.make_node("MatMul", ["r", "w3"], ["m"]),
        helper.make_node("Reshape", ["m", "flat"], ["logit"]),
        helper.make_node("Neg", ["logit"], ["other"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", len(FEATURES)]),
            helper.make_tensor_value_info("orphan", TensorProto.FLOAT, ["n", 1]),
        ],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in outputs],
        [
            *(numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in constants.items()),
            numpy_helper.from_array(np.array([-1], np.int64), "flat"),
        ],
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)],
        ir_version=8,
    )
    options = {"save_as_external_data": True, "location": "model.data", "size_threshold": 16} if external else {}
    onnx.save(model, folder / "model.onnx", **options)
    return folder / "model.onnx"


def as_file(project, outputs=None, **changes):
    return project.change(model={"source": "model.onnx", "weights": None, "outputs": outputs}, **changes)


def test_it_is_quantized_and_measured_for_onnx_runtime_and_what_was_not_possible_is_told(project):
    path = write(project.folder)
    as_file(project, targets=["onnxruntime-cpu", "litert-cpu"], passes=[{"kind": "fold_batch_norm"}])
    project.run()
    evidence = project.evidence()
    mobile = evidence.targets[1]
    assert "cannot take the file as it is" in mobile.error and "com.microsoft.FastGelu" in mobile.error
    steps = {step.kind: step.skipped for step in evidence.steps}
    assert steps["import"] == (("com.microsoft.FastGelu (node 'FastGelu')", "cannot be imported"),)
    assert "not possible on a file that is no graph" in steps["fold_batch_norm"][0][1]
    assert "without the inputs orphan, which nothing reads" in project.manifest()["lineage"]["original"]

    (first, static, dynamic) = evidence.targets[0].candidates
    assert not any(candidate.error for candidate in (first, static, dynamic))
    # The baseline answers as the file does.
    session = onnxruntime.InferenceSession((project.out / first.artifact.file).read_bytes())
    rows = np.random.default_rng(0).normal(size=(7, len(FEATURES))).astype(np.float32)
    before = onnxruntime.InferenceSession(path).run(None, {"features": rows, "orphan": rows[:, :1]})
    np.testing.assert_array_equal(session.run(None, {"features": rows})[0], before[0])
    assert first.parity[0].reference == "file" and first.parity[0].max_abs == 0
    for candidate in (static, dynamic):
        precisions = {layer.operator: layer.precision for layer in candidate.artifact.layers}
        assert precisions == {"matmul": "int8", "linear": "int8"}
        assert candidate.parity[0].sqnr_db > 25
        assert candidate.metric("agreement").value > 0.95
    assert any("in ONNX Runtime" in note for note in static.artifact.notes)
    report = (project.out / "report.md").read_text(encoding="utf-8")
    assert "FastGelu" in report


@pytest.mark.usefixtures("canned_latency")
def test_external_data_is_inside_what_ships(project):
    write(project.folder, external=True)
    as_file(project, schemes=["float32"]).run()
    (project.folder / "model.data").unlink()
    (first,) = project.evidence().targets[0].candidates
    onnxruntime.InferenceSession((project.out / first.artifact.file).read_bytes())


@pytest.mark.usefixtures("canned_latency")
def test_long_weights_ship_beside_the_file_whole_and_named_in_the_manifest(project, monkeypatch):
    monkeypatch.setattr(onnx_file, "INSIDE_BYTES", 16)
    monkeypatch.setattr(onnx_file, "_SMALL_BYTES", 16)
    monkeypatch.setattr(draft, "SMALL_BYTES", 16)
    write(project.folder, external=True)
    as_file(project, schemes=["float32", "int8-dynamic", "int8-static", "float16"])
    first = project.run()
    plain, dynamic, static, half = project.evidence().targets[0].candidates
    assert "weights lie beside it" in static.error
    listed = {entry["path"]: entry for entry in project.manifest()["files"]}
    for candidate in (plain, dynamic, half):
        artifact = candidate.artifact
        assert not candidate.error
        (name,) = artifact.beside
        data = (project.out / name).read_bytes()
        assert listed[name]["sha256"] == hashlib.sha256(data).hexdigest() == name.split("/")[1].removesuffix(".weights")
        assert artifact.size_bytes == len((project.out / artifact.file).read_bytes()) + len(data)
        assert any(name.split("/")[1] in note for note in artifact.notes)
    assert plain.parity[0].max_abs == 0
    assert dynamic.parity[0].sqnr_db > 25
    # Every step is reused, the weights beside the files of the cache among them.
    again = project.run()
    assert (again.made, again.folder) == (0, first.folder)
    with pytest.raises(StoreError, match="a release holds single files"):
        approve(project.out, "Ada Byron <ada@bank.example>", override="to see", ship={"onnxruntime-cpu": "float32"})
    # What ships needs nothing of the folder that it came from.
    rows = np.random.default_rng(0).normal(size=(7, len(FEATURES))).astype(np.float32)
    (project.folder / "model.data").unlink()
    inside = onnxruntime.InferenceSession(write(project.folder))
    wanted = inside.run(None, {"features": rows, "orphan": rows[:, :1]})[0]
    session = onnxruntime.InferenceSession((project.out / plain.artifact.file).resolve())
    np.testing.assert_array_equal(session.run(None, {"features": rows})[0], wanted)
    # A damaged one is not taken for the result.
    weights = (project.out / plain.artifact.beside[0]).resolve()
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert OutputFolder(project.out, "").current_manifest() is None


@pytest.mark.usefixtures("canned_latency")
def test_an_old_opset_is_quantized_too(project):
    write(project.folder, opset=12)
    as_file(project).run()
    for candidate in project.evidence().targets[0].candidates:
        assert not candidate.error


@pytest.mark.usefixtures("canned_latency")
def test_outputs_are_chosen_by_name(project):
    write(project.folder, outputs=("other", "logit"))
    as_file(project, ["logit"], schemes=["float32"]).run()
    (first,) = project.evidence().targets[0].candidates
    assert first.artifact.outputs == ("logit",)
    as_file(project, ["logits"])
    with pytest.raises(ModelError, match="no output 'logits'"):
        project.run()


def test_other_columns_than_the_file_takes_are_refused(project):
    write(project.folder)
    as_file(project, data={"drop": ["group", "debt"]})
    with pytest.raises((ModelError, RecipeError), match=r"\[batch, 6\], the data gives \[batch, 5\]"):
        project.run()
    assert not project.out.exists()


@pytest.mark.usefixtures("canned_latency")
def test_every_method_of_calibration_works_on_a_file(project):
    """A worker a batch gives whole values, from which the histogram is made here."""
    write(project.folder)
    found = {}
    for method in ("min-max", "percentile"):
        as_file(
            project,
            schemes=["float32", "int8-static"],
            calibration={"method": method, "percentile": 95.0, "rows": 60, "batch": 25},
            repair={"enabled": True, "budget_s": 1e-9},
        )
        project.run()
        (target,) = project.evidence().targets
        static = target.candidates[1]
        assert not static.error
        (said,) = [note for note in static.artifact.notes if "ranges:" in note]
        assert f"ranges: {method}" in said
        assert "over 60 rows, in ONNX Runtime (60 of" in said
        found[method] = static.parity[0].sqnr_db
    # Five of a hundred numbers are clipped.
    assert found["min-max"] > found["percentile"] > 5
