"""Quantizes one file with one tool, in that tool's own environment, and says what it cost.

    PYTHON quantization_jobs.py TOOL SETTING CASE-FOLDER OUT.onnx

The folder holds `float.onnx`, `calibration.npz` and `case.json`. Needs numpy and the tool. The last line of the output
is one JSON object: seconds, and the peak of memory above what the process held when the tool was imported, in bytes.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Task:
    """What is to be done.

    Attributes:
        setting: `default`: the tool's documented defaults for static quantization; `best`: its documented settings for
            int8 on such a processor; `products`: those, on matrix products alone, which each tool can be told and which
            a Transformer with its features' scales inside needs; `dynamic`: ranges found at run time, where the tool
            has it.
        model: The float32 file.
        out: Where the int8 file goes.
        rows: Calibration rows by input, `[rows, ...]`.
        transformer: Whether it is one.
        reduce: Whether this processor adds pairs of 8-bit products in 16 bits, for which most tools' documents say to
            keep weights to 7 bits; so their best settings do.
    """

    setting: str
    model: Path
    out: Path
    rows: dict[str, Any]
    transformer: bool
    reduce: bool

    @property
    def best(self) -> bool:
        """Whether the tool's best settings are asked for."""
        return self.setting in ("best", "products")

    @property
    def products(self) -> bool:
        """Whether matrix products alone are to be quantized."""
        return self.setting == "products"

    def feeds(self) -> Iterator[dict[str, Any]]:
        """One row at a time, as the tools' own examples feed them."""
        for index in range(len(next(iter(self.rows.values())))):
            yield {name: array[index : index + 1] for name, array in self.rows.items()}


Prepared = Callable[[], None]
PRODUCTS = ["MatMul", "Gemm"]


def _onnxruntime(task: Task) -> Prepared:
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_dynamic, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process
    from onnxruntime.transformers.optimizer import optimize_model

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = task.feeds()

        def get_next(self) -> dict[str, Any] | None:
            return next(self.left, None)

    def run() -> None:
        prepared = task.out.with_suffix(".prepared.onnx")
        quant_pre_process(task.model, prepared, skip_symbolic_shape=True)
        if task.setting == "dynamic":
            quantize_dynamic(prepared, task.out)
        elif task.setting == "dynamic best":
            optimize_model(str(task.model), "bert", opt_level=0).save_model_to_file(str(prepared))
            quantize_dynamic(
                prepared,
                task.out,
                per_channel=True,
                reduce_range=task.reduce,
                extra_options={"DefaultTensorType": 1},
            )
        elif task.best:
            settings: dict[str, Any] = {"op_types_to_quantize": PRODUCTS} if task.products else {}
            settings |= {"per_channel": True, "activation_type": QuantType.QUInt8, "reduce_range": task.reduce}
            quantize_static(prepared, task.out, Reader(), **settings)
        else:
            quantize_static(prepared, task.out, Reader())

    return run


def _nncf(task: Task) -> Prepared:
    import nncf
    import onnx

    def run() -> None:
        rows = list(task.feeds())
        settings: dict[str, Any] = {"subset_size": len(rows)}
        model = onnx.load(task.model)
        if task.best:
            # Its slow bias correction writes a graph with one name twice where an input is read by several layers.
            settings |= {"preset": nncf.QuantizationPreset.MIXED, "fast_bias_correction": task.products}
            settings |= {"model_type": nncf.ModelType.TRANSFORMER} if task.transformer else {}
            if task.reduce:
                halved = nncf.quantization.advanced_parameters.OverflowFix.ENABLE
                settings["advanced_parameters"] = nncf.AdvancedQuantizationParameters(overflow_fix=halved)
        if task.products:
            others = sorted({node.op_type for node in model.graph.node}.difference(PRODUCTS))
            settings["ignored_scope"] = nncf.IgnoredScope(types=others)
        onnx.save(nncf.quantize(model, nncf.Dataset(rows), **settings), task.out)

    return run


def _neural_compressor(task: Task) -> Prepared:
    from onnx_neural_compressor.data_reader import CalibrationDataReader
    from onnx_neural_compressor.quantization import QuantFormat, config, quantize

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rewind()

        def get_next(self) -> dict[str, Any] | None:
            return next(self.left, None)

        def rewind(self) -> None:
            self.left = task.feeds()

    def run() -> None:
        settings: dict[str, Any] = {"calibration_sampling_size": len(next(iter(task.rows.values())))}
        if task.setting == "dynamic":
            chosen = config.DynamicQuantConfig(per_channel=True)
        elif task.best:
            settings |= {"quant_format": QuantFormat.QDQ, "per_channel": True, "reduce_range": task.reduce}
            chosen = config.StaticQuantConfig(Reader(), **settings)
        else:
            chosen = config.StaticQuantConfig(Reader(), **settings)
        quantize(str(task.model), str(task.out), chosen)

    return run


