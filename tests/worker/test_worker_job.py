from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from compress.worker.errors import JobError
from compress.worker.job import parse_job, read_json, write_result

GOOD: dict[str, Any] = {
    "schema": 1,
    "action": "latency",
    "runtime": "onnxruntime",
    "artifact": "a.onnx",
    "inputs": "i.npz",
    "result": "r.json",
}


def test_a_job_keeps_what_it_says_and_defaults_the_rest() -> None:
    job = parse_job({**GOOD, "threads": 2, "cpus": [0, 3], "seconds": 1})
    assert (job.threads, job.cpus, job.seconds, job.batch, job.precision) == (2, (0, 3), 1, 1, "float")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 2}, "schema 2"),
        ({"action": "train"}, "one of outputs, latency, duel, sparse, profile, describe, build, empty; got 'train'"),
        ({"precision": "int4"}, "precision must be one of float, int8"),
        ({"thread": 2}, "unknown key 'thread'"),
        ({"threads": 0}, "threads must be at least 1; got 0"),
        ({"threads": True}, "threads must be int"),
        ({"threads": "2"}, "threads must be int; got '2'"),
        ({"cpus": ["a"]}, "cpus must be"),
        ({"seconds": float("nan")}, "seconds must be a number of seconds"),
        ({"artifact": ""}, "'latency' needs the key 'artifact'"),
        ({"action": "duel"}, "'duel' needs the key 'rival'"),
        ({"flip": 1}, "flip must be bool; got 1"),
        ({"calls": 0}, "calls must be at least 1; got 0"),
        ({"pause_s": -1}, "pause_s must be a number of seconds; got -1"),
        ({"rival_threads": -1}, "rival_threads must be at least 0; got -1"),
    ],
)
def test_a_wrong_job_is_refused_by_key_and_value(change: dict[str, Any], message: str) -> None:
    with pytest.raises(JobError) as error:
        parse_job({**GOOD, **change})
    assert message in error.value.message


@pytest.mark.parametrize("key", ["action", "runtime", "result"])
def test_a_missing_key_is_named(key: str) -> None:
    with pytest.raises(JobError, match=f"'{key}' is missing"):
        parse_job({name: value for name, value in GOOD.items() if name != key})


def test_a_job_without_a_schema_is_refused() -> None:
    with pytest.raises(JobError, match="schema None"):
        parse_job({key: value for key, value in GOOD.items() if key != "schema"})


@pytest.mark.parametrize("text", ["", "[1]", "{"])
def test_a_file_that_is_no_json_object_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "job.json"
    path.write_text(text)
    with pytest.raises(JobError, match=r"job\.json"):
        read_json(path)


def test_a_result_is_written_whole_with_its_schema(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write_result(path, {"rows": 3})
    assert json.loads(path.read_text()) == {"schema": 1, "rows": 3}
    with pytest.raises(ValueError, match="JSON compliant"):
        write_result(path, {"rows": float("nan")})
    assert json.loads(path.read_text()) == {"schema": 1, "rows": 3}
    assert not list(tmp_path.glob("*.partial"))
