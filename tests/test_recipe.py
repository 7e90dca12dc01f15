from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.errors import DataError, RecipeError
from compress.recipe import BUILTIN_SCHEMES, CalibrationConfig, Recipe, load_recipe
from compress.schema import read_toml, validate

HEAD = 'schema = 1\ntargets = ["onnxruntime-cpu"]\n'
BODY = '[model]\nsource = "model.py:build"\n[data]\nsource = "rows.csv"\n'


def read(text, tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return load_recipe(path)


def refused(text, tmp_path):
    with pytest.raises(RecipeError) as caught:
        read(text, tmp_path)
    assert caught.value.message.startswith(f"{tmp_path / 'recipe.toml'}: ")
    assert caught.value.hint
    assert caught.value.exit_code == 2
    return caught.value


def test_a_short_recipe_gets_every_default(tmp_path):
    recipe = read(HEAD + BODY, tmp_path)
    assert recipe.name == "model"
    assert recipe.data.split.fractions == {"train": 0.6, "calibration": 0.1, "validation": 0.1, "test": 0.2}
    assert [scheme.name for scheme in recipe.quant_schemes()] == ["float32", "int8-static", "int8-dynamic"]
    assert recipe.passes == ()


WRONG_VALUES = [
    # what the file says behind the head and body; the key named; the value shown
    ('drop = "a"', "data.drop must be a list", "'a'"),
    ("drop = [1]", "data.drop[0] must be a valid string", "1"),
    ("missing = inf", "data.missing", "inf"),
    ("missing = nan", "data.missing", "nan"),
    ('missing = "drop"', "data.missing must be 'nan' or 'error' or a valid number", "'drop'"),
    ("[data.inputs]\nx = 3", "data.inputs.x must be a list or a valid string", "3"),
    ('[data.inputs]\nx = ["a", 2]', "data.inputs.x[1] must be a valid string", "2"),
    ("[calibration]\nrows = 0", "calibration.rows must be greater than or equal to 1", "0"),
    ("[calibration]\nrows = 1.5", "calibration.rows must be a valid integer", "1.5"),
    ('[calibration]\nrows = "512"', "calibration.rows must be a valid integer", "'512'"),
    ("[calibration]\nrows = true", "calibration.rows must be a valid integer", "True"),
    ("[gate]\nauc_margin = nan", "gate.auc_margin must be a finite number", "nan"),
    ("[gate]\nmin_sqnr_db = inf", "gate.min_sqnr_db must be a finite number", "inf"),
    ("[gate]\nmin_agreement = 2", "gate.min_agreement must be less than or equal to 1", "2"),
    ('[task]\nlink = "logits"', "task.link must be", "'logits'"),
    ("[task]\ncutoff = 1", "task.cutoff must be less than 1", "1"),
    ("[measure]\npairs = 4", "measure.pairs must be greater than or equal to 5", "4"),
    ("[[passes]]\nkind = 3", "passes[0].kind must be a valid string", "3"),
    ('[scheme.mine]\nbase = "int8-static"\ninclude = "head"', "scheme.mine.include must be a list", "'head'"),
]


@pytest.mark.parametrize(
    ("said", "key", "value"), WRONG_VALUES, ids=[case[0].splitlines()[-1] for case in WRONG_VALUES]
)
def test_a_wrong_value_is_named_with_file_key_and_value(tmp_path, said, key, value):
    error = refused(f"{HEAD}{BODY}{said}\n", tmp_path)
    assert f": {key}" in error.message
    assert f"; got {value}" in error.message


def test_a_value_that_may_be_of_many_kinds_names_them_once(tmp_path):
    error = refused(HEAD + BODY.replace("[data]", "[model.arguments]\nwidth = {a = 1}\n[data]"), tmp_path)
    assert "model.arguments.width must be a valid boolean or a valid integer" in error.message
    assert "more)" not in error.message


UNKNOWN_KEYS = [
    ("[modl]\nx = 1", "modl", "model"),
    ("sorce = 3", "data.sorce", "source"),
    ('[scheme.mine]\nbase = "int8-static"\nexclud = ["a"]', "scheme.mine.exclud", "exclude"),
    ("[data.split]\nsede = 1", "data.split.sede", "seed"),
    ("[gate]\nauc_magin = 0.1", "gate.auc_magin", "auc_margin"),
]


@pytest.mark.parametrize(("said", "key", "meant"), UNKNOWN_KEYS, ids=[case[1] for case in UNKNOWN_KEYS])
def test_an_unknown_key_is_named_with_the_one_that_was_meant(tmp_path, said, key, meant):
    error = refused(f"{HEAD}{BODY}{said}\n", tmp_path)
    assert f"unknown key '{key}'" in error.message
    assert f"did you mean '{meant}'?" in error.hint


def test_a_misspelt_key_is_named_before_the_key_that_is_missing_for_it(tmp_path):
    error = refused(HEAD + BODY.replace("[model]", "[modle]"), tmp_path)
    assert "unknown key 'modle' (and 1 more)" in error.message
    assert "did you mean 'model'?" in error.hint


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (BODY, "schema"),
        ("schema = 1\n" + BODY, "targets"),
        (HEAD + '[model]\nsource = "a:b"\n', "data"),
        (HEAD + BODY + "[[passes]]\nkin = 'prune'\n", "passes[0].kind"),
    ],
)
def test_a_missing_key_is_named(tmp_path, text, key):
    assert f"the key '{key}' is missing" in refused(text, tmp_path).message


