"""Small ONNX files for tests, and what ONNX Runtime answers on them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper

from compress.model.onnx_import.load import read_module

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
TOLERANCE = 1e-4


def values(*shape, seed=0, low=-2.0, high=2.0):
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)


def typed(name, array):
    return helper.make_tensor_value_info(
        name, helper.np_dtype_to_tensor_dtype(array.dtype), ["batch", *array.shape[1:]]
    )


def proto(nodes, feeds: Mapping[str, np.ndarray], outputs: Sequence[str], constants=None, opset=17, batch="batch"):
    """A model whose inputs are like the feeds, with an open batch unless `batch` is a number."""
    inputs = []
    for name, array in feeds.items():
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        inputs.append(helper.make_tensor_value_info(name, kind, [batch, *array.shape[1:]]))
    graph = helper.make_graph(
        list(nodes),
        "test",
        inputs,
        [helper.make_value_info(name, onnx.TypeProto()) for name in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in (constants or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8 if opset < 21 else 10)


def save(model, folder: Path, name="model.onnx") -> Path:
    path = folder / name
    path.write_bytes(model.SerializeToString())
    return path


def reference(model, feeds):
    """What ONNX Runtime answers, by output name."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    data = model if isinstance(model, bytes) else model.SerializeToString()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return dict(zip([item.name for item in session.get_outputs()], session.run(None, dict(feeds)), strict=True))


def close(want, got, tolerance=TOLERANCE):
    """Largest difference over the output's range; types and shapes must be equal, so must NaN and infinities."""
    assert got.dtype == want.dtype
    assert got.shape == want.shape
    if want.dtype == bool or not np.issubdtype(want.dtype, np.floating):
        np.testing.assert_array_equal(got, want)
        return 0.0
    finite = np.isfinite(want)
    np.testing.assert_array_equal(np.isfinite(got), finite)
    np.testing.assert_array_equal(got[~finite], want[~finite])
    if not finite.any():
        return 0.0
    error = float(np.abs(got[finite] - want[finite]).max() / max(float(np.abs(want[finite]).max()), 1e-6))
    assert error <= tolerance
    return error


def run_nodes(path: Path, feeds, sizes=None):
    """Runs the file's nodes in torch without exporting them, by output name."""
    read = read_module(path, (), sizes)
    tensors = [torch.from_numpy(np.ascontiguousarray(feeds[info.name])) for info in read.inputs]
    with torch.no_grad():
        results = read.module(*tensors)
    return {name: tensor.detach().numpy() for name, tensor in zip(read.outputs, results, strict=True)}


def parity(model, feeds, folder: Path, tolerance=TOLERANCE, imported=None):
    """Largest difference of an imported file from ONNX Runtime, over all outputs and both batch sizes."""
    from compress.model.onnx_import import load_onnx

    path = model if isinstance(model, Path) else save(model, folder)
    result = imported or load_onnx(path)
    worst = 0.0
    rows = len(next(iter(feeds.values())))
    for count in (rows, 1):
        part = {name: array[:count] for name, array in feeds.items()}
        want = reference(path.read_bytes(), part)
        got = result.run({item.name: part[item.name] for item in result.signature.inputs})
        worst = max(worst, *(close(want[name], got[name], tolerance) for name in got))
    return worst
