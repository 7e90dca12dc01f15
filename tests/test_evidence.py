from __future__ import annotations

import dataclasses
import json
import typing

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compress import evidence
from compress.errors import StoreError
from compress.evidence import Evidence, Interval, Memory, Metric, Placement, from_json, load_evidence, to_json

FINITE = st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(max_size=8)
# What a mapping of anything may hold and still be the same behind JSON.
PLAIN = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | FINITE | TEXT


def values(annotation):
    """A strategy for a field: finite numbers, short texts and tuples, plain values where anything may stand."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is float:
        return FINITE
    if annotation is int:
        return st.integers(0, 2**53)
    if annotation is str:
        return TEXT
    if annotation is bool:
        return st.booleans()
    if annotation is type(None):
        return st.none()
    if annotation is typing.Any:
        return PLAIN
    if dataclasses.is_dataclass(annotation):
        return built(annotation)
    if origin is typing.Literal:
        return st.sampled_from(arguments)
    if origin is tuple and arguments[-1] is ...:
        return st.lists(values(arguments[0]), max_size=2).map(tuple)
    if origin is tuple:
        return st.tuples(*map(values, arguments))
    if origin is not None and hasattr(origin, "keys"):
        return st.dictionaries(TEXT, values(arguments[1]), max_size=2)
    assert arguments, annotation
    return st.one_of(*map(values, arguments))


def built(kind):
    hints = typing.get_type_hints(kind)
    fields = {field.name: values(hints[field.name]) for field in dataclasses.fields(kind) if field.name != "schema"}
    return st.builds(kind, **fields)


KINDS = [item for item in vars(evidence).values() if dataclasses.is_dataclass(item)]
EVIDENCE = built(Evidence)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@given(data=st.data())
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_every_result_survives_the_way_to_json_and_back(kind, data):
    value = data.draw(built(kind))
    assert from_json(kind, to_json(value)) == value
    assert to_json(from_json(kind, to_json(value))) == to_json(value)


@given(EVIDENCE)
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_whole_file_survives_the_way_to_disk_and_back(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("evidence") / "evidence.json"
    path.write_text(to_json(value), encoding="utf-8")
    assert load_evidence(path) == value


@pytest.fixture
def small():
    model = evidence.ModelInfo("d", 1, 2, 3, 4, ("x",), ("y",))
    data = evidence.DataInfo("s", "f", 5, {"test": 5}, {"test": 1}, {"test": "h"})
    environment = evidence.Environment({"cores": 2, "load": {"now": 0.5}}, {"numpy": "2"})
    return Evidence("n", "c", "v", "r", model, model, (), data, (), environment)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_is_not_finite_is_not_written(small, number):
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json(Interval(0.0, number, 0.95, "bootstrap"))
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json(dataclasses.replace(small, environment=evidence.Environment({"load": {"now": number}}, {})))


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_a_number_that_is_not_finite_is_not_read(constant):
    text = to_json(Interval(0.0, 1.0, 0.95, "bootstrap")).replace("1.0", constant)
    with pytest.raises(StoreError, match=f"here: not valid JSON: {constant} is not a number"):
        from_json(Interval, text, "here")


@pytest.mark.parametrize("text", ["", "{", b"\xff", "[" * 100_000])
def test_what_is_no_json_is_told(text):
    with pytest.raises(StoreError, match="here: not valid JSON"):
        from_json(Interval, text, "here")


def test_a_wrong_value_is_named_by_its_key(small):
    plain = json.loads(to_json(small))
    plain["model"]["macs"] = "many"
    with pytest.raises(StoreError, match=r"here: not a valid Evidence: model\.macs: "):
        from_json(Evidence, json.dumps(plain), "here")


@pytest.mark.parametrize("schema", [2, 0, "1"])
def test_another_schema_is_refused_even_where_nothing_else_fits(tmp_path, small, schema):
    path = tmp_path / "evidence.json"
    path.write_text(json.dumps({**json.loads(to_json(small)), "schema": schema}))
    with pytest.raises(StoreError, match=f"schema {schema}; this version reads 1"):
        load_evidence(path)
    path.write_text(json.dumps({"schema": schema, "all": "different"}))
    with pytest.raises(StoreError, match=f"schema {schema}; this version reads 1"):
        load_evidence(path)


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(StoreError, match=r"evidence\.json: No such file"):
        load_evidence(tmp_path / "evidence.json")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_results_are_frozen(kind):
    assert kind.__dataclass_params__.frozen


def test_a_placement_counts_operators():
    operators = (evidence.Operators("Conv", 3, True), evidence.Operators("Gather", 1, False, "no kernel"))
    placed = Placement("int8", operators)
    assert (placed.total, placed.accelerated, placed.share) == (4, 3, 0.75)
    assert Placement("int8", ()).share == 0


def test_memory_above_an_empty_worker_is_never_negative():
    assert Memory(peak_bytes=5, empty_bytes=3).above_empty_bytes == 2
    assert Memory(peak_bytes=3, empty_bytes=5).above_empty_bytes == 0


def test_a_verdict_gives_the_reasons_of_the_rules_that_did_not_pass():
    rules = (
        evidence.RuleResult("auc", "PASS", "fine"),
        evidence.RuleResult("size", "FAIL", "too large"),
        evidence.RuleResult("latency", "INCONCLUSIVE", "too noisy"),
    )
    assert evidence.Verdict("FAIL", rules).reason == "too large; too noisy"


def test_a_candidate_finds_its_metrics_by_name_and_layers_are_counted():
    metric = Metric("auc", 0.8, 0.8, 0.0, None, True, 10)
    candidate = evidence.Candidate("int8-static", metrics=(metric,))
    assert candidate.metric("auc") is metric
    assert candidate.metric("ks") is None
    layers = (
        evidence.LayerOutcome("a", "linear", (), "int8"),
        evidence.LayerOutcome("b", "linear", (), "float32", "excluded"),
        evidence.LayerOutcome("c", "linear", (), "float16"),
    )
    assert evidence.ArtifactInfo("s", "r", "f", "0", 1, (), (), layers).quantized == 2
