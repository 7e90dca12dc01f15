from __future__ import annotations

import math
import tempfile
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from inside import holds
from onnx import TensorProto, helper
from tiny_models import answers, built, engine, exported, sqnr_db, target
from torch import nn
from torch.nn import functional as F

from compress.calibrate import calibrate
from compress.recipe import BUILTIN_SCHEMES
from compress.runtimes.base import Lowered
from compress.runtimes.onnxruntime.edit import drop_unread
from compress.runtimes.onnxruntime.fuse import OPERATOR, OPSET, fuse
from compress.target import Target
from compress.zoo.transformer import Block, padding_mask

STATIC, DYNAMIC, FLOAT16 = (BUILTIN_SCHEMES[name] for name in ("int8-static", "int8-dynamic", "float16"))
TOKENS, WIDTH, HEADS = 6, 16, 2


class Encoder(nn.Module):
    """Two blocks over tokens; rows end in padding."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([Block(WIDTH, HEADS, 32, 0.1, pre_norm=pre) for pre in (True, False)])
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, tokens, real):
        mask = padding_mask(real)
        for block in self.blocks:
            tokens = block(tokens, mask)
        return {"scores": self.head(tokens[:, 0])}


class Written(nn.Module):
    """Attention written out, one way or another."""

    def __init__(self, way):
        super().__init__()
        self.way = way
        self.q, self.k, self.v, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, tokens, real):
        q, k, v = (layer(tokens).unflatten(-1, (HEADS, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        keep = real[:, None, None, :] > 0
        if self.way == "boolean":
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=keep)
        elif self.way == "causal":
            triangle = torch.ones(TOKENS, TOKENS).tril().bool()
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=triangle)
        elif self.way == "filled":
            logits = (q @ k.transpose(-1, -2) / math.sqrt(WIDTH // HEADS)).masked_fill(~keep, -math.inf)
            mixed = logits.softmax(-1) @ v
        elif self.way == "scaled late":
            logits = q @ k.transpose(-1, -2) * 0.5 + (1 - real[:, None, None, :]) * -1e4
            mixed = logits.softmax(-1) @ v
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, scale=0.7)
        return {"scores": self.out(mixed.transpose(1, 2).flatten(2)).mean(1)}


def rows(count, seed=0):
    random = np.random.default_rng(seed)
    lengths = random.integers(1, TOKENS + 1, count)
    return {
        "tokens": random.standard_normal((count, TOKENS, WIDTH)).astype(np.float32),
        "real": (np.arange(TOKENS) < lengths[:, None]).astype(np.float32),
    }


def lowered(factory):
    model = exported(built(factory), rows(4))
    return model, engine("onnxruntime").lower(model)


def graph_of(file):
    return onnx.load_from_string(file.data).graph


def operators(file):
    return [node.op_type for node in graph_of(file).node]


def opset(file):
    (found,) = onnx.load_from_string(file.data).opset_import
    assert found.domain == ""
    return found.version


@pytest.fixture(scope="module")
def encoder():
    model, file = lowered(Encoder)
    return model, file, calibrate(model, [rows(64, seed=1)])


@pytest.mark.parametrize("count", [1, 3, 7])
def test_every_attention_is_one_operator_with_the_same_answers(encoder, count):
    model, file, _ = encoder
    fused = fuse(file)
    assert operators(fused).count(OPERATOR) == 2
    assert not {"Softmax", "Transpose"} & set(operators(fused))
    fed = rows(count, seed=2)
    wanted = model.run(fed)["scores"]
    assert np.abs(answers("onnxruntime", fused.data, fed)["scores"] - wanted).max() <= 1e-4 * np.abs(wanted).max()


@pytest.mark.parametrize("way", ["boolean", "causal", "filled", "scaled late", "plain"])
def test_attention_is_found_however_it_is_written(way):
    model, file = lowered(lambda: Written(way))
    fused = fuse(file)
    assert operators(fused).count(OPERATOR) == 1, fused.notes
    onnx.checker.check_model(onnx.load_from_string(fused.data), full_check=True)
    fed = rows(9, seed=3)
    wanted = model.run(fed)["scores"]
    assert np.abs(answers("onnxruntime", fused.data, fed)["scores"] - wanted).max() <= 1e-5


def test_padding_changes_no_answer(encoder):
    fused = fuse(encoder[1])
    fed = rows(5, seed=4)
    other = dict(fed)
    other["tokens"] = np.where(fed["real"][..., None] > 0, fed["tokens"], 9).astype(np.float32)
    assert not np.array_equal(fed["tokens"], other["tokens"])
    first, second = (answers("onnxruntime", fused.data, each)["scores"] for each in (fed, other))
    np.testing.assert_allclose(first, second, atol=1e-6)


def test_one_mask_serves_every_attention(encoder):
    assert operators(fuse(encoder[1])).count("Expand") == 1


@pytest.mark.parametrize("scheme", [STATIC, DYNAMIC, FLOAT16], ids=lambda scheme: scheme.name)
def test_the_layer_table_stays_true(encoder, scheme):
    model, file, ranges = encoder
    chosen = scheme.model_copy(update={"exclude": ("blocks.0.attention.k", "blocks.1.down")})
    made = engine("onnxruntime").quantize(file, chosen, ranges, target("onnxruntime"))
    assert operators(made).count(OPERATOR) == 2
    outcomes = {item.layer: item for item in made.outcomes}
    assert {name for name, item in outcomes.items() if item.reason.startswith("excluded")} == set(chosen.exclude)
    kinds = {"int8": np.int8, "float16": np.float16, "float32": np.float32}
    for placed in made.placed:
        assert holds("onnxruntime", made.data, model, placed.layer, kinds[outcomes[placed.layer.name].precision])
    fed = rows(40, seed=5)
    assert sqnr_db(model.run(fed)["scores"], answers("onnxruntime", made.data, fed)["scores"]) > 20


def test_fusing_changes_no_rounding(encoder):
    """The same layers read the same integers: both files answer alike far below the error of eight bits."""
    _, file, ranges = encoder
    settings = {"schema": 1, "runtime": "onnxruntime"}
    plain, fused = (
        engine("onnxruntime").quantize(file, STATIC, ranges, Target.model_validate({**settings, "fusion": on}))
        for on in (False, True)
    )
    fed = rows(40, seed=6)
    first, second = (answers("onnxruntime", each.data, fed)["scores"] for each in (plain, fused))
    assert sqnr_db(first, second) > 45


def test_a_target_without_fusion_gets_standard_operators_only(encoder):
    _, file, ranges = encoder
    plain = Target.model_validate({"schema": 1, "runtime": "onnxruntime", "fusion": False})
    made = engine("onnxruntime").quantize(file, STATIC, ranges, plain)
    assert opset(made) == 20
    assert OPERATOR not in operators(made)
    assert not any("attention" in note for note in made.notes)


def test_the_notes_say_what_was_fused_and_which_engines_open_the_file(encoder):
    _, file, ranges = encoder
    made = engine("onnxruntime").quantize(file, DYNAMIC, ranges, target("onnxruntime"))
    said = [note for note in made.notes if OPERATOR in note]
    assert len(said) == 1
    assert "2 of 2" in said[0]
    assert f"opset {opset(made)}" in said[0]
    assert opset(made) == OPSET
    assert "fusion = false" in said[0]


class Looking(nn.Module):
    """Gives the weights of its attention, too; a second attention is plain."""

    def __init__(self):
        super().__init__()
        self.first, self.second = Written("plain"), Written("plain")

    def forward(self, tokens, real):
        weights = (tokens @ tokens.transpose(-1, -2)).softmax(-1)
        return {"scores": self.second(weights @ tokens, real)["scores"], "weights": weights}


def test_what_cannot_be_fused_stays_and_the_note_says_why():
    model, file = lowered(Looking)
    fused = fuse(file)
    assert operators(fused).count(OPERATOR) == 1
    assert operators(fused).count("Softmax") == 1
    assert "1 kept as it was: its weights do more than mix the values" in " ".join(fused.notes)
    fed = rows(3, seed=7)
    for name, wanted in model.run(fed).items():
        np.testing.assert_allclose(answers("onnxruntime", fused.data, fed)[name], wanted, atol=1e-5)


def test_a_file_without_attention_is_left_alone(workshop):
    file = workshop.lowered("onnxruntime", "conv")
    assert fuse(file) is file


def test_an_attention_of_free_length_is_fused_where_its_mask_needs_no_repeating():
    """Queries and keys of a length that only the rows tell: a mask over both goes in as it is, one of keys cannot."""

    def graph(mask):
        names = {"q": "queries", "k": "keys", "v": "keys"}
        nodes = [
            helper.make_node("Transpose", [name], [f"{name}4"], perm=[0, 2, 1, 3], name=f"{name}4") for name in names
        ]
        nodes += [
            helper.make_node("Transpose", ["k4"], ["kt"], perm=[0, 1, 3, 2], name="kt"),
            helper.make_node("MatMul", ["q4", "kt"], ["scores"], name="scores"),
            helper.make_node("Add", ["mask", "scores"], ["logits"], name="logits"),
            helper.make_node("Softmax", ["logits"], ["weights"], axis=3, name="weights"),
            helper.make_node("MatMul", ["weights", "v4"], ["mixed"], name="mixed"),
            helper.make_node("Transpose", ["mixed"], ["back"], perm=[0, 2, 1, 3], name="back"),
            helper.make_node("Reshape", ["back", "shape"], ["out"], name="out"),
        ]
        given = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", length, 2, 4])
            for name, length in names.items()
        ]
        given.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, mask))
        shape = helper.make_tensor("shape", TensorProto.INT64, [3], [0, 0, 8])
        made = [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["batch", "queries", 8])]
        return helper.make_model(
            helper.make_graph(nodes, "main", given, made, [shape]),
            opset_imports=[helper.make_opsetid("", 20)],
            ir_version=10,
        ).SerializeToString()

    def file(data):
        return Lowered(data, ".onnx", ("q", "k", "v", "mask"), ("out",), ())

    random = np.random.default_rng(0)
    sizes = {"q": 3, "k": 5, "v": 5}
    fed = {name: random.standard_normal((2, size, 2, 4)).astype(np.float32) for name, size in sizes.items()}
    whole = {**fed, "mask": random.standard_normal((3, 5)).astype(np.float32)}
    fused = fuse(file(graph(["queries", "keys"])))
    assert operators(fused).count(OPERATOR) == 1
    np.testing.assert_allclose(
        answers("onnxruntime", fused.data, whole)["out"],
        answers("onnxruntime", graph(["queries", "keys"]), whole)["out"],
        atol=1e-5,
    )
    kept = file(graph([1, "keys"]))
    assert fuse(kept) is kept


def test_sums_before_a_normalisation_are_left_to_the_plain_kernel(encoder):
    """When a file is opened, ONNX Runtime makes a slow operator of `Add` and `LayerNormalization`; not of `Sum`."""
    import onnxruntime

    model, file, ranges = encoder
    made = engine("onnxruntime").quantize(file, DYNAMIC, ranges, target("onnxruntime"))
    normed = {node.input[0] for node in graph_of(made).node if node.op_type == "LayerNormalization"}
    kinds = {node.op_type for node in graph_of(made).node if node.output[0] in normed}
    assert "Add" not in kinds
    assert "Sum" in kinds
    fed = rows(3, seed=8)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = f"{folder}/optimized.onnx"
        onnxruntime.InferenceSession(made.data, options, providers=["CPUExecutionProvider"])
        run = [node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node]
    assert not any("SkipLayer" in kind for kind in run)
    assert run.count("LayerNormalization") == len(normed)
    assert answers("onnxruntime", made.data, fed)["scores"].shape == model.run(fed)["scores"].shape


def test_an_older_file_is_brought_to_the_opset_of_attention():
    _, file = lowered(lambda: Written("plain"))
    old = onnx.version_converter.convert_version(onnx.load_from_string(file.data), 18)
    fused = fuse(replace(file, data=old.SerializeToString()))
    assert operators(fused).count(OPERATOR) == 1
    assert opset(fused) == OPSET
    fed = rows(3, seed=9)
    first, second = (answers("onnxruntime", each.data, fed)["scores"] for each in (file, fused))
    np.testing.assert_allclose(first, second, atol=1e-6)


def test_what_a_graph_inside_a_node_reads_is_kept():
    inner = helper.make_graph(
        [helper.make_node("Identity", ["held"], ["inside"])],
        "then",
        [],
        [helper.make_tensor_value_info("inside", TensorProto.FLOAT, [1])],
    )
    graph = helper.make_graph(
        [
            helper.make_node("Neg", ["x"], ["held"], name="held"),
            helper.make_node("Abs", ["x"], ["lost"], name="lost"),
            helper.make_node("If", ["flag"], ["y"], then_branch=inner, else_branch=inner, name="if"),
        ],
        "main",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [1]),
            helper.make_tensor_value_info("flag", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
        [helper.make_tensor("spare", TensorProto.FLOAT, [1], [1.0])],
    )
    drop_unread(graph)
    assert [node.name for node in graph.node] == ["held", "if"]
    assert not graph.initializer