CONTRADICTIONS = [
    ("[data.split]\ntest = 0.5", "data.split: train + calibration + validation + test must be 1; got 1.3"),
    ('[data.split]\nby = "time"', 'data.split: by = "time" needs the key column'),
    ('[data.split]\ncolumn = "a"', 'data.split: column is read only with by = "time" or "column", not with "hash"'),
    ('features = ["a"]\n[data.inputs]\nx = ["a"]', "data: features and inputs say the same thing twice"),
    ('label = "a"\n[data.labels]\nx = "a"', "data: label and labels say the same thing twice"),
    ("[measure]\npairs = 20", "measure: max_pairs must be at least pairs"),
    ('[scheme.float16]\nbase = "int8-static"', "scheme.float16: the name belongs to a built-in scheme"),
    ('[scheme.mine]\nbase = "int8-sttic"', "scheme.mine.base: 'int8-sttic': did you mean 'int8-static'?"),
    ('[scheme.mine]\nbase = "float32"', "scheme.mine.base: float32 has nothing to change"),
    ('[scheme.original]\nbase = "float16"', "scheme: 'original' becomes part of a file's name"),
    ('[scheme."../../mine"]\nbase = "float16"', "scheme: '../../mine' becomes part of a file's name"),
]


@pytest.mark.parametrize(("said", "message"), CONTRADICTIONS, ids=[case[1][:40] for case in CONTRADICTIONS])
def test_contradictions_are_told(tmp_path, said, message):
    assert message in refused(f"{HEAD}{BODY}{said}\n", tmp_path).message


HEADS = [
    (
        'schema = 1\ntargets = ["a"]\nschemes = ["int8-dynamc"]\n',
        "unknown scheme 'int8-dynamc': did you mean 'int8-dynamic'",
    ),
    ('schema = 1\ntargets = ["a", "a"]\n', "targets: 'a' is named twice"),
    ('schema = 1\ntargets = ["a"]\nschemes = ["float16", "float16"]\n', "schemes: 'float16' is named twice"),
    ("schema = 1\ntargets = []\n", "targets must not be empty; got []"),
    ('schema = 1\ntargets = "a"\n', "targets must be a list; got 'a'"),
    ('schema = 2\ntargets = ["a"]\n', "schema: this version reads schema = 1; got 2"),
    ('schema = "1"\ntargets = ["a"]\n', "schema must be a valid integer; got '1'"),
    ('schema = true\ntargets = ["a"]\n', "schema must be a valid integer; got True"),
    ('schema = 1\nname = "a b"\ntargets = ["a"]\n', "name must match"),
    ('schema = 1\nname = "../a"\ntargets = ["a"]\n', "name must match"),
    ('schema = 1\nseed = -1\ntargets = ["a"]\n', "seed must be greater than or equal to 0; got -1"),
]


