from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.data import TensorSpec, load_dataset
from compress.data.text import text_reader
from compress.data.text_tokenizer import KINDS, load_tokenizer
from compress.errors import DataError
from compress.recipe import DataConfig

tokenizers = pytest.importorskip("tokenizers")

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "lost", "my", "card", "##s", "pay", "null", "!", "é"]
PAD, UNK, CLS, SEP, LOST, MY, CARD, S, PAY, NULL = range(10)
ROWS = 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a vocab.txt only."""
    path = tmp_path_factory.mktemp("wordpiece")
    (path / "vocab.txt").write_text("".join(f"{token}\n" for token in VOCABULARY), encoding="utf-8")
    return path


def table(**columns):
    base = {
        "id": [f"m{row}" for row in range(ROWS)],
        "message": [f"lost my card{'s' * (row % 2)}" for row in range(ROWS)],
        "intent": ["loss" if row % 2 else "payment" for row in range(ROWS)],
    }
    return pd.DataFrame({**base, **columns})


@pytest.fixture(params=[".csv", ".parquet"])
def load(request, tmp_path, folder):
    def run(frame, model_folder=folder, length=6, **config):
        name = f"rows{request.param}"
        if request.param == ".parquet":
            frame.to_parquet(tmp_path / name, index=False)
        else:
            frame.to_csv(tmp_path / name, index=False)
        values = {
            "source": name,
            "id": "id",
            "label": "intent",
            "categories": {"intent": ("payment", "loss")},
            "text": {"column": "message", "length": length},
            **config,
        }
        return load_dataset(DataConfig(**values), tmp_path, model_folder=model_folder)

    return run


def test_a_column_becomes_ids_and_a_mask(load):
    dataset = load(table())
    assert dataset.reader.signature() == (
        TensorSpec("input_ids", (6,), "int64"),
        TensorSpec("attention_mask", (6,), "int64"),
    )
    read = dataset.reader.read(np.array([1, 0]))
    np.testing.assert_array_equal(read["input_ids"], [[CLS, LOST, MY, CARD, S, SEP], [CLS, LOST, MY, CARD, SEP, PAD]])
    np.testing.assert_array_equal(read["attention_mask"], [[1] * 6, [1] * 5 + [0]])
    assert read["input_ids"].dtype == read["attention_mask"].dtype == np.int64
    assert dataset.labels["intent"].tolist() == [0, 1] * (ROWS // 2)
    assert dataset.notes == ("no text is cut: the longest has 6 of 6 tokens.",)
    assert dataset.reader.read(np.array([], np.int64))["input_ids"].shape == (0, 6)


def test_cut_texts_are_counted(load):
    split = np.array(["train", "calibration", "validation", "test"])[np.arange(ROWS) % 4]
    dataset = load(table(part=split), length=5, split={"by": "column", "column": "part"})
    assert dataset.notes == ("20 of 40 texts are cut at 5 tokens (10 of the 10 test rows); the longest has 6.",)
    np.testing.assert_array_equal(dataset.reader.read(np.array([1]))["input_ids"], [[CLS, LOST, MY, CARD, SEP]])


def test_inputs_say_what_feeds_what(load):
    dataset = load(table(), inputs={"tokens": "input_ids", "kinds": "token_type_ids"})
    read = dataset.reader.read(np.arange(3))
    assert list(read) == ["tokens", "kinds"]
    assert not read["kinds"].any()
    assert read["tokens"][0, 0] == CLS


def test_words_that_look_missing_are_texts(load):
    frame = table(message=["null", "NA", "None", "lost"] * (ROWS // 4))
    read = load(frame).reader.read(np.arange(4))["input_ids"]
    assert read[:, 1].tolist() == [NULL, UNK, UNK, LOST]


def test_the_fingerprint_follows_texts_length_and_tokenizer(load, tmp_path, folder):
    first = load(table())
    assert first.fingerprint() == load(table()).fingerprint()
    changed = table(message=["lost my card!", *table()["message"][1:]])
    other = tmp_path / "other"
    other.mkdir()
    (other / "vocab.txt").write_text("".join(f"{token}\n" for token in reversed(VOCABULARY)), encoding="utf-8")
    different = [load(changed), load(table(), length=7), load(table(), model_folder=other)]
    assert len({first.fingerprint(), *(item.fingerprint() for item in different)}) == 4


def test_a_renamed_dataset_still_has_its_texts(load):
    dataset = load(table(), inputs={"features": "input_ids"}).renamed({"features": "input_ids"})
    reader = text_reader(dataset)
    assert reader is not None
    assert reader.texts[0] == "lost my card"
    assert json.loads(reader.attachments()["tokenizer.json"])["truncation"]["max_length"] == 6


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"text": {"column": "massage"}}, "data.text.column.*'massage'"),
        ({"text": {"column": "intent"}}, "'intent' is the label too"),
        ({"text": {"column": "id"}}, "'id' is the id too"),
        ({"text": {"column": "message"}, "drop": ("message",)}, "'message' is dropped too"),
        ({"text": {"column": "message"}, "features": ("message",)}, "data.features means nothing"),
        ({"text": {"column": "message"}, "inputs": {"x": "words"}}, "data.inputs.x: a tokenizer does not give 'words'"),
        ({"text": {"column": "message"}, "inputs": {"x": ("message",)}}, r"data.inputs.x: a tokenizer does not give"),
        ({"text": {"column": "message", "length": 2}}, "length = 2 leaves no room"),
        ({"text": {"column": "message", "tokenizer": "nowhere"}}, "nowhere: there is no such folder"),
    ],
)
def test_recipes_that_cannot_be(load, config, message):
    with pytest.raises(DataError, match=message):
        load(table(), **config)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["lost", "", *["card"] * 38], r"'message' is empty in 1 of 40 rows, first in row 1"),
        (["lost", "  ", *["card"] * 38], r"'message' is empty in 1 of 40 rows, first in row 1"),
        (["12", "3.5", *["7"] * 38], "holds only numbers, such as '12'"),
    ],
)
def test_texts_that_cannot_be_used(load, texts, message):
    with pytest.raises(DataError, match=message):
        load(table(message=texts))


def test_parquet_cells_that_are_no_text(tmp_path, folder):
    table(message=[b"lost", *[b"card"] * 39]).to_parquet(tmp_path / "rows.parquet")
    config = DataConfig(source="rows.parquet", label="intent", id="id", text={"column": "message"})
    with pytest.raises(DataError, match=r"'message' holds b'lost' in row 0 .*a bytes and no text"):
        load_dataset(config, tmp_path, model_folder=folder)
    table(message=np.arange(ROWS)).to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(DataError, match="a int and no text"):
        load_dataset(config, tmp_path, model_folder=folder)


def test_text_needs_a_table_and_a_tokenizer(load, tmp_path):
    with pytest.raises(DataError, match=r"data.text.tokenizer: nothing says which tokenizer"):
        load(table(), model_folder=None)
    np.savez(tmp_path / "rows.npz", x=np.zeros(3))
    with pytest.raises(DataError, match=r"data.text reads a column of a table; 'rows.npz' is none"):
        load_dataset(DataConfig(source="rows.npz", text={"column": "x"}), tmp_path)


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(st.text(max_size=60), max_size=5), length=st.integers(3, 12))
def test_every_text_has_the_length_and_the_same_beginning(folder, texts, length):
    tokenizer, longer = load_tokenizer(folder, length), load_tokenizer(folder, 80)
    made, whole = tokenizer.encode(texts), longer.encode(texts)
    counts = tokenizer.lengths(texts)
    assert all(made[kind].shape == (len(texts), length) for kind in KINDS)
    np.testing.assert_array_equal(made["attention_mask"].sum(axis=1), np.minimum(counts, length))
    np.testing.assert_array_equal(made["attention_mask"], -np.sort(-made["attention_mask"], axis=1))
    np.testing.assert_array_equal(
        made["input_ids"][:, : length - 1],
        np.where(
            np.arange(length - 1) < counts[:, None] - 1,
            whole["input_ids"][:, : length - 1],
            made["input_ids"][:, : length - 1],
        ),
    )
    assert (made["input_ids"] < tokenizer.rows).all()
    assert (made["input_ids"][made["attention_mask"] == 0] == PAD).all()


def test_what_ships_gives_the_same_ids_by_itself(folder):
    tokenizer = load_tokenizer(folder, 7)
    texts = ["Lost my CARDS!", "pay", "é e", "lost my card pay null lost my"]
    shipped = tokenizers.Tokenizer.from_str(tokenizer.definition.decode())
    np.testing.assert_array_equal(
        [item.ids for item in shipped.encode_batch(texts)], tokenizer.encode(texts)["input_ids"]
    )


def test_a_tokenizer_json_is_preferred_and_gives_the_same(folder, tmp_path):
    first = load_tokenizer(folder, 9)
    (tmp_path / "tokenizer.json").write_bytes(first.definition)
    (tmp_path / "vocab.txt").write_text("garbage")
    again = load_tokenizer(tmp_path, 9)
    assert again.definition == first.definition
    assert load_tokenizer(tmp_path, 5).encode(["lost my card pay"])["input_ids"].tolist() == [
        [CLS, LOST, MY, CARD, SEP]
    ]


def test_settings_of_a_vocabulary(folder, tmp_path):
    (tmp_path / "vocab.txt").write_bytes((folder / "vocab.txt").read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"do_lower_case": False, "pad_token": {"content": "null"}, "padding_side": "left"})
    )
    made = load_tokenizer(tmp_path, 6).encode(["Lost card"])
    assert made["input_ids"].tolist() == [[NULL, NULL, CLS, UNK, CARD, SEP]]
    assert made["attention_mask"].tolist() == [[0, 0, 1, 1, 1, 1]]
    assert load_tokenizer(folder, 6).encode(["Lost é"])["input_ids"].tolist() == [[CLS, LOST, UNK, SEP, PAD, PAD]]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"strip_accents": False}))
    assert load_tokenizer(tmp_path, 4).encode(["é"])["input_ids"].tolist() == [[CLS, len(VOCABULARY) - 1, SEP, PAD]]


def spoil(folder, tmp_path, **files):
    for name, content in files.items():
        (tmp_path / name.replace("_json", ".json").replace("_txt", ".txt")).write_bytes(content)
    return load_tokenizer(tmp_path, 8)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "neither a tokenizer.json nor a vocab.txt"),
        ({"tokenizer_json": b"garbage"}, "tokenizer.json: not a tokenizer"),
        ({"tokenizer_json": b"\xff\xfe"}, "tokenizer.json: not a tokenizer"),
        ({"tokenizer_json": b"{}"}, "tokenizer.json: not a tokenizer"),
        ({"vocab_txt": b"\xff\xfe\n"}, "not UTF-8"),
        ({"vocab_txt": b"a\nb\n"}, r"there is no '\[UNK\]' in the vocabulary"),
        ({"vocab_txt": b"[UNK]\n[CLS]\n[SEP]\na\na\n"}, "'a' stands there twice"),
        ({"vocab_txt": b"[UNK]\n[CLS]\n[SEP]\na\n"}, "names no pad_token"),
        ({"vocab_txt": b"[UNK]\n", "tokenizer_config_json": b"[1]"}, "holds no table of settings"),
        ({"vocab_txt": b"[UNK]\n", "tokenizer_config_json": b"{"}, "not JSON"),
        (
            {"vocab_txt": b"[UNK]\n", "tokenizer_config_json": b'{"tokenizer_class": "AlbertTokenizer"}'},
            "AlbertTokenizer",
        ),
        ({"vocab_txt": b"[UNK]\n", "tokenizer_config_json": b'{"do_basic_tokenize": false}'}, "do_basic_tokenize"),
    ],
)
def test_folders_that_hold_no_tokenizer(folder, tmp_path, files, message):
    with pytest.raises(DataError, match=message):
        spoil(folder, tmp_path, **files)


def test_a_tokenizer_that_contradicts_its_settings(folder, tmp_path):
    with pytest.raises(DataError, match=r"do_lower_case = false.*lowercase = true"):
        spoil(
            folder,
            tmp_path,
            tokenizer_json=load_tokenizer(folder, 8).definition,
            tokenizer_config_json=b'{"do_lower_case": false}',
        )


def test_a_panic_of_the_native_code_is_an_error_of_the_file(folder, tmp_path, capfd):
    broken = json.loads(load_tokenizer(folder, 8).definition)
    broken["post_processor"]["special_tokens"] = {}
    with pytest.raises(DataError, match="not a tokenizer"):
        spoil(folder, tmp_path, tokenizer_json=json.dumps(broken).encode())


def test_a_file_that_pads_to_terabytes_is_cut_to_the_recipe(folder, tmp_path):
    greedy = json.loads(load_tokenizer(folder, 8).definition)
    greedy["padding"]["strategy"] = {"Fixed": 2**40}
    made = spoil(folder, tmp_path, tokenizer_json=json.dumps(greedy).encode())
    assert made.encode(["lost"])["input_ids"].shape == (1, 8)
