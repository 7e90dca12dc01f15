"""tflite-runtime 2.14: LiteRT's files, but for what the older interpreter cannot run or would compute wrongly."""

from __future__ import annotations

import subprocess
from dataclasses import replace

import old_interpreter
import pytest
from tiny_models import answers, engine, sqnr_db, target

from compress.errors import LoweringError
from compress.recipe import BUILTIN_SCHEMES
from compress.runtimes.litert.flatbuffer import read, write
from compress.runtimes.tflite_runtime.kernels import INTERPRETER

RUNTIME = "tflite_runtime"
# Opens each file of a folder and says which it refuses.
OPEN_ALL = """
import sys, pathlib
from tflite_runtime.interpreter import Interpreter
for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    try:
        Interpreter(model_path=str(path))
    except ValueError:
        print(path.name)
"""


@pytest.mark.parametrize("name", ["float16", "int8-static", "int8-weights"])
def test_files_are_litert_s_where_it_runs_them(workshop, name):
    scheme = BUILTIN_SCHEMES[name]
    for model in ("mlp", "conv"):
        ours, theirs = (workshop.artifact(runtime, model, scheme) for runtime in (RUNTIME, "litert"))
        assert ours == theirs


def test_a_dynamic_product_has_one_scale_because_with_more_it_is_lost(workshop):
    scheme, rows = BUILTIN_SCHEMES["int8-dynamic"], workshop.tiny("mlp").rows(40, seed=1)
    wanted = workshop.tiny("mlp").model.run(rows)["score"]
    made = workshop.artifact(RUNTIME, "mlp", scheme)
    assert any("fully connected ones per tensor, as tflite-runtime 2.14 reads no more" in note for note in made.notes)
    assert sqnr_db(wanted, answers(RUNTIME, made.data, rows)["score"]) > 30
    # LiteRT's file opens there, runs, and answers with the bias: nothing but the numbers tells.
    theirs = workshop.artifact("litert", "mlp", scheme)
    assert not any("reads no more" in note for note in theirs.notes)
    assert sqnr_db(wanted, answers("litert", theirs.data, rows)["score"]) > 30
    assert sqnr_db(wanted, answers(RUNTIME, theirs.data, rows)["score"]) < 5


def test_a_dynamic_convolution_keeps_a_scale_a_channel(workshop):
    scheme = BUILTIN_SCHEMES["int8-dynamic"].model_copy(update={"name": "mine", "exclude": ("head",)})
    made = workshop.artifact(RUNTIME, "conv", scheme)
    assert made.data == workshop.artifact("litert", "conv", scheme).data
    rows = workshop.tiny("conv").rows(40, seed=1)
    wanted = workshop.tiny("conv").model.run(rows)["output"]
    assert sqnr_db(wanted, answers(RUNTIME, made.data, rows)["output"]) > 30


def test_an_operator_that_is_too_new_is_refused_with_its_version(workshop):
    lowered = workshop.lowered("litert", "mlp")
    flat = read(lowered.data)
    for entry in flat.operatorCodes:
        entry.version = 11 if entry.builtinCode == 9 else entry.version
    newer = replace(lowered, data=write(flat))
    with pytest.raises(LoweringError, match=r"tflite-runtime 2.14 cannot run .* FULLY_CONNECTED version 11 .*up to 10"):
        engine(RUNTIME).quantize(newer, BUILTIN_SCHEMES["float16"], None, target(RUNTIME))
    engine("litert").quantize(newer, BUILTIN_SCHEMES["float16"], None, target("litert"))


def test_an_operator_that_is_not_there_is_refused(workshop):
    flat = read(workshop.lowered("litert", "mlp").data)
    flat.operatorCodes[0].builtinCode = flat.operatorCodes[0].deprecatedBuiltinCode = 0
    flat.operatorCodes[0].builtinCode = 206
    with pytest.raises(LoweringError, match=r"STABLEHLO_COMPOSITE version \d+ \(it has none\)"):
        INTERPRETER.check(write(flat))


def test_the_interpreter_itself_knows_these_versions_and_no_newer_ones(tmp_path):
    """One file an operator and version, with that operator in its table and no graph."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    python = old_interpreter.python()
    codes = {name: code for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
    newest = dict(INTERPRETER.newest or {})
    for name, version in newest.items():
        for asked in (version, version + 1):
            model = schema.ModelT()
            entry = schema.OperatorCodeT()
            entry.builtinCode, entry.deprecatedBuiltinCode, entry.version = codes[name], min(codes[name], 127), asked
            graph = schema.SubGraphT()
            graph.tensors = graph.inputs = graph.outputs = graph.operators = []
            model.version, model.operatorCodes, model.subgraphs, model.buffers = 3, [entry], [graph], [schema.BufferT()]
            builder = flatbuffers.Builder(256)
            builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
            (tmp_path / f"{name}.{asked}").write_bytes(bytes(builder.Output()))
    command = [str(python), "-I", "-c", OPEN_ALL, str(tmp_path)]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.split()
    assert sorted(refused) == sorted(f"{name}.{version + 1}" for name, version in newest.items())
