import os

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx_kit import FLOAT, INT64, close, parity, proto, reference, save, values

from compress.errors import CompressError, ModelError, UnsafeFileError
from compress.model.layers import layers
from compress.model.onnx_import import UnsupportedOperatorsError, check_onnx, load_onnx
from compress.model.onnx_import.build import MAX_NODES

X = {"x": values(3, 5)}
WEIGHTS = {"w": values(5, 4), "b": values(4)}


def node(kind, inputs, output="y", **attributes):
    return helper.make_node(kind, inputs.split(" ") if inputs else [], output.split(" "), **attributes)


DENSE = (node("MatMul", "x w", "m"), node("Add", "m b", "a"), node("Relu", "a"))


def dense(**changes):
    return proto(DENSE, X, ["y"], WEIGHTS, **changes)


def refused(model, tmp_path, match, error=ModelError):
    path = save(model, tmp_path) if not isinstance(model, bytes) else tmp_path / "model.onnx"
    if isinstance(model, bytes):
        path.write_bytes(model)
    with pytest.raises(error, match=match) as caught:
        load_onnx(path)
    assert caught.value.hint
    assert caught.value.exit_code == 2
    return caught.value


# Damaged files.


@pytest.mark.parametrize("data", [b"", b"garbage", bytes(64), b"PK\x03\x04" + bytes(40), b"\x08\x07"])
def test_what_is_no_onnx_is_refused(data, tmp_path):
    refused(data, tmp_path, "ONNX")


def test_truncated_file_is_refused(tmp_path):
    data = dense().SerializeToString()
    for length in (len(data) // 2, len(data) - 1):
        refused(data[:length], tmp_path, "model.onnx")


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(ModelError, match="cannot be read"):
        load_onnx(tmp_path / "none.onnx")


@pytest.mark.parametrize("opset", [1, 10, 23, 40])
def test_opset_that_is_not_known_is_refused(opset, tmp_path):
    error = refused(dense(opset=opset), tmp_path, f"opset {opset}")
    assert "11 to 22" in error.message


def test_model_without_standard_operators_is_refused(tmp_path):
    model = dense()
    model.opset_import[0].domain = "some.where"
    refused(model, tmp_path, "opset 0")


def test_constant_that_claims_more_than_it_holds_is_refused(tmp_path):
    model = dense()
    model.graph.initializer[0].dims[0] = 2**40
    refused(model, tmp_path, "needs .* bytes; the file holds 80")


def test_typed_constant_that_claims_more_than_it_holds_is_refused(tmp_path):
    model = dense()
    model.graph.initializer[0].CopyFrom(helper.make_tensor("w", FLOAT, [5, 4], range(20)))
    model.graph.initializer[0].dims[1] = 5
    refused(model, tmp_path, "needs 25 values; the file holds 20")


@pytest.mark.parametrize("dims", [[-5, -4], [1] * 65])
def test_constant_of_an_impossible_shape_is_refused(dims, tmp_path):
    model = dense()
    model.graph.initializer[0].dims[:] = dims
    refused(model, tmp_path, "impossible shape")


def test_constant_of_text_is_refused(tmp_path):
    model = dense()
    model.graph.initializer[0].CopyFrom(helper.make_tensor("w", TensorProto.STRING, [1], [b"text"]))
    refused(model, tmp_path, "data type 8")


def test_constant_nodes_of_text_are_unsupported(tmp_path):
    nodes = [helper.make_node("Constant", [], ["t"], value_string="text"), node("Add", "x t")]
    with pytest.raises(UnsupportedOperatorsError, match="Constant"):
        load_onnx(save(proto(nodes, X, ["y"]), tmp_path))


# External data.


CONTENT = WEIGHTS["w"].tobytes()


def external(tmp_path, location="weights.bin", offset=None, length=None, content=CONTENT, place=None):
    model = dense()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        if value is not None:
            tensor.external_data.add(key=key, value=str(value))
    folder = tmp_path / "model"
    folder.mkdir()
    if content is not None:
        target = folder / (place or location)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return save(model, folder)


@pytest.mark.parametrize("location", ["weights.bin", "data/weights.bin"])
def test_external_data_inside_the_folder_is_read(location, tmp_path):
    path = external(tmp_path, location, content=bytes(8) + WEIGHTS["w"].tobytes(), offset=8, length=80)
    close(reference(dense(), X)["y"], load_onnx(path).run(X)["y"])


@pytest.mark.parametrize(
    "location", ["../weights.bin", "/etc/hostname", "a/../../weights.bin", "a\\b", "a\0b", "", "."]
)
def test_external_data_outside_the_folder_is_refused(location, tmp_path):
    (tmp_path / "weights.bin").write_bytes(WEIGHTS["w"].tobytes())
    with pytest.raises(UnsafeFileError, match="outside the model's folder"):
        load_onnx(external(tmp_path, location, content=None))


@pytest.mark.parametrize("linked", ["file", "folder"])
def test_external_data_through_a_link_is_refused(linked, tmp_path):
    secret = tmp_path / "elsewhere"
    secret.mkdir()
    (secret / "weights.bin").write_bytes(WEIGHTS["w"].tobytes())
    path = external(tmp_path, "weights.bin" if linked == "file" else "data/weights.bin", content=None)
    if linked == "file":
        os.symlink(secret / "weights.bin", path.parent / "weights.bin")
    else:
        os.symlink(secret, path.parent / "data")
    with pytest.raises(UnsafeFileError, match="through a link"):
        load_onnx(path)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"content": None}, "is missing"),
        ({"content": b"short"}, "needs 80 bytes"),
        ({"offset": 8}, "needs 80 bytes"),
        ({"offset": -8}, "needs 80 bytes"),
        ({"length": 40}, "needs 80 bytes"),
        ({"offset": "x"}, "no number"),
    ],
)
def test_external_data_that_does_not_fit_is_refused(settings, match, tmp_path):
    with pytest.raises(ModelError, match=match):
        load_onnx(external(tmp_path, **settings))