@pytest.mark.parametrize(("head", "message"), HEADS, ids=[case[1] for case in HEADS])
def test_a_wrong_head_is_told(tmp_path, head, message):
    assert message in refused(head + BODY, tmp_path).message


def test_a_table_that_is_a_value_is_told(tmp_path):
    error = refused(HEAD + 'model = "model.py:build"\n[data]\nsource = "rows.csv"\n', tmp_path)
    assert "model must be a table; got 'model.py:build'" in error.message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"schema = = 1", "not valid TOML"),
        (b"\xff\xfe\x00", "not valid TOML"),
        (b"a = " + b"[" * 5000, "nested too deeply"),
        (b"# " + b"x" * (1 << 20), "larger than 1 MiB"),
    ],
    ids=["syntax", "no text", "depth", "size"],
)
def test_what_is_no_toml_is_told(tmp_path, content, message):
    path = tmp_path / "recipe.toml"
    path.write_bytes(content)
    with pytest.raises(RecipeError, match=message) as caught:
        load_recipe(path)
    assert str(path) in caught.value.message


def test_a_missing_file_and_a_folder_are_told(tmp_path):
    with pytest.raises(RecipeError, match="No such file"):
        load_recipe(tmp_path / "no.toml")
    with pytest.raises(RecipeError, match="directory"):
        load_recipe(tmp_path)


def test_the_kind_of_the_error_is_the_callers(tmp_path):
    with pytest.raises(DataError):
        read_toml(tmp_path / "no.toml", DataError)
    with pytest.raises(DataError, match="here: rows must be a valid integer"):
        validate(CalibrationConfig, {"rows": "many"}, "here", DataError)


def test_options_of_a_pass_are_its_other_keys(tmp_path):
    said = '[[passes]]\nkind = "prune"\nratio = 0.5\nlayers = ["a", "b"]\nallow_no_change = true\n'
    (step,) = read(HEAD + BODY + said, tmp_path).passes
    assert step.options == {"ratio": 0.5, "layers": ["a", "b"]}
    assert step.allow_no_change


def test_a_scheme_of_ones_own_changes_what_it_names_and_keeps_the_rest(tmp_path):
    text = (
        'schema = 1\ntargets = ["a"]\nschemes = ["mine", "float16"]\n' + BODY + "[scheme.mine]\n"
        'base = "int8-static"\ngranularity = "tensor"\nexclude = ["head"]\n'
    )
    float32, mine, float16 = read(text, tmp_path).quant_schemes()
    assert float32 == BUILTIN_SCHEMES["float32"]
    assert float16 == BUILTIN_SCHEMES["float16"]
    assert (mine.name, mine.dtype, mine.activations) == ("mine", "int8", "static")
    assert (mine.granularity, mine.include, mine.exclude) == ("tensor", ("*",), ("head",))


def test_an_argument_keeps_its_type(tmp_path):
    said = '[model.arguments]\nflag = true\ncount = 1\nratio = 1.0\nname = "x"\nsizes = [1, 2]\nrates = [0.5]\n'
    arguments = read(HEAD + BODY.replace("[data]", f"{said}[data]"), tmp_path).model.arguments
    assert {key: type(value) for key, value in arguments.items()} == {
        "flag": bool,
        "count": int,
        "ratio": float,
        "name": str,
        "sizes": list,
        "rates": list,
    }


NAMES = st.text("abcdefgh_", min_size=1, max_size=6)
FINITE = st.floats(allow_nan=False, allow_infinity=False, width=32)
ARGUMENTS = st.dictionaries(
    NAMES, st.booleans() | st.integers(-9, 9) | FINITE | NAMES | st.lists(st.integers(0, 9)), max_size=3
)


