from __future__ import annotations

import json
from pathlib import Path

import pytest
from check_kit import Bench, LocalHost, write_model
from cli_command import Command


@pytest.fixture
def guarded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    made = Bench(tmp_path / "project")
    monkeypatch.setattr(LocalHost, "run", lambda host, job, timeout_s: made.answer(job, timeout_s))
    monkeypatch.delenv("EDGE_COMPRESS_STORE", raising=False)
    return made


def test_save_list_check_in_one_project(guarded: Bench, command: Command) -> None:
    said = command("baseline", "list", folder=guarded.folder)
    assert "no baselines" in said.out
    said = command("baseline", "save", "main", "model.onnx", folder=guarded.folder)
    assert said.code == 0
    assert "model on onnxruntime-cpu: model.onnx" in said.out
    assert "artifact there" in command("baseline", "list", folder=guarded.folder).out
    assert command("check", folder=guarded.folder).code == 0
    guarded.change()
    guarded.ratio = 1.1
    said = command("check", "--github", folder=guarded.folder)
    assert said.code == 1
    assert "SLOWER" in said.out
    assert "::error title=latency of model on onnxruntime-cpu" in said.out


def test_every_file_that_was_asked_for_is_written(guarded: Bench, command: Command) -> None:
    guarded.save()
    pytest.importorskip("matplotlib")
    files = {"--junit": "j.xml", "--markdown": "m.md", "--json": "r.json", "--history": "h/h.jsonl", "--trend": "t.png"}
    flags = [part for pair in files.items() for part in pair]
    for _ in range(2):
        assert command("check", "--store", "store", *flags, folder=guarded.folder).code == 0
    assert all((guarded.folder / name).stat().st_size for name in files.values())
    assert len((guarded.folder / "h/h.jsonl").read_text().splitlines()) == 2
    said = command("check", "--store", "store", "--json", "-", folder=guarded.folder)
    assert json.loads(said.out)["rows"][0]["verdict"] == "SAME"


def test_zero_benchmarks_exit_3_with_the_next_command(guarded: Bench, command: Command) -> None:
    said = command("check", "--junit", "j.xml", folder=guarded.folder)
    assert said.code == 3
    assert "nothing was measured, which is no pass" in said.out
    assert "baseline save main OUT" in said.err
    assert 'errors="1"' in (guarded.folder / "j.xml").read_text()


def test_a_gone_artifact_exits_3_and_restore_mends_it(guarded: Bench, command: Command) -> None:
    command("baseline", "save", "main", "model.onnx", folder=guarded.folder)
    guarded.change()
    said = command("check", "--store", "elsewhere", folder=guarded.folder)
    assert said.code == 3
    assert "baseline restore main --from" in said.out.replace("\n", " ")
    said = command("baseline", "restore", "main", "--store", "elsewhere", folder=guarded.folder)
    assert said.code == 3
    first = ("--from", guarded.folder / ".edge-compress/baselines")
    said = command("baseline", "restore", "main", *first, "--store", "elsewhere", folder=guarded.folder)
    assert said.code == 0
    assert command("check", "--store", "elsewhere", folder=guarded.folder).code == 0


def test_a_busy_store_exits_3(guarded: Bench, command: Command) -> None:
    guarded.save()
    with guarded.baselines.locked():
        said = command("check", "--store", guarded.folder / "store", folder=guarded.folder)
    assert said.code == 3
    assert "nothing was measured" in said.err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--candidate", "credit"), "must be MODEL=FILE"),
        (("--python-baseline", "python3"), "belong together"),
        (("--trend", "t.png"), "draws the history"),
        (("--tolerance", "7"), "--tolerance"),
        (("--against",), "requires an argument"),
    ],
)
def test_usage_errors_exit_2(guarded: Bench, command: Command, flags: tuple[str, ...], message: str) -> None:
    said = command("check", *flags, folder=guarded.folder)
    assert said.code == 2
    assert message in said.err


def test_bench_prints_figures_and_writes_files(guarded: Bench, command: Command) -> None:
    write_model(guarded.folder / "b.onnx", "v2")
    guarded.ratio = 0.5
    quick = ("--sparse", "0", "--pairs", "5", "--batch", "1,2")
    said = command("bench", "model.onnx", "b.onnx", *quick, "--json", "b.json", folder=guarded.folder)
    assert said.code == 0
    assert "b.onnx: 0.50x" in said.out
    assert "FASTER" in said.out
    assert json.loads((guarded.folder / "b.json").read_text())["rows"].startswith("2 synthetic rows")


@pytest.mark.parametrize("text", ["0", "a", "1,,2", "-1", ""])
def test_a_wrong_batch_is_refused(guarded: Bench, command: Command, text: str) -> None:
    said = command("bench", "model.onnx", "--batch", text, folder=guarded.folder)
    assert said.code == 2
    assert "--batch must be whole numbers" in said.err