def _olive(task: Task) -> Prepared:
    # It sends usage data otherwise.
    os.environ["OLIVE_DISABLE_TELEMETRY"] = "1"
    from olive.data.registry import Registry
    from olive.model import ONNXModelHandler
    from olive.passes.olive_pass import create_pass_from_dict
    from olive.passes.onnx.quantization import OnnxDynamicQuantization, OnnxStaticQuantization

    class Rows:
        def __len__(self) -> int:
            return len(next(iter(task.rows.values())))

        def __getitem__(self, index: int) -> tuple[dict[str, Any], int]:
            return {name: array[index] for name, array in task.rows.items()}, 0

    @Registry.register_dataset("rows_of_the_case")
    def rows(**_: Any) -> Rows:
        return Rows()

    def run() -> None:
        settings: dict[str, Any] = {}
        if task.setting != "dynamic":
            settings["data_config"] = {"name": "rows", "load_dataset_config": {"type": "rows_of_the_case"}}
        if task.best:
            settings |= {
                "per_channel": True,
                "precision": "int8",
                "activation_type": "uint8",
                "reduce_range": task.reduce,
            }
        if task.products:
            settings["op_types_to_quantize"] = PRODUCTS
        kind = OnnxDynamicQuantization if task.setting == "dynamic" else OnnxStaticQuantization
        made = create_pass_from_dict(kind, settings, disable_search=True).run(
            ONNXModelHandler(model_path=str(task.model)), str(task.out.with_suffix(""))
        )
        _move(Path(made.model_path), task.out)

    return run


def _aimet(task: Task) -> Prepared:
    import onnx
    from aimet_onnx import QuantizationSimModel
    from aimet_onnx.common.quantsim_config.utils import get_path_for_per_channel_config

    def run() -> None:
        rows = list(task.feeds())
        # Its simulation runs with the batch that it is shown.
        settings: dict[str, Any] = {"dummy_input": rows[0], "providers": ["CPUExecutionProvider"]}
        if task.best:
            settings["config_file"] = get_path_for_per_channel_config()
        source = onnx.load(task.model)
        read = {name for node in source.graph.node if node.op_type in PRODUCTS for name in node.input[:2]}
        model = QuantizationSimModel(source, **settings)
        for name, quantizer in model.qc_quantize_op_dict.items():
            quantizer.enabled = quantizer.enabled and (name in read or not task.products)
        model.compute_encodings(rows)
        onnx.save(model.to_onnx_qdq(prequantize_constants=task.best), task.out)

    return run


def _modelopt(task: Task) -> Prepared:
    from modelopt.onnx.quantization import quantize

    def run() -> None:
        settings: dict[str, Any] = {"calibration_method": "max", "high_precision_dtype": "fp32"} if task.best else {}
        if task.products:
            settings["op_types_to_quantize"] = PRODUCTS
        quantize(
            str(task.model),
            quantize_mode="int8",
            calibration_data=task.rows,
            calibration_eps=["cpu"],
            output_path=str(task.out),
            **settings,
        )

    return run


def _move(made: Path, out: Path) -> None:
    """Gives a file the name that it should have, and its weights beside it the name that it knows them by."""
    for path in made.parent.iterdir():
        if path != made:
            path.rename(out.parent / path.name)
    made.rename(out)


def _edge_compress(task: Task) -> Prepared:
    """Ours: the graph is calibrated in torch, the float32 file is quantized; making both is no part of it.

    `best` is what a repair tries before it leaves layers in float: ranges of the least squared error, and biases
    corrected, for which the graph is lowered once more.
    """
    sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent.parent)]
    from quantization_cases import SOURCES

    from compress.calibrate import Method, calibrate
    from compress.data.base import Dataset
    from compress.data.memory import MemoryReader
    from compress.passes.base import Context, run_pass
    from compress.processors import adds_in_16_bits
    from compress.recipe import BUILTIN_SCHEMES
    from compress.runtimes.onnxruntime import OnnxRuntime
    from compress.target import Target

    name = json.loads((task.model.parent / "case.json").read_text())["name"]
    model = SOURCES[name].load(1, 1).model
    kind, cpu = task.setting.split()
    engine, scheme = OnnxRuntime(), BUILTIN_SCHEMES["int8-dynamic" if kind == "dynamic" else "int8-static"]
    method = Method("mse" if kind == "best" else "min-max")
    lowered = engine.lower(model)
    target = Target.model_validate({"schema": 1, "runtime": "onnxruntime", "cpu": cpu})
    rows = len(next(iter(task.rows.values())))
    ids = np.array([str(row) for row in range(rows)])
    data = Dataset(name, ids, MemoryReader(task.rows), {}, {}, {"calibration": np.arange(rows)})

    def run() -> None:
        made, file = model, lowered
        if kind == "best":
            options = {"bits": 7 if adds_in_16_bits(cpu) else 8, "method": method.name, "rows": rows}
            made = run_pass("correct_bias", model, data, Context(options=options)).model
            file = engine.lower(made)
        # The others calibrate row by row.
        ranges = calibrate(made, data.batches("calibration", 8), method) if kind != "dynamic" else None
        task.out.write_bytes(engine.quantize(file, scheme, ranges, target).data)

    return run


TOOLS: dict[str, Callable[[Task], Prepared]] = {
    "edge-compress": _edge_compress,
    "onnxruntime": _onnxruntime,
    "nncf": _nncf,
    "onnx-neural-compressor": _neural_compressor,
    "olive": _olive,
    "aimet-onnx": _aimet,
    "modelopt": _modelopt,
}


def main() -> int:
    """Does the job; prints its figures."""
    tool, setting, folder, out = sys.argv[1], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4])
    with np.load(folder / "calibration.npz") as file:
        rows = {name: file[name] for name in file.files}
    case = json.loads((folder / "case.json").read_text())
    run = TOOLS[tool](Task(setting, folder / "float.onnx", out, rows, case["transformer"], case["reduce"]))
    Path("/proc/self/clear_refs").write_text("5")  # the peak of resident memory starts anew
    before = _kilobytes("VmRSS")
    start = time.perf_counter()
    run()
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "peak_bytes": 1024 * max(0, _kilobytes("VmHWM") - before)}))
    return 0


def _kilobytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1])


if __name__ == "__main__":
    sys.exit(main())
