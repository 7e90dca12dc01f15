from __future__ import annotations

import json
import logging
import os
import shutil
import socket

import numpy as np
import pytest
import torch

from compress.data import Dataset
from compress.data.memory import MemoryReader
from compress.data.text import TextReader
from compress.data.text_tokenizer import load_tokenizer
from compress.errors import ModelError
from compress.model.belongings import carry, check_vocabulary
from compress.model.core import TensorInfo
from compress.model.factory import export_module
from compress.model.huggingface import load_huggingface
from compress.model.layers import layers
from compress.model.source import load_model
from compress.recipe import ModelConfig
from compress.runtimes.base import RUNTIMES

pytest.importorskip("transformers")

LENGTH = 12
POSITIONS = 16
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "lost", "my", "card", "pay", "now", "please"]
CLASSES = ["loss", "payment", "other"]
IDS = TensorInfo("input_ids", (LENGTH,), "int64")
MASK = TensorInfo("attention_mask", (LENGTH,), "int64")
TYPES = TensorInfo("token_type_ids", (LENGTH,), "int64")


@pytest.fixture(scope="module")
def transformers():
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    import transformers

    logging.disable(level)
    return transformers


def _config(transformers, kind, **changes):
    shared = {"vocab_size": len(WORDS), "num_labels": 3, "max_position_embeddings": POSITIONS, **changes}
    if kind == "distilbert":
        return transformers.DistilBertConfig(dim=16, n_layers=2, n_heads=2, hidden_dim=32, **shared)
    made = {"bert": transformers.BertConfig, "roberta": transformers.RobertaConfig}[kind]
    return made(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, **shared)


@pytest.fixture(scope="module")
def classifiers(transformers, tmp_path_factory):
    """Kind -> (folder, what transformers makes of it)."""
    made = {}
    for kind in ("bert", "distilbert", "roberta"):
        folder = tmp_path_factory.mktemp(kind)
        torch.manual_seed(0)
        labels = {"id2label": dict(enumerate(CLASSES))} if kind == "bert" else {}
        config = _config(transformers, kind, initializer_range=0.5, **labels)
        module = transformers.AutoModelForSequenceClassification.from_config(config).eval()
        module.save_pretrained(folder)
        (folder / "vocab.txt").write_text("\n".join(WORDS))
        made[kind] = (folder, module)
    return made


@pytest.fixture(scope="module")
def models(classifiers):
    return {kind: load_huggingface(classifiers[kind][0], (IDS, MASK)) for kind in ("bert", "distilbert")}


@pytest.fixture
def folder(classifiers, tmp_path):
    """A copy of the BERT to spoil."""
    return shutil.copytree(classifiers["bert"][0], tmp_path / "model")


def batch(rows=7):
    draw = np.random.default_rng(0)
    ids = draw.integers(2, len(WORDS), (rows, LENGTH))
    mask = (np.arange(LENGTH) < draw.integers(3, LENGTH + 1, (rows, 1))).astype(np.int64)
    return {"input_ids": ids * mask, "attention_mask": mask}


def edit(folder, **changes):
    path = folder / "config.json"
    settings = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in settings.items() if value is not None}))


def texts(folder, length=LENGTH, inputs=None, words=("lost my card", "pay now", "please pay", "lost")):
    reader = TextReader(words, load_tokenizer(folder, length), inputs or {name: name for name in batch()})
    every = np.arange(len(words))
    ids = np.array([f"row {row}" for row in range(len(words))])
    return Dataset("rows.csv", ids, reader, {}, {}, dict.fromkeys(("calibration", "test"), every))


@pytest.mark.parametrize("kind", ["bert", "distilbert"])
def test_the_graph_answers_like_transformers(models, classifiers, kind):
    model, module = models[kind], classifiers[kind][1]
    assert [item.name for item in model.signature.inputs] == ["input_ids", "attention_mask"]
    assert model.signature.outputs == (TensorInfo("scores", (3,), "float32"),)
    for rows in (1, 7):
        data = batch(rows)
        with torch.no_grad():
            expected = module(**{name: torch.from_numpy(values) for name, values in data.items()}).logits
        np.testing.assert_allclose(model.run(data)["scores"], expected, rtol=0, atol=1e-5)


