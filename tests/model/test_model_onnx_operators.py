import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx_kit import BOOL, FLOAT, INT64, close, proto, reference, run_nodes, save, values

from compress.model.onnx_import import load_onnx
from compress.model.onnx_import.table import INTERNAL, OPERATORS

OPSETS = (11, 13, 17, 20, 22)
# Both compute in single precision, in an order of their own.
TIGHT = 1e-5
ROWS = 3
LIST = np.int64


class Case:
    """One operator, or a few: which nodes, what is fed, since which opset.

    `nodes(opset)` gives the nodes; the last one gives the value `y`.
    """

    def __init__(self, name, nodes, feeds, constants=None, since=11, until=22, outputs=("y",), export=True):
        self.name, self.feeds, self.outputs = name, feeds, outputs
        self.nodes = nodes if callable(nodes) else lambda opset: nodes
        self.constants = constants if callable(constants) else lambda opset: constants or {}
        self.opsets = [opset for opset in OPSETS if since <= opset <= until]
        self.export = export

    def model(self, opset):
        return proto(self.nodes(opset), self.feeds, self.outputs, self.constants(opset), opset)


def node(kind, inputs="x", outputs="y", **attributes):
    return helper.make_node(kind, inputs.split(" ") if inputs else [], outputs.split(" "), **attributes)


def simple(kind, x=None, since=11, name=None, **attributes):
    feeds = {"x": values(ROWS, 4, 5) if x is None else x}
    return Case(name or kind, [node(kind, **attributes)], feeds, since=since)


def two(kind, x, other, since=11, name=None, constant=False, **attributes):
    feeds, constants = ({"x": x}, {"b": other}) if constant else ({"x": x, "b": other}, {})
    return Case(name or kind, [node(kind, "x b", **attributes)], feeds, constants, since)


def with_ints(kind, x, lists, since=11, name=None, **attributes):
    """An operator whose further inputs are lists of integers."""
    constants = {f"c{index}": np.array(item, LIST) for index, item in enumerate(lists) if item is not None}
    inputs = " ".join(["x", *(f"c{index}" if item is not None else "" for index, item in enumerate(lists))])
    return Case(name or kind, [node(kind, inputs, **attributes)], {"x": x}, constants, since)


X = values(ROWS, 4, 5)
POSITIVE = values(ROWS, 4, 5, low=0.1, high=3.0)
UNIT = values(ROWS, 4, 5, low=-0.9, high=0.9)
IMAGE = values(ROWS, 4, 9, 8)
INTS = np.random.default_rng(1).integers(-7, 8, (ROWS, 4, 5)).astype(np.int64)
BITS = INTS > 0
ODD = np.array([[[-np.inf, np.inf, np.nan, 0, 1]]] * ROWS, np.float32)
TIES = np.array([[[-2.5, -1.5, -0.5, 0.5, 1.5, 2.5]]] * ROWS, np.float32)