def test_check_reads_no_external_data(tmp_path):
    assert check_onnx(external(tmp_path, content=None)).operators == {"Add": 1, "MatMul": 1, "Relu": 1}


# Graphs.


def test_cyclic_graph_is_refused(tmp_path):
    nodes = [node("Add", "x b", "a"), node("Relu", "a", "b"), node("Identity", "b")]
    refused(proto(nodes, X, ["y"]), tmp_path, "cycle")


def test_value_given_twice_is_refused(tmp_path):
    refused(proto([node("Relu", "x"), node("Abs", "x")], X, ["y"]), tmp_path, "'y' is given twice")


def test_value_that_nothing_gives_is_refused(tmp_path):
    refused(proto([node("Add", "x z")], X, ["y"]), tmp_path, "reads 'z', which nothing gives")
    refused(proto([node("Relu", "x")], X, ["z"]), tmp_path, "nothing gives its output 'z'")


def test_two_constants_of_one_name_are_refused(tmp_path):
    model = dense()
    model.graph.initializer.add().CopyFrom(model.graph.initializer[0])
    refused(model, tmp_path, "two constants named 'w'")


def test_nodes_in_any_order_without_names_are_read(tmp_path):
    model = proto(DENSE[::-1], X, ["y"], WEIGHTS)
    assert not any(item.name for item in model.graph.node)
    close(reference(dense(), X)["y"], load_onnx(save(model, tmp_path)).run(X)["y"])


def test_nodes_of_one_name_are_told_apart(tmp_path):
    nodes = [
        node("Relu", "x", "a", name="same"),
        node("NonZero", "a", "z", name="same"),
        node("Hardmax", "z", name="same"),
    ]
    summary = check_onnx(save(proto(nodes, X, ["y"]), tmp_path))
    assert summary.unsupported == (("NonZero", "same~2"), ("Hardmax", "same~3"))


def test_old_files_list_constants_as_inputs_and_unused_ones(tmp_path):
    model = proto(DENSE, X, ["y"], {**WEIGHTS, "unused": values(3, 3)})
    for name, array in WEIGHTS.items():
        model.graph.input.add().CopyFrom(helper.make_tensor_value_info(name, FLOAT, array.shape))
    imported = load_onnx(save(model, tmp_path))
    assert [item.name for item in imported.signature.inputs] == ["x"]
    assert set(imported.program.state_dict) == {"w.weight", "w.bias"}
    assert parity(model, X, tmp_path, imported=imported) < 1e-6


