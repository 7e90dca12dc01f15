"""Tables without the rows that nothing looks up: the same answers where they are known, one row for all the rest."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from prune_kit import exported
from rows_kit import check_like_any_other, dataset
from torch import nn
from torch.nn import functional as F

from compress import zoo
from compress.data.base import Dataset
from compress.data.text import TextReader
from compress.data.text_tokenizer import TextTokenizer, load_tokenizer
from compress.data.text_vocabulary import ids_of, special_ids, tokens_of, unknown_id
from compress.errors import CompressError, DataError, PassError, RecipeError
from compress.model.belongings import check_vocabulary, token_tables
from compress.passes.base import Context, run_pass
from compress.runtimes.onnxruntime.export import export as export_onnx

VOCABULARY = [
    *("[PAD]", "[unused]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    *("lost", "my", "card", "##s", "pay", "never", "seen", "rare", "!"),
    *(f"word{number}" for number in range(50)),
]
PAD, UNK, LOST, NEVER, RARE = (VOCABULARY.index(token) for token in ("[PAD]", "[UNK]", "lost", "never", "rare"))
TEXTS = ["lost my card", "pay my cards", "lost cards !", "my card"] * 5 + ["rare card"]
LENGTH = 7


class Codes(nn.Module):
    """Two tables, of ids as they come and of ids that are computed; positions; a table that is multiplied with."""

    def __init__(self):
        super().__init__()
        self.codes, self.shifted = nn.Embedding(100, 8, padding_idx=7), nn.Embedding(60, 8)
        self.positions, self.tied = nn.Embedding(40, 8), nn.Embedding(50, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, ids):
        hidden = self.codes(ids) + self.shifted(ids.clamp(0, 49) + 10) + self.positions(torch.arange(5))
        hidden = hidden + self.codes(ids.flip(1)) + self.tied(ids.clamp(0, 49))
        return {"score": self.head(hidden.mean(1)), "same": F.linear(hidden.mean(1), self.tied.weight)}


def trimmed(model, data, **options):
    return run_pass("trim_vocabulary", model, data, Context(options=options), allow_no_change=True)


def codes(rows, known=(3, 7, 20, 21, 90), seed=0):
    return np.random.default_rng(seed).choice(np.array(known), (rows, 5))


def code_data(ids):
    held_out = np.full((2, 5), 3)
    held_out[0, :2] = 55
    return dataset({"ids": np.concatenate([ids, held_out])}, train=len(ids) - 4, calibration=4, validation=2)


def test_answers_stay_where_every_id_is_known(tmp_path):
    model = exported(Codes(), ids=(5,))
    result = trimmed(model, code_data(codes(60)))
    assert [change.where for change in result.changed] == ["codes", "shifted", "positions"]
    # Positions hang on no row, so no id of theirs can ever be unknown.
    assert result.changed[2].what == "40 -> 5 rows: 1,120 bytes less, 160 for the map; no other id can come"
    assert result.changed[0].what == (
        "100 -> 6 rows: 3,008 bytes less, 400 for the map; 4 of 20 look-ups of validation rows become unknown"
    )
    assert {skip.where: skip.reason for skip in result.skipped} == {
        "head": "linear is no look-up",
        "tied": "its weight is that of tied#2, which stays",
        "tied#2": "linear is no look-up",
    }
    held = result.model.program.state_dict
    assert {name: len(held[name]) for name in held if name.endswith(".weight")} == {
        "codes.weight": 6,
        "shifted.weight": 6,
        "positions.weight": 5,
        "tied.weight": 50,
        "head.weight": 3,
    }
    given = {"ids": codes(9, seed=4)}
    for output, values in model.run(given).items():
        np.testing.assert_allclose(result.model.run(given)[output], values, atol=1e-6)
    check_like_any_other(result.model, given, tmp_path)


def test_an_id_without_a_row_gets_the_mean_of_the_rows_that_went():
    model = exported(Codes(), ids=(5,))
    result = trimmed(model, code_data(codes(60)), include=["codes*"]).model
    table = model.program.state_dict["codes.weight"].detach()
    known = [3, 7, 20, 21, 90]
    mean = table[[row for row in range(100) if row not in known]].double().mean(0).float()
    torch.testing.assert_close(result.program.state_dict["codes.weight"][5].detach(), mean)
    blank = table.clone()
    blank[[row for row in range(100) if row not in known]] = mean
    module = Codes()
    module.load_state_dict({**dict(model.program.state_dict), "codes.weight": blank})
    ids = codes(9, known=range(100), seed=2)
    with torch.no_grad():
        wanted = module.eval()(torch.from_numpy(ids))
    for output, values in result.run({"ids": ids}).items():
        np.testing.assert_allclose(values, wanted[output].numpy(), atol=1e-5)


@given(st.sets(st.integers(0, 99), min_size=1, max_size=30), st.integers(1, 3), st.integers(0, 99))
@settings(max_examples=8, deadline=None, phases=[Phase.explicit, Phase.generate])
def test_any_used_ids_keep_their_answers(used, min_count, seed):
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.codes = nn.Embedding(100, 16)

        def forward(self, ids):
            return self.codes(ids)

    model = exported(Plain(), ids=(4,))
    ids = codes(30, known=sorted(used), seed=seed)
    counts = np.bincount(ids.ravel(), minlength=100)
    kept = np.flatnonzero(counts >= min_count)
    result = trimmed(model, dataset({"ids": ids}, train=20, calibration=10), min_count=min_count).model
    assert len(result.program.state_dict["codes.weight"]) == len(kept) + 1
    given = {"ids": np.resize(kept, (8, 4))}
    np.testing.assert_array_equal(result.run(given)["output"], model.run(given)["output"])


def test_rare_ids_go_and_named_ones_stay():
    model = exported(Codes(), ids=(5,))
    ids = codes(60)
    ids[0, 0] = 33
    assert len(trimmed(model, code_data(ids), include=["codes*"]).model.program.state_dict["codes.weight"]) == 7
    rare = trimmed(model, code_data(ids), include=["codes*"], min_count=3)
    assert len(rare.model.program.state_dict["codes.weight"]) == 6
    named = trimmed(model, code_data(ids), include=["codes*"], min_count=3, keep_extra=[33, 34])
    assert len(named.model.program.state_dict["codes.weight"]) == 8
    with pytest.raises(PassError, match="keep_extra: there is no row 100 in a table of 100"):
        trimmed(model, code_data(ids), include=["codes*"], keep_extra=[100])
    with pytest.raises(PassError, match="keep_extra names tokens, but the rows are no texts"):
        trimmed(model, code_data(ids), include=["codes*"], keep_extra=["card"])
    ids[3, 3] = 100
    with pytest.raises(PassError, match="rows look up 100 in a table of 100 rows"):
        trimmed(model, code_data(ids), include=["codes*"])


def test_a_table_whose_map_costs_more_than_it_saves_stays():
    class Narrow(nn.Module):
        def __init__(self):
            super().__init__()
            self.codes, self.head = nn.Embedding(10, 4), nn.Linear(4, 2)

        def forward(self, ids):
            return self.head(self.codes(ids).mean(1))

    model = exported(Narrow(), ids=(5,))
    result = trimmed(model, dataset({"ids": codes(20, known=range(8))}))
    assert result.model is model
    assert ("codes", "8 of 10 rows are used: too few would go to pay for the map") in [
        (skip.where, skip.reason) for skip in result.skipped
    ]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    pytest.importorskip("tokenizers")
    folder = tmp_path_factory.mktemp("tokenizer")
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in VOCABULARY), encoding="utf-8")
    return load_tokenizer(folder, LENGTH)


@pytest.fixture
def classifier(tokenizer):
    model = exported(
        zoo.compact_bert(vocabulary=len(VOCABULARY), width=16, layers=1, heads=2, feed_forward=16, positions=12),
        input_ids=(LENGTH,),
        attention_mask=(LENGTH,),
    )
    return model.with_attachments({"tokenizer.json": tokenizer.definition})


def text_data(tokenizer, texts=TEXTS):
    reader = TextReader(
        [*texts, "never lost", "my card"],
        tokenizer,
        {"input_ids": "input_ids", "attention_mask": "attention_mask"},
    )
    rows = np.arange(len(reader.texts))
    splits = {
        "train": rows[:12],
        "calibration": rows[12 : len(texts)],
        "validation": rows[len(texts) :],
        "test": rows[:0],
    }
    return Dataset("rows", rows.astype(str), reader, {}, {}, splits)


def test_tokens_that_no_text_has_become_the_unknown_token(classifier, tokenizer, tmp_path):
    result = trimmed(classifier, text_data(tokenizer))
    # Special tokens stay, and what the texts have: lost my card ##s pay rare !
    assert result.changed[0].where == "tokens"
    assert result.changed[0].what == (
        f"{len(VOCABULARY)} -> 12 rows: {(len(VOCABULARY) - 12) * 64:,} bytes less, {len(VOCABULARY) * 4} for the map; "
        "1 of 4 look-ups of validation rows become unknown"
    )
    texts = ["lost my card", "pay cards !", "never lost my card", "word3 card"]
    given = {name: tokenizer.encode(texts)[name] for name in ("input_ids", "attention_mask")}
    unknown = given["input_ids"].copy()
    unknown[np.isin(unknown, [NEVER, *range(VOCABULARY.index("word0"), len(VOCABULARY))])] = UNK
    assert (unknown != given["input_ids"]).sum() == 2
    np.testing.assert_allclose(
        result.model.run(given)["scores"], classifier.run({**given, "input_ids": unknown})["scores"], atol=1e-6
    )
    assert result.model.signature == classifier.signature
    assert result.model.attachments == classifier.attachments
    # Ids are still checked against what the model knows: the map, by now.
    assert token_tables(text_data(tokenizer), result.model) == ("tokens.row_of_id",)
    check_vocabulary(text_data(tokenizer), result.model)
    check_like_any_other(result.model, given, tmp_path)


def test_tokens_can_be_kept_by_name(classifier, tokenizer):
    data = text_data(tokenizer)
    rows = {
        len(trimmed(classifier, data, **options).model.program.state_dict["tokens.weight"])
        for options in ({"keep_extra": ["never", "word7"]}, {"keep_extra": [NEVER, 1]})
    }
    assert rows == {14}
    assert len(trimmed(classifier, data, min_count=2).model.program.state_dict["tokens.weight"]) == 11
    with pytest.raises(DataError, match=r"trim_vocabulary.keep_extra: the tokenizer has no token 'nver'"):
        trimmed(classifier, data, keep_extra=["nver"])


def test_the_file_holds_the_smaller_table_and_the_map(classifier, tokenizer):
    result = trimmed(classifier, text_data(tokenizer)).model
    before, after = (export_onnx(model).data for model in (classifier, result))
    assert len(before) - len(after) > (len(VOCABULARY) - 12) * 64 - len(VOCABULARY) * 4 - 2000
    arrays = {item.name: numpy_helper.to_array(item) for item in onnx.load_from_string(after).graph.initializer}
    maps = [array for array in arrays.values() if array.shape == (len(VOCABULARY),)]
    assert [array.dtype for array in maps] == [np.int32]
    assert maps[0].max() == 11
    assert (12, 16) in [array.shape for array in arrays.values()]
    assert (len(VOCABULARY), 16) not in [array.shape for array in arrays.values()]


def test_a_trimmed_model_can_be_trimmed_and_quantized_like_any_other(classifier, tokenizer):
    from tiny_models import answers, target

    from compress.recipe import BUILTIN_SCHEMES
    from compress.runtimes.onnxruntime.quantize import quantize

    result = trimmed(classifier, text_data(tokenizer)).model
    assert not trimmed(result, text_data(tokenizer), include=["tokens"]).changed
    made = quantize(export_onnx(result), BUILTIN_SCHEMES["int8-dynamic"], None, target("onnxruntime"))
    given = {name: tokenizer.encode(TEXTS)[name] for name in ("input_ids", "attention_mask")}
    np.testing.assert_allclose(
        answers("onnxruntime", made.data, given)["scores"], result.run(given)["scores"], atol=0.1
    )


def test_without_rows_nothing_is_known():
    result = trimmed(exported(Codes(), ids=(5,)), None)
    assert [(skip.where, skip.reason) for skip in result.skipped] == [
        ("the whole model", "there are no rows to say which ids are used")
    ]


def test_patterns_and_wrong_options(classifier, tokenizer):
    data = text_data(tokenizer)
    with pytest.raises(CompressError, match=r"trim_vocabulary.include: the pattern 'token' matches no layer"):
        trimmed(classifier, data, include=["token"])
    with pytest.raises(RecipeError, match="min_count"):
        trimmed(classifier, data, min_count=0)
    with pytest.raises(RecipeError, match="did you mean 'keep_extra'"):
        trimmed(classifier, data, keep_extras=[])


UNIGRAM = {
    "added_tokens": [{"id": 0, "content": "<pad>"}, {"id": 1, "content": "<unk>"}],
    "model": {"type": "Unigram", "unk_id": 1, "vocab": [["<pad>", 0.0], ["<unk>", 0.0], ["▁card", -1.0]]},
}
BYTES = {"added_tokens": [{"id": 2, "content": "<end>"}], "model": {"type": "BPE", "vocab": {"a": 0, "b": 1}}}


def test_what_a_file_says_of_its_vocabulary(tokenizer):
    assert tokens_of(tokenizer.definition) == {token: number for number, token in enumerate(VOCABULARY)}
    assert special_ids(tokenizer.definition) == {0, 2, 3, 4, 5}
    assert unknown_id(tokenizer.definition) == UNK
    unigram, plain = json.dumps(UNIGRAM).encode(), json.dumps(BYTES).encode()
    assert tokens_of(unigram) == {"<pad>": 0, "<unk>": 1, "▁card": 2}
    assert (unknown_id(unigram), special_ids(unigram)) == (1, {0, 1})
    assert tokens_of(plain) == {"a": 0, "b": 1, "<end>": 2}
    assert (unknown_id(plain), special_ids(plain)) == (None, {2})
    assert ids_of(plain, ["b"], "key") == {1}


def test_the_tokenizer_needs_no_change(tokenizer):
    # What shipped before reads texts for the trimmed model: same file, same ids.
    assert TextTokenizer(tokenizer.definition, LENGTH).encode(["lost"])["input_ids"][0, 1] == LOST