def test_padding_changes_no_answer(models):
    data = batch()
    other = {**data, "input_ids": np.where(data["attention_mask"] == 1, data["input_ids"], 5)}
    np.testing.assert_array_equal(models["bert"].run(data)["scores"], models["bert"].run(other)["scores"])


@pytest.mark.parametrize("kind", ["bert", "distilbert"])
def test_layers_keep_the_names_of_transformers(models, classifiers, kind):
    modules = dict(classifiers[kind][1].named_modules())
    found = layers(models[kind])
    assert [layer.name for layer in found if layer.name not in modules] == []
    linears = {name for name, module in modules.items() if isinstance(module, torch.nn.Linear)}
    assert {layer.name for layer in found if layer.operator == "linear"} == linears
    assert {f"{layer.name}.weight" for layer in found} == {layer.weight for layer in found}


@pytest.mark.parametrize(
    ("runtime", "kind"), [("onnxruntime", "bert"), ("onnxruntime", "distilbert"), ("litert", "bert")]
)
def test_it_lowers_with_every_product_in_its_place(models, kind, runtime):
    model, data = models[kind], batch()
    pytest.importorskip({"onnxruntime": "onnxscript", "litert": "litert_torch"}[runtime])
    lowered = RUNTIMES.load(runtime)().lower(model)
    # A look-up by position, or of the only token type, is a constant.
    assert {layer.operator for layer, _ in lowered.missing} <= {"embedding"}
    if runtime == "onnxruntime":
        import onnxruntime

        session = onnxruntime.InferenceSession(lowered.data, providers=["CPUExecutionProvider"])
        scores = session.run(["scores"], data)[0]
    else:
        from ai_edge_litert.interpreter import Interpreter

        run = Interpreter(model_content=lowered.data).get_signature_runner()
        rows = [{name: values[row : row + 1].astype(np.int32) for name, values in data.items()} for row in range(7)]
        scores = np.concatenate([run(**row)["scores"].copy() for row in rows])
    np.testing.assert_allclose(scores, model.run(data)["scores"], rtol=0, atol=1e-4)


def test_token_types_are_fed_where_the_model_takes_them(classifiers):
    folder, module = classifiers["bert"]
    model = load_huggingface(folder, (TYPES, MASK, IDS), ("logits",), where="the model")
    assert [item.name for item in model.signature.inputs] == ["input_ids", "attention_mask", "token_type_ids"]
    assert model.signature.outputs[0].name == "logits"
    assert model.lineage == ("the model",)
    data = {**batch(), "token_type_ids": np.tile(np.arange(LENGTH) % 2, (7, 1))}
    with torch.no_grad():
        expected = module(**{name: torch.from_numpy(values) for name, values in data.items()}).logits
    np.testing.assert_allclose(model.run(data)["logits"], expected, rtol=0, atol=1e-5)
    with pytest.raises(ModelError, match="no input 'token_type_ids'"):
        load_huggingface(classifiers["distilbert"][0], (IDS, MASK, TYPES))


def test_tokenizer_and_classes_belong_to_the_model(models):
    bert = models["bert"]
    assert json.loads(bert.attachments["classes.json"]) == CLASSES
    assert json.loads(bert.attachments["tokenizer.json"])["padding"]["strategy"] == {"Fixed": LENGTH}
    # Names like LABEL_0 say nothing.
    assert set(models["distilbert"].attachments) == {"tokenizer.json"}
    later = bert.with_program(bert.program, "a pass")
    assert later.attachments == bert.attachments
    more = bert.with_attachments({"notes.txt": b"x"})
    assert set(more.attachments) == {"classes.json", "tokenizer.json", "notes.txt"}
    assert more.digest == bert.digest


def test_a_recipe_names_the_folder(folder):
    config = ModelConfig(source="model")
    model = load_model(config, (IDS, MASK), folder.parent)
    assert model.lineage == ("model",)
    with pytest.raises(ModelError, match=r"model.weights: a Hugging Face folder holds its own"):
        load_model(config.model_copy(update={"weights": "x.safetensors"}), (IDS, MASK), folder.parent)