ELEMENTWISE = [
    *(simple(kind, X) for kind in ("Abs", "Neg", "Exp", "Erf", "Tanh", "Sigmoid", "Relu", "Floor", "Ceil", "Sign")),
    *(simple(kind, X) for kind in ("Sin", "Cos", "Atan", "Sinh", "Cosh", "Asinh", "Softplus", "Softsign", "Identity")),
    *(simple(kind, POSITIVE) for kind in ("Sqrt", "Reciprocal", "Log")),
    *(simple(kind, UNIT) for kind in ("Tan", "Asin", "Acos", "Atanh")),
    simple("Acosh", POSITIVE + 1),
    simple("Round", TIES),
    simple("IsNaN", ODD),
    simple("IsInf", ODD),
    simple("IsInf", ODD, name="IsInf-positive", detect_negative=0),
    simple("IsInf", ODD, name="IsInf-negative", detect_positive=0),
    simple("IsInf", ODD, name="IsInf-neither", detect_positive=0, detect_negative=0),
    simple("Not", BITS),
    simple("LeakyRelu", alpha=0.2),
    simple("ThresholdedRelu", alpha=0.5),
    simple("HardSigmoid"),
    simple("HardSigmoid", name="HardSigmoid-mobilenet", alpha=1 / 6, beta=0.5),
    simple("HardSwish", values(ROWS, 30, low=-5, high=5), since=14),
    simple("Elu", alpha=0.7),
    simple("Celu", since=12, alpha=0.7),
    simple("Selu"),
    simple("Selu", name="Selu-own", alpha=1.5, gamma=0.9),
    simple("Gelu", since=20),
    simple("Gelu", since=20, name="Gelu-tanh", approximate="tanh"),
    simple("Mish", since=18),
    two("PRelu", IMAGE, values(4, 1, 1), name="PRelu-channels", constant=True),
    two("PRelu", IMAGE, values(1, seed=3), name="PRelu-one", constant=True),
    two("PRelu", X, values(5, seed=3), name="PRelu-last", constant=True),
    *(two(kind, X, values(5, seed=2)[None].repeat(ROWS, 0)[:, None]) for kind in ("Add", "Sub", "Mul", "Div")),
    *(
        two(kind, X, values(4, 1, seed=2), name=f"{kind}-constant", constant=True)
        for kind in ("Add", "Sub", "Mul", "Div")
    ),
    *(
        Case(f"{kind}-{side}", [node(kind, inputs)], {"x": POSITIVE}, {"b": np.float32(1.7)})
        for kind in ("Add", "Sub", "Mul", "Div", "Pow")
        for side, inputs in (("right", "x b"), ("left", "b x"))
    ),
    two("Div", INTS, np.where(INTS[:, :1] == 0, 3, INTS[:, :1]), name="Div-integers"),
    two("Div", INTS, np.array(-3), name="Div-integer-constant", constant=True),
    two("Mod", INTS, np.array(3), constant=True),
    two("Mod", X, np.array(0.7, np.float32), name="Mod-float", constant=True, fmod=1),
    two("Pow", POSITIVE, values(5, low=-2, high=2), constant=True, name="Pow-vector"),
    two("Pow", X, np.array(2, np.int64), constant=True, since=13, name="Pow-integer"),
    two("Min", X, values(4, 5, seed=4), constant=True),
    two("Max", X, np.array(0.3, np.float32), constant=True),
    Case("Sum", [node("Sum", "x b c")], {"x": X, "b": X + 1, "c": POSITIVE}),
    Case("Mean", [node("Mean", "x b c")], {"x": X, "b": X + 1, "c": POSITIVE}),
    *(two(kind, INTS, INTS[:, ::-1], since=11) for kind in ("Equal", "Less", "Greater")),
    *(two(kind, X, np.array(0.1, np.float32), since=12, constant=True) for kind in ("LessOrEqual", "GreaterOrEqual")),
    *(two(kind, BITS, ~BITS[:, ::-1]) for kind in ("And", "Or", "Xor")),
    Case("Where", [node("Where", "m x b")], {"m": BITS, "x": X, "b": POSITIVE}),
    Case("Where-constant", [node("Where", "m x b")], {"m": BITS, "x": X}, {"b": np.float32(-np.inf)}),
    Case("Clip", [node("Clip", "x low high")], {"x": X * 5}, {"low": np.float32(0), "high": np.float32(6)}),
    Case("Clip-low", [node("Clip", "x low")], {"x": X}, {"low": np.float32(-0.5)}),
    Case("Clip-high", [node("Clip", "x  high")], {"x": X}, {"high": np.float32(0.5)}),
    Case("Clip-nothing", [node("Clip")], {"x": X}),
    Case("CumSum", [node("CumSum", "x axis")], {"x": X}, {"axis": np.array(1, LIST)}),
    Case("CumSum-both", [node("CumSum", "x axis", exclusive=1, reverse=1)], {"x": X}, {"axis": np.array(-1, LIST)}),
    *(
        simple("Cast", x, name=f"Cast-{x.dtype}-{kind}", to=kind)
        for x, kind in (
            (X, INT64),
            (X, BOOL),
            (INTS, FLOAT),
            (X, TensorProto.DOUBLE),
            (BITS, FLOAT),
            (X, TensorProto.INT32),
        )
    ),
    Case("CastLike", [node("CastLike", "x b")], {"x": X, "b": INTS}, since=15),
]