def test_weights_in_constant_nodes_are_weights(tmp_path):
    nodes = [
        helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array))
        for name, array in WEIGHTS.items()
    ]
    model = proto([*nodes, *DENSE], X, ["y"])
    imported = load_onnx(save(model, tmp_path))
    assert [layer.operator for layer in layers(imported)] == ["linear"]
    assert set(imported.program.graph_signature.parameters) == {"w.weight", "w.bias"}
    assert parity(model, X, tmp_path, imported=imported) < 1e-6


def test_half_precision_weights_are_widened_once(tmp_path):
    halves = {name: array.astype(np.float16) for name, array in WEIGHTS.items()}
    nodes = [node("Cast", f"{name}", f"{name}32", to=FLOAT) for name in halves]
    model = proto([*nodes, node("MatMul", "x w32", "m"), node("Add", "m b32")], X, ["y"], halves)
    imported = load_onnx(save(model, tmp_path))
    assert {tensor.dtype for tensor in imported.program.state_dict.values()} == {torch.float32}
    assert len(layers(imported)) == 1
    assert parity(model, X, tmp_path, imported=imported) < 1e-6


# What cannot be imported.


def test_every_unsupported_operator_is_named(tmp_path):
    nodes = [
        node("NonZero", "x", "n", name="places"),
        node("Cast", "n", "f", to=FLOAT),
        helper.make_node("Special", ["f"], ["s"], name="own", domain="some.where"),
        node("Resize", "s r c", "y", name="grow", mode="cubic"),
    ]
    model = proto(nodes, X, ["y"], {"r": np.zeros(0, np.float32), "c": np.ones(2, np.float32)})
    model.opset_import.append(helper.make_opsetid("some.where", 1))
    path = save(model, tmp_path)
    wanted = (("NonZero", "places"), ("some.where.Special", "own"), ("Resize (mode 'cubic')", "grow"))
    assert check_onnx(path).unsupported == wanted
    with pytest.raises(UnsupportedOperatorsError, match="3 operators cannot be imported") as caught:
        load_onnx(path)
    assert caught.value.operators == wanted
    assert isinstance(caught.value, ModelError)
    assert "NonZero (node 'places')" in caught.value.message


def test_a_long_list_of_operators_is_cut_and_counted(tmp_path):
    nodes = [node("Hardmax", f"v{index}", f"v{index + 1}", name=f"n{index}") for index in range(15)]
    model = proto([node("Relu", "x", "v0"), *nodes], X, ["v15"])
    with pytest.raises(UnsupportedOperatorsError, match=r"15 operators.*and 5 more") as caught:
        load_onnx(save(model, tmp_path))
    assert "n9" in caught.value.message
    assert "n10" not in caught.value.message
    assert len(caught.value.operators) == 15


def test_unsupported_operator_that_no_wanted_output_needs_is_no_trouble(tmp_path):
    model = proto([*DENSE, node("NonZero", "a", "places")], X, ["y", "places"], WEIGHTS)
    path = save(model, tmp_path)
    assert check_onnx(path).unsupported == (("NonZero", "NonZero"),)
    close(reference(model, X)["y"], load_onnx(path, outputs=("y",)).run(X)["y"])


@pytest.mark.parametrize(
    ("nodes", "match"),
    [
        ([node("Dropout", "x r t")], "training form"),
        ([node("Cast", "x", "i", to=INT64), node("Reshape", "x i")], "computed from data"),
        ([node("Cast", "x", "s", to=TensorProto.STRING), node("Identity", "s")], "data type 8"),
        ([node("MaxPool", "im", "y places", kernel_shape=[2, 2])], "places of its maxima"),
    ],
)
def test_forms_that_cannot_be_imported_are_told_with_their_reason(nodes, match, tmp_path):
    constants = {"r": np.float32(0.5), "t": np.array(True), "im": values(1, 1, 4, 4)}
    outputs = list(nodes[-1].output)
    with pytest.raises(UnsupportedOperatorsError, match=match):
        load_onnx(save(proto([*nodes], X, outputs, constants), tmp_path))