def test_nothing_looks_at_the_network(classifiers, monkeypatch):
    def refuse(*arguments, **keywords):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    load_huggingface(classifiers["bert"][0], (IDS, MASK))
    assert "HF_HUB_OFFLINE" not in os.environ


def test_what_the_configuration_says_about_attention_and_precision_is_not_followed(folder):
    edit(folder, attn_implementation="someone/kernels", _attn_implementation="someone/kernels", dtype="float16")
    model = load_huggingface(folder, (IDS, MASK))
    assert model.signature.outputs[0].dtype == "float32"


def test_half_precision_and_stored_positions_are_read(folder, models):
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    weights = {name: value.half() for name, value in load_file(path).items()}
    weights["bert.embeddings.position_ids"] = torch.arange(POSITIONS)[None]
    save_file(weights, path)
    model = load_huggingface(folder, (IDS, MASK))
    assert {value.dtype for value in model.program.state_dict.values() if value.is_floating_point()} == {torch.float32}
    np.testing.assert_allclose(model.run(batch())["scores"], models["bert"].run(batch())["scores"], atol=0.05)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"auto_map": {"AutoModel": "mine.py"}}, "auto_map asks to run code"),
        ({"text_config": {"auto_map": {"AutoModel": "mine.py"}}}, "auto_map asks to run code"),
        ({"trust_remote_code": True}, "trust_remote_code asks to run code"),
        ({"quantization_config": {"quant_method": "gptq"}}, "the weights are quantized already"),
        ({"architectures": ["BertModel"]}, "architectures says BertModel, not ForSequenceClassification"),
        ({"architectures": None}, "architectures says nothing"),
        ({"architectures": ["RobertaForSequenceClassification"]}, "its model_type gives BertForSequenceClassification"),
        ({"model_type": None}, "does not say which model_type"),
        ({"model_type": "nonesuch"}, "transformers cannot build a 'nonesuch'"),
        ({"num_attention_heads": 3}, "transformers cannot build a 'bert'"),
        ({"hidden_size": -16}, "transformers cannot build a 'bert'"),
        ({"num_hidden_layers": 3}, "weights do not fit the model; missing: bert.encoder.layer.2"),
        ({"num_hidden_layers": 1}, "weights do not fit the model; unknown to the model: bert.encoder.layer.1"),
        ({"vocab_size": 11}, "other shape: bert.embeddings.word_embeddings.weight"),
    ],
)
def test_configurations_that_are_refused(folder, changes, message):
    edit(folder, **changes)
    with pytest.raises(ModelError, match=message):
        load_huggingface(folder, (IDS, MASK))


def test_folders_that_are_incomplete(folder):
    shutil.copy(folder / "model.safetensors", folder / "model-00001-of-00002.safetensors")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"there is no model.safetensors; it holds model-00001") as error:
        load_huggingface(folder, (IDS, MASK))
    assert "max_shard_size" in error.value.hint
    (folder / "model-00001-of-00002.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"it holds pytorch_model.bin") as error:
        load_huggingface(folder, (IDS, MASK))
    assert "save_pretrained(folder, safe_serialization=True)" in error.value.hint
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelError, match="cannot be read as JSON"):
        load_huggingface(folder, (IDS, MASK))
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match=r"there is no config.json"):
        load_huggingface(folder, (IDS, MASK))


def test_a_pickle_under_the_name_of_safetensors_is_not_opened(folder):
    (folder / "model.safetensors").write_bytes(b"\x80\x04cos\nsystem\n(S'touch pwned'\ntR.")
    with pytest.raises(ModelError, match="pickle"):
        load_huggingface(folder, (IDS, MASK))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ((TensorInfo("features", (4,), "float32"),), "no input 'features'"),
        ((IDS, TensorInfo("attention_mask", (LENGTH,), "float32")), r"'attention_mask' is float32 \[12\] a row"),
        ((IDS, TensorInfo("attention_mask", (9,), "int64")), "different lengths: input_ids 12, attention_mask 9"),
        ((MASK,), "nothing feeds the model's input 'input_ids'"),
        ((TensorInfo("input_ids", (POSITIONS + 1,), "int64"),), r"length = 17, but the model has 16 positions"),
    ],
)
def test_inputs_that_do_not_fit(classifiers, inputs, message):
    with pytest.raises(ModelError, match=message):
        load_huggingface(classifiers["bert"][0], inputs)


