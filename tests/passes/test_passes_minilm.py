"""The passes on MiniLM-L6 and the messages of Banking77: what they gain on real weights and real texts."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from compress.data.base import Dataset
from compress.data.text import TextReader
from compress.data.text_tokenizer import load_tokenizer
from compress.model.core import TensorInfo
from compress.model.cost import cost
from compress.model.factory import export_module
from compress.passes.base import Context, run_pass
from compress.runtimes.onnxruntime.export import export

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
LENGTH, TRAIN, ASKED = 48, 9000, 120


def assets(name: str) -> Path:
    folder = os.environ.get("EDGE_COMPRESS_ASSETS")
    found = Path(folder or ".") / name
    if not folder or not found.is_dir():
        pytest.skip(f"EDGE_COMPRESS_ASSETS names no folder that holds {name}")
    return found


class Sentence(nn.Module):
    """The mean over the real tokens, as the model was trained to give it."""

    def __init__(self, bert):
        super().__init__()
        self.bert = bert

    def forward(self, input_ids, attention_mask):
        hidden = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        real = attention_mask.unsqueeze(-1).to(hidden.dtype)
        return {"sentence": (hidden * real).sum(1) / real.sum(1)}


@pytest.fixture(scope="module")
def data():
    texts = []
    for name in ("train", "test"):
        with (assets("banking77") / f"{name}.csv").open(encoding="utf-8", newline="") as file:
            texts += [row["text"] for row in csv.DictReader(file)]
    tokenizer = load_tokenizer(assets("minilm"), LENGTH)
    rows = np.arange(len(texts))
    splits = {
        "train": rows[:TRAIN],
        "calibration": rows[TRAIN:9600],
        "validation": rows[9600:10003],
        "test": rows[10003:],
    }
    reader = TextReader(texts, tokenizer, {"input_ids": "input_ids", "attention_mask": "attention_mask"})
    return Dataset("banking77", rows.astype(str), reader, {}, {}, splits)


@pytest.fixture(scope="module")
def model(data):
    transformers = pytest.importorskip("transformers")
    bert = transformers.BertModel.from_pretrained(assets("minilm"), local_files_only=True, add_pooling_layer=False)
    inputs = [TensorInfo(name, (LENGTH,), "int64") for name in ("input_ids", "attention_mask")]
    return export_module(Sentence(bert).eval(), inputs, (), "minilm")


@pytest.fixture(scope="module")
def asked(data):
    """Test messages, spread over all intents."""
    return data.reader.read(data.split("test")[:: len(data.split("test")) // ASKED][:ASKED])


def passed(kind, model, data, **options):
    return run_pass(kind, model, data, Context(options=options))


def turned(model, other, asked):
    """By how much the sentences turn: 1 - cosine, a mean over the texts."""
    one, two = (torch.from_numpy(item.run(asked)["sentence"]) for item in (model, other))
    return float(1 - torch.cosine_similarity(one, two).mean())


def test_a_vocabulary_of_thirty_thousand_becomes_one_of_two_thousand(model, data, asked, record_property):
    result = passed("trim_vocabulary", model, data)
    said = {change.where: change.what for change in result.changed}
    print(said)
    held = result.model.program.state_dict
    tokens = held["bert.embeddings.word_embeddings.weight"]
    assert 2_000 < len(tokens) < 3_000
    assert len(held["bert.embeddings.position_embeddings.weight"]) == LENGTH
    assert cost(model).parameters - cost(result.model).parameters > 10_000_000
    files = [export(item).data for item in (model, result.model)]
    print(f"{len(files[0]):,} -> {len(files[1]):,} bytes")
    assert len(files[0]) - len(files[1]) > 43_000_000
    answers = [onnxruntime.InferenceSession(file).run(None, dict(asked))[0] for file in files]
    used = np.unique(
        np.concatenate([data.reader.read(data.split(name))["input_ids"] for name in ("train", "calibration")])
    )
    known = np.isin(asked["input_ids"], used).all(1)
    assert 0.85 < known.mean() < 1
    np.testing.assert_allclose(answers[1][known], answers[0][known], atol=1e-5)
    print(f"{(~known).sum()} of {len(known)} texts have an unknown token; they turn by {_mean(answers, ~known):.4f}")


def _mean(answers, rows):
    one, two = (torch.from_numpy(item[rows]) for item in answers)
    return float(1 - torch.cosine_similarity(one, two).mean())


def test_directions_of_the_rows_beat_directions_of_the_weights(model, data, asked):
    aware = passed("low_rank", model, data, ratio=0.5, include=["bert.encoder.*"])
    blind = passed("low_rank", model, None, ratio=0.5, include=["bert.encoder.*"])
    assert len(aware.changed) == len(blind.changed) == 36
    found = [turned(model, result.model, asked) for result in (aware, blind)]
    print(f"half of the weights: turned by {found[0]:.4f} with rows, {found[1]:.4f} without")
    assert found[0] < 0.7 * found[1]
    assert cost(aware.model).macs < 0.6 * cost(model).macs


def test_the_layer_of_least_influence_is_missed_less_than_that_of_most(model, data, asked):
    first = passed("drop_layers", model, data, keep=5)
    told = {
        item.where: float((getattr(item, "what", "") or item.reason).split("influence ")[1])
        for item in (*first.changed, *first.skipped)
        if "influence" in (getattr(item, "what", "") or item.reason)
    }
    print(told)
    assert len(told) == 6
    most = max(told, key=told.get)
    other = passed(
        "drop_layers", model, data, keep=[place for place in range(6) if place != int(most.rpartition(".")[2])]
    )
    assert [change.where for change in other.changed] == [most]
    found = [turned(model, result.model, asked) for result in (first, other)]
    print(f"turned by {found[0]:.4f} without {first.changed[0].where}, by {found[1]:.4f} without {most}")
    assert found[0] < found[1]


def test_what_stays_of_2_4_is_closer_when_it_is_fitted(model, data, asked):
    found = {
        (importance, fit): turned(
            model,
            passed("sparsify_2_4", model, data, importance=importance, fit=fit, include=["bert.encoder.*"]).model,
            asked,
        )
        for importance, fit in (("magnitude", False), ("wanda", False), ("wanda", True))
    }
    print(found)
    assert found["wanda", True] < found["wanda", False] < found["magnitude", False]