def test_node_that_cannot_run_is_named(tmp_path):
    nodes = [node("MatMul", "x w", name="wrong")]
    error = refused(proto(nodes, X, ["y"], {"w": values(7, 2)}), tmp_path, "'wrong'")
    assert "cannot be computed" in error.message


def branches(condition, inputs=X):
    then = helper.make_graph([node("MatMul", "x w", "t")], "then", [], [helper.make_value_info("t", onnx.TypeProto())])
    other = helper.make_graph(
        [node("NonZero", "x", "n"), node("Cast", "n", "e", to=FLOAT)],
        "else", [], [helper.make_value_info("e", onnx.TypeProto())],
    )  # fmt: skip
    choice = helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other, name="choice")
    return proto([*condition, choice], inputs, ["y"], {"w": values(5, 2), "one": np.array(1), "five": np.array(5)})


@pytest.mark.parametrize(
    "condition",
    [
        [helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.array(True)))],
        [node("Shape", "x", "s"), node("Gather", "s one", "g"), node("Equal", "g five", "c")],
    ],
    ids=["constant", "shape"],
)
def test_branch_that_is_known_is_taken(condition, tmp_path):
    model = branches(condition)
    assert check_onnx(save(model, tmp_path)).unsupported == ()
    assert parity(model, X, tmp_path) < 1e-6


def test_branch_that_data_choose_is_refused(tmp_path):
    condition = [node("ReduceSum", "x", "t", keepdims=0), node("Cast", "t", "c", to=TensorProto.BOOL)]
    path = save(branches(condition), tmp_path)
    assert check_onnx(path).unsupported == (("If (its condition comes from data)", "choice"),)
    with pytest.raises(UnsupportedOperatorsError, match="condition comes from data"):
        load_onnx(path)


def test_branch_with_an_unsupported_operator_is_refused_when_it_is_taken(tmp_path):
    condition = [helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.array(False)))]
    with pytest.raises(UnsupportedOperatorsError, match="NonZero"):
        load_onnx(save(branches(condition), tmp_path))


def with_function(body, opset=17):
    model = proto(
        [helper.make_node("Own", ["x", "w"], ["y"], domain="own", name="call", slope=0.25)], X, ["y"], WEIGHTS
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("own", 1)]
    model.opset_import.append(imports[1])
    model.functions.append(helper.make_function("own", "Own", ["a", "b"], ["out"], body, imports, ["slope"]))
    return model


def test_functions_are_put_where_they_are_called(tmp_path):
    leaky = node("LeakyRelu", "m", "out")
    leaky.attribute.append(onnx.AttributeProto(name="alpha", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT))
    model = with_function([node("MatMul", "a b", "m"), leaky])
    path = save(model, tmp_path)
    assert check_onnx(path).operators == {"LeakyRelu": 1, "MatMul": 1}
    assert parity(model, X, tmp_path) < 1e-6


def test_function_that_calls_itself_is_refused(tmp_path):
    model = with_function([helper.make_node("Own", ["a", "b"], ["out"], domain="own")])
    refused(model, tmp_path, "levels deep")


def test_functions_that_multiply_are_refused(tmp_path):
    body = [helper.make_node("F0", ["a", "b"], ["out"], domain="own")]
    model = with_function(body)
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    for level in range(8):
        inner = [
            helper.make_node(
                f"F{level + 1}" if level < 7 else "Abs", ["a"], [f"o{at}"], domain="own" if level < 7 else ""
            )
            for at in range(9)
        ] + [node("Sum", " ".join(f"o{at}" for at in range(9)), "out")]
        model.functions.append(helper.make_function("own", f"F{level}", ["a", "b"], ["out"], inner, imports))
    refused(model, tmp_path, f"more than {MAX_NODES} operators")


# Quantized models.


def narrow(*shape):
    return np.random.default_rng(0).integers(-100, 100, shape).astype(np.int8)