def test_positions_count_from_behind_the_padding(classifiers):
    with pytest.raises(ModelError, match="length = 15, but the model has 14 positions"):
        load_huggingface(classifiers["roberta"][0], (TensorInfo("input_ids", (15,), "int64"),))


def test_the_tokenizer_of_the_folder_fits(models, classifiers):
    dataset = texts(classifiers["bert"][0])
    check_vocabulary(dataset, models["bert"])
    carried = carry(models["bert"], dataset, CLASSES)
    assert carried.attachments == models["bert"].attachments
    assert carried.run(dataset.reader.read(np.arange(4)))["scores"].shape == (4, 3)


def test_a_tokenizer_of_another_model_is_refused(models, tmp_path):
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("\n".join([*WORDS, "one", "more"]))
    with pytest.raises(
        ModelError, match=r"ids up to 11, the model's table bert.embeddings.word_embeddings.weight has 10"
    ):
        check_vocabulary(texts(tmp_path), models["bert"])
    vocabulary.write_text("\n".join(WORDS[:-1]))
    with pytest.raises(ModelError, match="it has 9 tokens, the model's 10"):
        check_vocabulary(texts(tmp_path), models["bert"])
    vocabulary.write_text("\n".join([*WORDS[:4], "card", "my", "lost", *WORDS[7:]]))
    with pytest.raises(ModelError, match="its token 4 is 'card', the model's 'lost'"):
        check_vocabulary(texts(tmp_path), models["bert"])
    vocabulary.write_text("\n".join(WORDS))
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    with pytest.raises(ModelError, match="prepare texts differently"):
        check_vocabulary(texts(tmp_path), models["bert"])


class Bag(torch.nn.Module):
    """A model from source code: it brings no tokenizer."""

    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(len(WORDS), 3)

    def forward(self, tokens):
        return {"scores": self.table(tokens.to(torch.int64)).mean(dim=1)}


def test_a_model_from_source_gets_the_tokenizer_of_the_data(classifiers, tmp_path):
    dataset = texts(classifiers["bert"][0], inputs={"ids": "input_ids"}).renamed({"ids": "tokens"})
    model = export_module(Bag().eval(), (TensorInfo("tokens", (LENGTH,), "int64"),), (), "bag.py:build")
    carried = carry(model, dataset, CLASSES)
    assert carried.attachments["tokenizer.json"] == load_tokenizer(classifiers["bert"][0], LENGTH).definition
    assert json.loads(carried.attachments["classes.json"]) == CLASSES
    (tmp_path / "vocab.txt").write_text("\n".join([*WORDS, "more"]))
    other = texts(tmp_path, inputs={"ids": "input_ids"}).renamed({"ids": "tokens"})
    with pytest.raises(
        ModelError, match=r"bag.py:build: the tokenizer .* ids up to 10, the model's table table.weight"
    ):
        check_vocabulary(other, model)


def test_classes_in_another_order_are_refused(models, classifiers):
    dataset = texts(classifiers["bert"][0])
    with pytest.raises(ModelError, match=r"calls class 0 'loss', data.categories 'payment'"):
        carry(models["bert"], dataset, ["payment", "loss", "other"])
    with pytest.raises(ModelError, match=r"names 3 classes, data.categories 2"):
        carry(models["bert"], dataset, CLASSES[:2])


def test_data_without_texts_passes(models):
    data = batch()
    every = np.arange(7)
    ids = np.array([f"row {row}" for row in range(7)])
    dataset = Dataset("rows.npz", ids, MemoryReader(data), {}, {}, {"test": every})
    check_vocabulary(dataset, models["bert"])
    assert carry(models["bert"], dataset) is models["bert"]
