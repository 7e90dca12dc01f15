"""Small registries for the tests: approvals of made-up files, and what a registry looks like from outside."""

from __future__ import annotations

import json
from pathlib import Path

from compress.store.ledger import Entry, Shipped, state_of
from compress.store.ledger_registry import Registry

WHEN = "2026-03-01T09:00:00+00:00"
WHO = "Ada Byron <ada@bank.example>"


def approve(registry: Registry, mark: str, model: str = "credit", sign=None, when: str = WHEN, who: str = WHO) -> Entry:
    """Appends an approval of files that hold `mark`, as the workflow does."""
    with registry.locked():
        files = {
            "artifacts/model.onnx": registry.put(f"model {mark}".encode()),
            "evidence.json": registry.put(f'{{"mark": "{mark}"}}'.encode()),
            "report.md": registry.put(b"the same in every release"),
        }
        log = registry.sound()
        number = log.head.sequence + 1
        record = files["artifacts/model.onnx"]
        shipped = Shipped(record.sha256, record.size_bytes, "artifacts/model.onnx", "int8-static")
        entry = Entry(
            number,
            log.head.sha256,
            "approve",
            model,
            number,
            {"phone": shipped},
            files,
            files["evidence.json"].sha256,
            "PASS",
            "",
            who,
            when,
            f"because {mark}",
            "0.1.0",
            sign is not None,
        )
        registry.append(entry, sign)
    return entry


def rollback(registry: Registry, to: int, model: str = "credit") -> Entry:
    """Appends a rollback, as the workflow does."""
    with registry.locked():
        log = registry.sound()
        origin = state_of(log.entries, model).releases[to]
        entry = Entry(
            log.head.sequence + 1,
            log.head.sha256,
            "rollback",
            model,
            to,
            origin.targets,
            origin.files,
            origin.evidence,
            origin.status,
            "",
            WHO,
            WHEN,
            "incident 12",
            "0.1.0",
            False,
        )
        registry.append(entry)
    return entry


def in_force(registry: Registry, model: str = "credit") -> str:
    """What a deployment reads: through the pointer, nothing else."""
    return (registry.folder / "models" / model / "current" / "artifacts" / "model.onnx").read_text()


def lines(registry: Registry) -> list[bytes]:
    return (registry.folder / "log.jsonl").read_bytes().splitlines(keepends=True)


def write_lines(registry: Registry, content: list[bytes]) -> None:
    (registry.folder / "log.jsonl").write_bytes(b"".join(content))


def edited(line: bytes, **values: object) -> bytes:
    """The line with other values, in the form in which entries are written."""
    return json.dumps({**json.loads(line), **values}, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def leftovers(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.tmp"))