@st.composite
def recipes(draw):
    own = draw(
        st.dictionaries(
            NAMES.map("own-{}".format), st.sampled_from(sorted(set(BUILTIN_SCHEMES) - {"float32"})), max_size=2
        )
    )
    parts = draw(st.tuples(st.integers(0, 5), st.integers(1, 5), st.integers(0, 5), st.integers(1, 5)))
    shares = [part / sum(parts) for part in parts]
    by = draw(st.sampled_from(["hash", "random", "stratified", "time", "column"]))
    return {
        "schema": 1,
        "name": draw(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,9}", fullmatch=True)),
        "model": {"source": draw(NAMES), "arguments": draw(ARGUMENTS), "outputs": draw(st.lists(NAMES, max_size=2))},
        "data": {
            "source": draw(NAMES),
            "missing": draw(st.sampled_from(["nan", "error"]) | FINITE),
            "inputs": draw(st.dictionaries(NAMES, st.lists(NAMES, max_size=2) | NAMES, max_size=2)),
            "split": {"by": by, "column": draw(NAMES) if by in ("time", "column") else None}
            | dict(zip(("train", "calibration", "validation", "test"), shares, strict=True)),
        },
        "passes": [{"kind": kind, "ratio": draw(FINITE)} for kind in draw(st.lists(NAMES, max_size=2))],
        "scheme": {name: {"base": base, "exclude": draw(st.lists(NAMES, max_size=2))} for name, base in own.items()},
        "schemes": draw(st.lists(st.sampled_from([*BUILTIN_SCHEMES, *own]), unique=True, max_size=4)),
        "targets": draw(st.lists(NAMES, unique=True, min_size=1, max_size=3)),
        "gate": {"auc_margin": draw(st.floats(0, 1)), "min_sqnr_db": draw(st.none() | FINITE)},
        "seed": draw(st.integers(0, 2**31)),
    }


@given(recipes())
@settings(max_examples=100, deadline=None)
def test_a_recipe_survives_the_way_to_json_and_back(values):
    recipe = validate(Recipe, values, "recipe")
    text = json.dumps(recipe.model_dump(mode="json", by_alias=True), allow_nan=False)
    assert validate(Recipe, json.loads(text), "recipe") == recipe


@given(recipes())
@settings(max_examples=50, deadline=None)
def test_float32_is_tried_first_and_once_whatever_the_recipe_names(values):
    names = [scheme.name for scheme in validate(Recipe, values, "recipe").quant_schemes()]
    assert names[0] == "float32"
    assert len(names) == len(set(names))
    assert set(values["schemes"]) <= set(names)
    assert names[1:] == [name for name in values["schemes"] if name != "float32"]


@given(recipes(), NAMES)
@settings(max_examples=50, deadline=None)
def test_a_key_too_many_is_refused_wherever_it_stands(values, name):
    for table in (values, values["model"], values["data"], values["data"]["split"], values["gate"]):
        with pytest.raises(RecipeError, match="unknown key"):
            validate(Recipe, _with(values, table, f"{name}-x"), "recipe")


def _with(values, table, key):
    """A copy of nested tables in which one table, told by identity, has a key more."""
    copied = {name: _with(inner, table, key) if isinstance(inner, dict) else inner for name, inner in values.items()}
    return {**copied, key: 1} if values is table else copied


def test_segments_costs_and_explanations_are_read(tmp_path):
    text = """
[segments.band]
column = "AGE"
bins = [30, 45.5]
[evaluate]
cost = { false_positive = 1, false_negative = 5 }
cutoffs = [0.2]
[explain]
rows = 10
"""
    recipe = read(HEAD + BODY + text, tmp_path)
    assert recipe.segments["band"].bins == (30, 45.5)
    assert recipe.evaluate.cost.false_negative == 5
    assert (recipe.explain.rows, recipe.explain.top_k) == (10, 4)
    assert read(HEAD + BODY, tmp_path).explain is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[segments.band]\ncolumn = "AGE"\nbins = [45, 30]', "bins must ascend; got 45, 30"),
        ("[segments.band]\nbins = [45]", "the key 'segments.band.column' is missing"),
        ("[evaluate]\ncutoffs = [1.5]", "a cut-off is a probability between 0 and 1; got 1.5"),
        ("[evaluate]\nfolds = 1", "one fold is all rows"),
        ("[evaluate]\nfavorable = true", "unknown key 'evaluate.favorable'"),
        ("[gate]\nmax_flip = 0.1", "unknown key 'gate.max_flip'"),
        ("[evaluate.cost]\nfalse_positive = 1", "the key 'evaluate.cost.false_negative' is missing"),
    ],
)
def test_wrong_segments_costs_and_bounds_are_told(text, said, tmp_path):
    assert said in refused(HEAD + BODY + text, tmp_path).message