SHAPES = [
    Case("Reshape", [node("Reshape", "x s")], {"x": X}, {"s": np.array([0, -1], LIST)}),
    Case("Reshape-zero", [node("Reshape", "x s")], {"x": X}, {"s": np.array([-1, 5, 2, 2], LIST)}),
    Case(
        "Reshape-by-shape",
        [
            node("Shape", "x", "shape"),
            node("Gather", "shape zero", "rows", axis=0),
            helper.make_node("Unsqueeze", ["rows"], ["rows1"], axes=[0]),
            node("Concat", "rows1 rest", "target", axis=0),
            node("Reshape", "x target"),
        ],
        {"x": X},
        {"zero": np.array(0, LIST), "rest": np.array([10, -1], LIST)},
        until=11,
    ),
    Case(
        "Reshape-by-arithmetic",
        [
            node("Shape", "x", "shape"),
            node("Slice", "shape zero1 one1", "rows"),
            node("Slice", "shape one1 three1", "rest"),
            node("ReduceProd", "rest", "product", keepdims=1),
            node("Div", "product two", "half"),
            node("Mul", "rows two", "double"),
            node("Cast", "double", "wide", to=FLOAT),
            node("Floor", "wide", "floored"),
            node("Cast", "floored", "narrow", to=INT64),
            node("Concat", "narrow half", "target", axis=0),
            node("Reshape", "x target", "halves"),
            node("Reshape", "halves back"),
        ],
        {"x": X},
        {
            "back": np.array([-1, 20]),
            "zero1": np.array([0]),
            "one1": np.array([1]),
            "three1": np.array([3]),
            "two": np.array(2),
        },
    ),
    Case(
        "Expand-by-shape",
        [
            node("Shape", "x", "shape"),
            node("Equal", "minus wanted", "same"),
            node("ConstantOfShape", "three", "ones", value=helper.make_tensor("v", INT64, [1], [1])),
            node("Where", "same ones wanted", "sizes"),
            node("Mul", "sizes shape", "target"),
            node("Expand", "c target"),
        ],
        {"x": X},
        {
            "minus": np.array([-1] * 3),
            "wanted": np.array([-1, 1, -1]),
            "three": np.array([3]),
            "c": values(1, 1, 5),
        },
    ),
    Case("Flatten", [node("Flatten")], {"x": IMAGE}),
    Case("Flatten-2", [node("Flatten", axis=-2)], {"x": IMAGE}, export=False),
    Case("Transpose", [node("Transpose", perm=[0, 2, 1])], {"x": X}),
    Case(
        "Squeeze",
        lambda opset: [node("Squeeze", axes=[2]) if opset < 13 else node("Squeeze", "x axes")],
        {"x": values(ROWS, 4, 1)},
        lambda opset: {} if opset < 13 else {"axes": np.array([2])},
    ),
    # A batch of one row would be squeezed out too.
    Case("Squeeze-all", [node("Squeeze")], {"x": values(ROWS, 1, 4, 1)}, export=False),
    Case(
        "Unsqueeze",
        lambda opset: [node("Unsqueeze", axes=[1, -1]) if opset < 13 else node("Unsqueeze", "x axes")],
        {"x": X},
        lambda opset: {} if opset < 13 else {"axes": np.array([1, -1])},
    ),
    Case("Concat", [node("Concat", "x b x", axis=-1)], {"x": X, "b": POSITIVE}),
    Case(
        "Split",
        lambda opset: [
            node("Split", "x", "a y", axis=2, split=[2, 3]) if opset < 13 else node("Split", "x s", "a y", axis=2)
        ],
        {"x": X},
        lambda opset: {} if opset < 13 else {"s": np.array([2, 3])},
        outputs=("a", "y"),
    ),
    Case(
        "Split-equal",
        lambda opset: [node("Split", "x", "a y", axis=1, **({"num_outputs": 2} if opset >= 18 else {}))],
        {"x": X},
        outputs=("a", "y"),
    ),
    Case("Split-uneven", [node("Split", "x", "a y", axis=2, num_outputs=2)], {"x": X}, since=18, outputs=("a", "y")),
    Case("Expand", [node("Expand", "x s")], {"x": values(ROWS, 1, 5)}, {"s": np.array([1, 4, 1])}),
    Case("Expand-rank", [node("Expand", "x s")], {"x": values(ROWS, 1)}, {"s": np.array([1, 4])}),
    Case("Tile", [node("Tile", "x r")], {"x": X}, {"r": np.array([1, 2, 3])}),
    Case("Dropout", [node("Dropout")], {"x": X}),
    Case(
        "Dropout-mask",
        [node("Dropout", "x ratio", "y mask")],
        {"x": X},
        {"ratio": np.float32(0.3)},
        since=12,
        outputs=("y", "mask"),
    ),
    Case(
        "Shape-slice",
        [
            node("Shape", "x", "s", start=1),
            node("Cast", "s", "f", to=FLOAT),
            node("ReduceSum", "f", "t", keepdims=0),
            node("Add", "x t"),
        ],
        {"x": X},
        since=15,
    ),
    Case(
        "Size",
        [node("Size", "c", "n"), node("Cast", "n", "f", to=FLOAT), node("Add", "x f")],
        {"x": X},
        {"c": values(4, 5)},
    ),
    Case(
        "Root-of-size",
        [
            node("Shape", "x", "s"),
            node("Gather", "s one", "n", axis=0),
            node("Cast", "n", "f", to=FLOAT),
            node("Sqrt", "f", "r"),
            node("Div", "x r"),
        ],
        {"x": X},
        {"one": np.array(1)},
    ),
    Case(
        "Range",
        [node("Range", "a b c", "r"), node("Add", "x r")],
        {"x": X},
        {"a": np.float32(0), "b": np.float32(10), "c": np.float32(2)},
    ),
    Case(
        "Range-long",
        [node("Range", "a b c", "r"), node("Add", "x r")],
        {"x": np.zeros((ROWS, 100), np.int64)},
        {"a": np.array(0), "b": np.array(300), "c": np.array(3)},
    ),
    Case(
        "ConstantOfShape",
        [node("ConstantOfShape", "s", "c", value=helper.make_tensor("v", FLOAT, [1], [0.5])), node("Mul", "x c")],
        {"x": X},
        {"s": np.array([4, 5])},
    ),
    Case(
        "ConstantOfShape-batch",
        [node("Shape", "x", "s"), node("ConstantOfShape", "s", "c"), node("Concat", "x c", axis=1)],
        {"x": X},
    ),
    *(
        Case(
            f"Constant-{form}",
            [helper.make_node("Constant", [], ["c"], **{form: value}), node("Mul", "x c")],
            {"x": X},
            since=13,
        )
        for form, value in (("value_float", 1.5), ("value_floats", [1.0, 2.0, 3.0, 4.0, 5.0]))
    ),
    Case(
        "Constant-value_ints",
        [helper.make_node("Constant", [], ["c"], value_ints=[0, 20]), node("Reshape", "x c")],
        {"x": X},
        since=13,
    ),
    Case(
        "Constant-value_int",
        [helper.make_node("Constant", [], ["c"], value_int=3), node("Add", "x c")],
        {"x": INTS},
        since=13,
    ),
]