SCALE = {"s": np.float32(0.02), "z": np.int8(0)}
QUANTIZED = {
    "qdq": (
        [
            node("QuantizeLinear", "x s z", "q"),
            node("DequantizeLinear", "q s z", "d"),
            node("DequantizeLinear", "w s z", "f"),
            node("MatMul", "d f"),
        ],
        "2 DequantizeLinear, 1 QuantizeLinear",
    ),
    "weight only": ([node("DequantizeLinear", "w s z", "f"), node("MatMul", "x f")], "1 DequantizeLinear"),
    "operator": (
        [
            node("QuantizeLinear", "x s z", "q"),
            node("QLinearMatMul", "q s z w s z s z", "m"),
            node("DequantizeLinear", "m s z"),
        ],
        "QLinearMatMul",
    ),
    "dynamic": (
        [
            node("DynamicQuantizeLinear", "x", "q qs qz"),
            node("MatMulInteger", "q w qz", "i"),
            node("Cast", "i", "f", to=FLOAT),
            node("Mul", "f qs"),
        ],
        "MatMulInteger",
    ),
    "cast": ([node("Cast", "w", "f", to=FLOAT), node("Mul", "f s", "g"), node("MatMul", "x g")], "1 Cast of 8-bit"),
    "cast table": (
        [
            node("Cast", "x", "i", to=INT64),
            node("Gather", "w i", "g"),
            node("Cast", "g", "f", to=FLOAT),
            node("Mul", "f s"),
        ],
        "1 Cast of 8-bit",
    ),
    "blocks": (
        [
            helper.make_node(
                "MatMulNBits", ["x", "w", "s"], ["y"], K=5, N=4, bits=4, block_size=16, domain="com.microsoft"
            )
        ],
        "MatMulNBits",
    ),
}


@pytest.mark.parametrize("kind", QUANTIZED)
def test_quantized_model_is_recognised_and_not_imported(kind, tmp_path):
    nodes, words = QUANTIZED[kind]
    path = save(proto(nodes, X, ["y"], {**SCALE, "w": narrow(5, 4)}), tmp_path)
    assert words in check_onnx(path).quantized
    with pytest.raises(ModelError, match="already quantized") as caught:
        load_onnx(path)
    assert "bench" in caught.value.hint


def test_float_model_is_not_called_quantized(tmp_path):
    nodes = [node("Gather", "t c", "g"), node("Cast", "g", "f", to=FLOAT), node("Add", "x f")]
    constants = {"t": np.arange(5, dtype=np.int32), "c": np.array([4, 3, 2, 1, 0])}
    path = save(proto(nodes, X, ["y"], constants), tmp_path)
    assert check_onnx(path).quantized == ""
    assert load_onnx(path).signature.outputs[0].shape == (5,)


# What goes in and out.


def open_model():
    model = proto(DENSE, X, ["y"], WEIGHTS)
    nodes = [
        node("Transpose", "x", "t", perm=[0, 2, 1]),
        node("MatMul", "x t", "p"),
        node("ReduceSum", "p two", keepdims=0),
    ]
    model = proto(nodes, {"x": values(2, 4, 5)}, ["y"], {"two": np.array([2])})
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "length"
    return model


def test_open_dimensions_need_sizes(tmp_path):
    path = save(open_model(), tmp_path)
    assert check_onnx(path).dynamic == (("x", "length"),)
    with pytest.raises(ModelError, match="open \\(x: length\\)"):
        load_onnx(path)
    for sizes in ({"x": (7, 5)}, {"any name": (7, 5)}):
        imported = load_onnx(path, sizes=sizes)
        assert imported.signature.inputs[0].shape == (7, 5)
        assert imported.signature.outputs[0].shape == (7,)
        assert parity(path, {"x": values(3, 7, 5)}, tmp_path, imported=imported) < 1e-5


@pytest.mark.parametrize("sizes", [(7, 4), (7,), (7, 5, 1), (0, 5)])
def test_sizes_that_do_not_fit_are_refused(sizes, tmp_path):
    with pytest.raises(ModelError, match="input 'x'"):
        load_onnx(save(open_model(), tmp_path), sizes={"x": sizes})