INDEXING = [
    with_ints("Slice", X, [[0, 1, -3], [2**62, 3, 2**62]], name="Slice-all-axes"),
    with_ints("Slice", X, [[1], [4], [2]], name="Slice-axis"),
    with_ints("Slice", X, [[-1], [-(2**62)], [2], [-2]], name="Slice-back"),
    with_ints("Slice", X, [[0], [9], [-1], [2]], name="Slice-step"),
    with_ints("Slice", X, [[4], [5], [-1]], name="Slice-one"),
    *(
        Case(f"Gather-{name}", [node("Gather", "x i", axis=axis)], {"x": X}, {"i": np.array(places)})
        for name, axis, places in (("scalar", 1, -1), ("list", 2, [0, -1, 2]), ("matrix", 1, [[0, 1], [3, -1]]))
    ),
    Case("Gather-table", [node("Gather", "t i")], {"i": np.abs(INTS)}, {"t": values(8, 6)}),
    Case(
        "Gather-table-list",
        [node("Gather", "t c", "g"), node("Add", "x g")],
        {"x": values(ROWS, 2, 6)},
        {"t": values(8, 6), "c": np.array([1, -2])},
    ),
    Case("Gather-integers", [node("Gather", "t i")], {"i": np.abs(INTS)}, {"t": np.arange(16).reshape(8, 2)}),
    Case("GatherElements", [node("GatherElements", "x i", axis=2)], {"x": X, "i": np.abs(INTS) % 5}),
    Case("GatherND", [node("GatherND", "x i", batch_dims=1)], {"x": X, "i": np.abs(INTS[:, :3, :2]) % 4}, since=12),
    Case("ScatterND", [node("ScatterND", "x i u")], {"x": X}, {"i": np.array([[0, 1], [0, 3]]), "u": values(2, 5)}),
    Case(
        "ScatterElements",
        [node("ScatterElements", "x i u", axis=2)],
        {"x": X, "i": np.array([[[0, 2]] * 4] * ROWS), "u": values(ROWS, 4, 2)},
    ),
    Case(
        "ScatterElements-add",
        [node("ScatterElements", "x i u", axis=2, reduction="add")],
        {"x": X, "i": np.array([[[2, 2]] * 4] * ROWS), "u": values(ROWS, 4, 2)},
        since=16,
    ),
    *(
        Case(
            f"Pad-{name}",
            [node("Pad", "x p v" if mode == "constant" else "x p", mode=mode)],
            {"x": x},
            {"p": np.array(pads), "v": np.float32(1.5)} if mode == "constant" else {"p": np.array(pads)},
            since=since,
        )
        for name, mode, x, pads, since in (
            ("constant", "constant", IMAGE, [0, 0, 1, 2, 0, 0, 3, 0], 11),
            ("channels", "constant", IMAGE, [0, 2, 0, 0, 0, 1, 0, 0], 11),
            ("cut", "constant", IMAGE, [0, 0, -1, 0, 0, 0, -2, 1], 11),
            ("reflect", "reflect", IMAGE, [0, 0, 1, 2, 0, 0, 3, 1], 11),
            ("reflect-channels", "reflect", IMAGE, [0, 2, 0, 0, 0, 1, 0, 0], 11),
            ("edge", "edge", IMAGE, [0, 0, 1, 2, 0, 0, 3, 1], 11),
            ("wrap", "wrap", IMAGE, [0, 0, 1, 2, 0, 0, 3, 1], 19),
        )
    ),
    Case("Pad-axes", [node("Pad", "x p  a")], {"x": IMAGE}, {"p": np.array([1, 2]), "a": np.array([-1])}, since=18),
    Case("Trilu", [node("Trilu", "x")], {"x": X}, since=14),
    Case("Trilu-lower", [node("Trilu", "x k", upper=0)], {"x": X}, {"k": np.array(1)}, since=14),
    Case(
        "OneHot",
        [node("OneHot", "i d v", axis=1)],
        {"i": INTS},
        {"d": np.array(8), "v": np.array([0.5, 2.0], np.float32)},
    ),
    simple("DepthToSpace", values(ROWS, 8, 3, 2), blocksize=2),
    simple("DepthToSpace", values(ROWS, 8, 3, 2), name="DepthToSpace-CRD", blocksize=2, mode="CRD"),
    simple("SpaceToDepth", values(ROWS, 2, 6, 4), blocksize=2),
]


def reduction(kind, x=POSITIVE, axes=(1,), keep=1, since_input=18, name=None):
    def nodes(opset):
        return [node(kind, "x a", keepdims=keep) if opset >= since_input else node(kind, axes=axes, keepdims=keep)]

    return Case(name or kind, nodes, {"x": x}, lambda opset: {"a": np.array(axes)} if opset >= since_input else {})


REDUCTIONS = [
    *(
        reduction(f"Reduce{kind}")
        for kind in ("Mean", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSum", "LogSumExp")
    ),
    reduction("ReduceSum", since_input=13),
    reduction("ReduceMean", axes=(-1, 1), keep=0, name="ReduceMean-two"),
    reduction("ReduceProd", axes=(-1, 1), keep=0, name="ReduceProd-two"),
    reduction("ReduceMax", x=INTS, axes=(2,), keep=0, name="ReduceMax-integers"),
    Case("ReduceSum-none", [node("ReduceSum", "x", noop_with_empty_axes=1)], {"x": X}, since=13),
    *(
        simple(kind, INTS, name=f"{kind}-{keep}", axis=-1, keepdims=keep)
        for kind in ("ArgMax", "ArgMin")
        for keep in (0, 1)
    ),
    simple("ArgMax", INTS // 4, name="ArgMax-last", since=12, axis=1, select_last_index=1),
    Case("TopK", [node("TopK", "x k", "v y", axis=-1)], {"x": X}, {"k": np.array([3])}, outputs=("v", "y")),
    Case(
        "TopK-smallest",
        [node("TopK", "x k", "v y", axis=1, largest=0)],
        {"x": X},
        {"k": np.array([2])},
        outputs=("v", "y"),
    ),
    *(simple(kind, X, name=f"{kind}-{axis}", axis=axis) for kind in ("Softmax", "LogSoftmax") for axis in (1, 2)),
    simple("Softmax", X, name="Softmax-default"),
]


def conv(name, x, weight, bias=True, kind="Conv", since=11, **attributes):
    constants = {
        "w": weight,
        **(
            {"b": values(weight.shape[0] if kind == "Conv" else weight.shape[1] * attributes.get("group", 1))}
            if bias
            else {}
        ),
    }
    return Case(f"{kind}-{name}", [node(kind, "x w b" if bias else "x w", **attributes)], {"x": x}, constants, since)


def affine(kind, x, size, since, name=None, **attributes):
    return Case(
        name or kind,
        [node(kind, "x s b", **attributes)],
        {"x": x},
        {"s": values(*size), "b": values(*size, seed=5)},
        since,
    )


LAYERS = [
    conv("1d", values(ROWS, 4, 9), values(6, 4, 3), pads=[1, 1], strides=[2]),
    conv("2d", IMAGE, values(6, 4, 3, 3)),
    conv("3d", values(ROWS, 2, 5, 6, 7), values(3, 2, 2, 3, 2), pads=[0, 1, 1, 0, 1, 1]),
    conv("groups", IMAGE, values(8, 2, 3, 3), group=2, pads=[1, 1, 1, 1]),
    conv("depthwise", IMAGE, values(4, 1, 3, 3), group=4, pads=[1, 1, 1, 1], strides=[2, 2], bias=False),
    conv("asymmetric", IMAGE, values(6, 4, 3, 3), pads=[0, 1, 2, 0]),
    conv("dilated", IMAGE, values(6, 4, 3, 3), dilations=[2, 2], pads=[2, 2, 2, 2]),
    *(
        conv(f"{mode}-{stride}", IMAGE, values(6, 4, 3, 4), auto_pad=mode, strides=[stride, stride])
        for mode in ("SAME_UPPER", "SAME_LOWER", "VALID")
        for stride in (1, 2)
    ),
    conv("1d", values(ROWS, 4, 9), values(4, 3, 3), kind="ConvTranspose", strides=[2]),
    conv(
        "2d", IMAGE, values(4, 3, 3, 3), kind="ConvTranspose", strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1]
    ),
    conv("groups", IMAGE, values(4, 3, 2, 2), kind="ConvTranspose", strides=[2, 2], group=2),
    conv("asymmetric", IMAGE, values(4, 3, 3, 3), kind="ConvTranspose", strides=[2, 2], pads=[0, 1, 1, 0]),
    conv("same", IMAGE, values(4, 3, 3, 3), kind="ConvTranspose", strides=[2, 2], auto_pad="SAME_UPPER"),
    conv("shape", IMAGE, values(4, 3, 3, 3), kind="ConvTranspose", strides=[2, 2], output_shape=[18, 16]),
    Case("MatMul", [node("MatMul", "x w")], {"x": X}, {"w": values(5, 7)}),
    Case("MatMul-left", [node("MatMul", "w x")], {"x": X}, {"w": values(7, 4)}),
    Case("MatMul-both", [node("MatMul", "x z")], {"x": X, "z": values(ROWS, 5, 3)}),
    Case("MatMul-stack", [node("MatMul", "x w")], {"x": X[:, None]}, {"w": values(2, 5, 7)}),
    *(
        Case(f"Gemm-{name}", [node("Gemm", inputs, **attributes)], {"x": values(ROWS, 5)}, constants)
        for name, inputs, attributes, constants in (
            ("torch", "x w b", {"transB": 1}, {"w": values(7, 5), "b": values(7)}),
            ("plain", "x w", {}, {"w": values(5, 7)}),
            ("scaled", "x w b", {"alpha": 0.5, "beta": 2.0}, {"w": values(5, 7), "b": values(1, 7)}),
            ("scalar", "x w b", {}, {"w": values(5, 7), "b": np.float32(0.3)}),
            ("one", "x w b", {}, {"w": values(5, 1), "b": values(1)}),
        )
    ),
    Case(
        "Gemm-two",
        [node("Gemm", "x z", transB=1, alpha=2.0)],
        {"x": values(ROWS, 5), "z": values(ROWS, 5)},
        export=False,
    ),
    Case("Einsum", [node("Einsum", "x z", equation="bij, bjk -> bik")], {"x": X, "z": values(ROWS, 5, 3)}, since=12),
    Case("Einsum-weight", [node("Einsum", "x w", equation="bij,jk->bik")], {"x": X}, {"w": values(5, 6)}, since=12),
    Case(
        "BatchNormalization",
        [node("BatchNormalization", "x s b m v", epsilon=1e-3)],
        {"x": IMAGE},
        {"s": values(4), "b": values(4, seed=1), "m": values(4, seed=2), "v": values(4, low=0.1)},
    ),
    affine("LayerNormalization", X, (5,), 17, axis=-1, epsilon=1e-3),
    affine("LayerNormalization", X, (4, 5), 17, name="LayerNormalization-two", axis=1),
    Case("LayerNormalization-scale", [node("LayerNormalization", "x s", axis=1)], {"x": X}, {"s": values(5)}, since=17),
    affine("InstanceNormalization", IMAGE, (4,), 11),
    Case(
        "GroupNormalization",
        [node("GroupNormalization", "x s b", num_groups=2)],
        {"x": IMAGE},
        lambda opset: {"s": values(2 if opset < 21 else 4), "b": values(2 if opset < 21 else 4, seed=1)},
        since=18,
    ),
    simple("LRN", IMAGE, size=3, alpha=0.01),
]


def pool(name, kind, x=IMAGE, since=11, **attributes):
    return simple(kind, x, since, f"{kind}-{name}", **attributes)


POOLS = [
    *(
        pool(name, kind, **{"kernel_shape": [3, 3], **attributes})
        for kind in ("MaxPool", "AveragePool")
        for name, attributes in (
            ("plain", {}),
            ("strided", {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
            ("asymmetric", {"strides": [2, 2], "pads": [0, 1, 1, 0]}),
            ("ceil", {"strides": [2, 2], "ceil_mode": 1}),
            ("ceil-pad", {"strides": [2, 2], "ceil_mode": 1, "pads": [1, 1, 1, 1]}),
            ("same", {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
            ("same-lower", {"strides": [1, 2], "auto_pad": "SAME_LOWER"}),
        )
    ),
    pool("1d", "MaxPool", values(ROWS, 4, 9), kernel_shape=[2]),
    pool("3d", "MaxPool", values(ROWS, 2, 5, 6, 7), kernel_shape=[2, 2, 2], strides=[2, 2, 2]),
    pool("dilated", "MaxPool", kernel_shape=[3, 3], dilations=[2, 2]),
    pool("1d", "AveragePool", values(ROWS, 4, 9), kernel_shape=[3], strides=[2], pads=[1, 0]),
    pool("3d", "AveragePool", values(ROWS, 2, 5, 6, 7), kernel_shape=[2, 2, 2]),
    pool("counted", "AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1),
    pool("counted-asymmetric", "AveragePool", kernel_shape=[3, 3], pads=[0, 1, 1, 0], count_include_pad=1),
    pool("dilated", "AveragePool", since=19, kernel_shape=[3, 3], dilations=[2, 2]),
    pool("image", "GlobalAveragePool"),
    pool("image", "GlobalMaxPool"),
    pool("line", "GlobalAveragePool", values(ROWS, 4, 9)),
]


def resize(name, x=IMAGE, scales=None, sizes=None, since=11, until=22, **attributes):
    constants = {"s": np.array(scales, np.float32)} if scales else {"s": np.array([x.shape[0], *sizes])}
    nodes = [node("Resize", "x  s" if scales else "x   s", **attributes)]
    if sizes:
        # The batch is asked for, not written down.
        nodes = [
            node("Shape", "x", "shape"),
            node("Slice", "shape zero one", "rows"),
            node("Concat", "rows rest", "s", axis=0),
            *nodes,
        ]
        constants = {"rest": np.array(sizes), "zero": np.array([0]), "one": np.array([1])}

    # In opset 11 an absent input was an empty tensor.
    def inputs(opset):
        if opset >= 13:
            return nodes
        given = ["x", "roi", "s"] if scales else ["x", "roi", "none", "s"]
        return [*nodes[:-1], helper.make_node("Resize", given, ["y"], **attributes)]

    def held(opset):
        empty = (
            {"roi": np.zeros(0, np.float32)}
            if scales
            else {"roi": np.zeros(0, np.float32), "none": np.zeros(0, np.float32)}
        )
        return constants if opset >= 13 else {**constants, **empty}

    return Case(f"Resize-{name}", inputs, {"x": x}, held, since, until)


RESIZES = [
    resize(
        "torch-nearest",
        scales=[1, 1, 2, 2],
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    ),
    resize("nearest-default", scales=[1, 1, 2, 3]),
    resize("nearest-down", scales=[1, 1, 0.5, 0.5]),
    resize("nearest-sizes", sizes=[4, 13, 5]),
    *(
        resize(
            f"nearest-{coordinates}-{rounding}",
            sizes=[4, 13, 5],
            coordinate_transformation_mode=coordinates,
            nearest_mode=rounding,
        )
        for coordinates in ("half_pixel", "asymmetric", "align_corners")
        for rounding in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
    ),
    *(
        resize(f"linear-{coordinates}", sizes=[4, 13, 5], mode="linear", coordinate_transformation_mode=coordinates)
        for coordinates in ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")
    ),
    resize(
        "linear-symmetric",
        sizes=[4, 13, 5],
        mode="linear",
        coordinate_transformation_mode="half_pixel_symmetric",
        since=19,
    ),
    resize("linear-scales", scales=[1, 1, 1.7, 0.6], mode="linear"),
    resize("linear-one", sizes=[4, 1, 16], mode="linear", coordinate_transformation_mode="pytorch_half_pixel"),
    resize("line", values(ROWS, 4, 9), scales=[1, 1, 2], mode="linear"),
    Case(
        "Resize-axes",
        [node("Resize", "x  s", axes=[2, 3], mode="linear")],
        {"x": IMAGE},
        {"s": np.array([2, 2], np.float32)},
        since=18,
    ),
]


def recurrent(
    kind, direction="forward", bias=True, states=0, name=None, outputs=("y", "h"), since=11, layout=0, **attributes
):
    gates, size, directions = (4 if kind == "LSTM" else 3), 4, (2 if direction == "bidirectional" else 1)
    constants = {"w": values(directions, gates * size, 5), "r": values(directions, gates * size, size, seed=1)}
    if bias:
        constants["b"] = values(directions, 2 * gates * size, seed=2)
    feeds = {"x": X}
    inputs = ["x" if layout else "t", "w", "r", "b" if bias else ""]
    nodes = [] if layout else [node("Transpose", "x", "t", perm=[1, 0, 2])]
    for at in range(states):
        feeds[f"s{at}"] = values(ROWS, directions, size, seed=7 + at)
        nodes += [] if layout else [node("Transpose", f"s{at}", f"t{at}", perm=[1, 0, 2])]
        inputs += ([""] if not at else []) + [f"s{at}" if layout else f"t{at}"]
    if layout:
        given = ["y", "h"]
        after = []
    else:
        given = ["all", "last"]
        after = [node("Transpose", "all", "y", perm=[2, 0, 1, 3]), node("Transpose", "last", "h", perm=[1, 0, 2])]
    extra = {"layout": 1} if layout else {}
    nodes.append(helper.make_node(kind, inputs, given, hidden_size=size, direction=direction, **extra, **attributes))
    return Case(name or f"{kind}-{direction}", [*nodes, *after], feeds, constants, since, outputs=outputs)


RECURRENT = [
    *(recurrent("LSTM", direction) for direction in ("forward", "reverse", "bidirectional")),
    recurrent("LSTM", bias=False, name="LSTM-no-bias"),
    recurrent("LSTM", "bidirectional", states=2, name="LSTM-states"),
    *(recurrent("GRU", direction, linear_before_reset=1) for direction in ("forward", "reverse", "bidirectional")),
    *(
        recurrent("GRU", direction, name=f"GRU-before-{direction}")
        for direction in ("forward", "reverse", "bidirectional")
    ),
    recurrent("GRU", states=1, name="GRU-state", linear_before_reset=1),
]

CASES = [*ELEMENTWISE, *SHAPES, *INDEXING, *REDUCTIONS, *LAYERS, *POOLS, *RESIZES, *RECURRENT]
# Where the batch, or a kernel's form in a trace, can make a difference.
EXPORTED = [
    case
    for case in [*SHAPES, *INDEXING, *REDUCTIONS, *LAYERS, *POOLS[:7], *RESIZES[:4], *RESIZES[-4:], *RECURRENT]
    if case.export and case.opsets[-1] == OPSETS[-1]
]


def together(cases, opset):
    """One model of many cases, and what it is fed. Opening a file for each would take minutes."""
    nodes, feeds, constants, outputs = [], {}, {}, []
    for case in cases:

        def named(name, case=case):
            return f"{case.name}/{name}" if name else ""

        for original in case.nodes(opset):
            copy = onnx.NodeProto.FromString(original.SerializeToString())
            copy.name = named(f"{copy.op_type}_{len(nodes)}")
            copy.input[:], copy.output[:] = map(named, original.input), map(named, original.output)
            nodes.append(copy)
        feeds |= {named(name): array for name, array in case.feeds.items()}
        constants |= {named(name): array for name, array in case.constants(opset).items()}
        outputs += [named(name) for name in case.outputs]
    return proto(nodes, feeds, outputs, constants, opset), feeds


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("operators")


@pytest.fixture(scope="module")
def answers(folder):
    """By opset: what ONNX Runtime and the imported nodes answer to all its cases."""
    found = {}
    for opset in OPSETS:
        model, feeds = together([case for case in CASES if opset in case.opsets], opset)
        found[opset] = reference(model, feeds), run_nodes(save(model, folder, f"{opset}.onnx"), feeds)
    return found


@pytest.fixture(scope="module")
def exported_answers(folder):
    """Likewise in the last opset, exported with a dynamic batch, on batches of three rows and of one."""
    model, feeds = together(EXPORTED, OPSETS[-1])
    imported = load_onnx(save(model, folder, "exported.onnx"))
    found = []
    for rows in (ROWS, 1):
        part = {name: array[:rows] for name, array in feeds.items()}
        found.append((reference(model, part), imported.run(part)))
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_operator_gives_what_onnxruntime_gives_in_every_opset(case, answers):
    assert case.opsets
    for opset in case.opsets:
        want, got = answers[opset]
        for name in case.outputs:
            close(want[f"{case.name}/{name}"], got[f"{case.name}/{name}"], TIGHT)


@pytest.mark.parametrize("case", EXPORTED, ids=lambda case: case.name)
def test_operator_exports_with_a_dynamic_batch(case, exported_answers):
    for want, got in exported_answers:
        for name in case.outputs:
            close(want[f"{case.name}/{name}"], got[f"{case.name}/{name}"], TIGHT)


def test_cases_have_names_of_their_own():
    assert len({case.name for case in CASES}) == len(CASES)


def test_every_operator_that_can_be_imported_is_tried():
    tried = {item.op_type for case in CASES for opset in case.opsets for item in case.nodes(opset)}
    assert set(OPERATORS) - set(INTERNAL) == tried - {"Constant"}