def test_input_without_a_shape_needs_one(tmp_path):
    model = dense()
    model.graph.input[0].type.tensor_type.ClearField("shape")
    path = save(model, tmp_path)
    with pytest.raises(ModelError, match="open"):
        load_onnx(path)
    assert load_onnx(path, sizes={"x": (5,)}).signature.outputs[0].shape == (4,)


def test_orphan_inputs_are_dropped_and_told(tmp_path):
    model = proto(DENSE, {"unread": INT_ROWS, **X}, ["y"], WEIGHTS)
    path = save(model, tmp_path)
    assert check_onnx(path).orphans == ("unread",)
    assert check_onnx(path).inputs == ("x",)
    imported = load_onnx(path)
    assert [item.name for item in imported.signature.inputs] == ["x"]
    assert any("unread" in step for step in imported.lineage)


INT_ROWS = np.arange(3)[:, None]


def test_outputs_are_chosen_renamed_or_refused(tmp_path):
    model = proto([*DENSE, node("Softmax", "a", "p", axis=-1)], X, ["y", "p"], WEIGHTS)
    path = save(model, tmp_path)
    assert [item.name for item in load_onnx(path).signature.outputs] == ["y", "p"]
    assert [item.name for item in load_onnx(path, ("p",)).signature.outputs] == ["p"]
    assert [item.name for item in load_onnx(path, ("score", "chance")).signature.outputs] == ["score", "chance"]
    turned = load_onnx(path, ("p", "y"))
    close(reference(model, X)["p"], turned.run(X)["p"])
    with pytest.raises(ModelError, match="no output 'q'") as caught:
        load_onnx(path, ("y", "q"))
    assert "y" in caught.value.hint


def test_several_inputs_of_several_types_keep_names_and_order(tmp_path):
    feeds = {"tokens:0": INT_ROWS, "is.new": INT_ROWS > 1, "amount": values(3, 1)}
    nodes = [
        node("Cast", "tokens:0", "a", to=FLOAT),
        node("Where", "is.new a amount"),
    ]
    model = proto(nodes, feeds, ["y"])
    imported = load_onnx(save(model, tmp_path))
    assert [(item.name, item.dtype) for item in imported.signature.inputs] == [
        ("tokens:0", "int64"), ("is.new", "bool"), ("amount", "float32"),
    ]  # fmt: skip
    assert parity(model, feeds, tmp_path, imported=imported) == 0


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda model: model.graph.input[0].type.tensor_type.shape.ClearField("dim"), "no batch dimension"),
        (
            lambda model: setattr(model.graph.input[0].type.tensor_type, "elem_type", TensorProto.STRING),
            "no tensor of numbers",
        ),
        (lambda model: model.graph.input[0].type.tensor_type.ClearField("elem_type"), "no tensor of numbers"),
        (lambda model: setattr(model.graph.input[0].type.tensor_type.shape.dim[1], "dim_value", 0), "impossible shape"),
        (
            lambda model: setattr(model.graph.input[0].type.tensor_type.shape.dim[1], "dim_value", 2**50),
            "impossible shape",
        ),
    ],
)
def test_inputs_that_cannot_be_fed_are_refused(change, match, tmp_path):
    model = dense()
    change(model)
    refused(model, tmp_path, match)


def test_outputs_that_no_input_reaches_are_refused(tmp_path):
    refused(proto([node("Relu", "w")], X, ["y"], WEIGHTS), tmp_path, "no output depends on an input")
    refused(proto([node("Relu", "x")], X, ["w"], WEIGHTS), tmp_path, "is a constant")


def test_output_that_is_no_row_for_each_row_is_refused(tmp_path):
    refused(proto([node("ReduceSum", "x", "y")], X, ["y"]), tmp_path, "one row for each row")


def test_an_error_of_the_file_is_an_error_of_the_project(tmp_path):
    for model in (dense(opset=9), proto([node("Relu", "x")], X, ["z"])):
        with pytest.raises(CompressError):
            check_onnx(save(model, tmp_path))
