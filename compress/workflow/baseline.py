"""Baselines: small files in the repository that say what was measured, and the artifacts in a store of their own."""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from compress.bench.verdicts import Figures
from compress.errors import BusyError, StoreError
from compress.evidence import Environment, Operators
from compress.schema import Strict, validate
from compress.store.atomic import stated, write_atomic
from compress.store.cache import Cache, digest
from compress.worker.arrays import write_arrays

SCHEMA = 1
FOLDER = Path("benchmarks") / "baselines"
STORE = Path(".edge-compress") / "baselines"
STORE_VARIABLE = "EDGE_COMPRESS_STORE"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SHA = r"^[0-9a-f]{64}$"
_HAND = "baseline files are written by `edge-compress baseline save`; take the committed version back, or save again."


class StoredOperators(Strict):
    """Operators of one kind; see `compress.evidence.Operators`."""

    operator: str
    count: int = Field(ge=0)
    accelerated: bool
    reason: str = ""


class StoredFigures(Strict):
    """The baseline's figures when it was saved; see `compress.bench.verdicts.Figures`."""

    size_bytes: int = Field(ge=0)
    memory_bytes: int = Field(ge=0)
    load_ms: float = Field(gt=0)
    first_ms: float = Field(gt=0)
    median_ms: float = Field(gt=0)
    operators: tuple[StoredOperators, ...]

    def figures(self) -> Figures:
        """The same as evidence."""
        plain = self.model_dump(exclude={"operators"})
        return Figures(**plain, operators=tuple(Operators(**item.model_dump()) for item in self.operators))


class Entry(Strict):
    """One baseline of a model on a target.

    `source` is where its successor is found, relative to the project: an output folder of `run`, or a model file.
    `rows` tells what was fed for timing: `synthetic` rows hold nobody's data.
    """

    sha256: str = Field(pattern=_SHA)
    file: str = Field(min_length=1)
    source: str = Field(min_length=1)
    runtime: str
    precision: Literal["float", "int8"]
    threads: int = Field(ge=1, le=256)
    batch: int = Field(ge=1)
    rows: Literal["synthetic"]
    inputs_sha256: str = Field(pattern=_SHA)
    figures: StoredFigures
    machine: dict[str, str]
    packages: dict[str, str]
    created: str


class BaselineFile(Strict):
    """`benchmarks/baselines/<target>/<model>.json`."""

    schema_: Literal[1] = Field(alias="schema")
    model: str
    target: str
    baselines: dict[str, Entry]


def check_name(name: str, what: str) -> str:
    """Returns a name that may become part of a path.

    Raises:
        StoreError: If it may not.
    """
    if not _NAME.fullmatch(name):
        raise StoreError(
            f"{what} {name!r} is no name", "use letters, digits, '.', '_' and '-', at most 64, a letter or digit first."
        )
    return name


def store_folder(project: Path, given: Path | None) -> Path:
    """Returns the folder of baseline artifacts: as given, by `EDGE_COMPRESS_STORE`, or the project's own."""
    if given is not None:
        return given
    named = os.environ.get(STORE_VARIABLE)
    return Path(named) if named else project / STORE


class Baselines:
    """The baselines of a project: files under `benchmarks/baselines`, artifacts in a content-addressed store."""

    def __init__(self, project: Path, store: Path) -> None:
        self.project = project
        self.folder = project / FOLDER
        self.store = Cache(store)

    def read(self) -> tuple[BaselineFile, ...]:
        """Reads every baseline file, by target and model.

        Raises:
            StoreError: If one is damaged, was written by hand wrongly, or lies where its content does not belong.
        """
        return tuple(self._read(path) for path in sorted(self.folder.glob("*/*.json")))

    def save(self, name: str, model: str, target: str, entry: Entry, artifact: bytes, inputs: bytes) -> Path:
        """Stores an artifact and its rows, then writes the baseline's entry."""
        check_name(name, "baseline")
        path = self.folder / check_name(target, "target") / f"{check_name(model, 'model')}.json"
        for data in (artifact, inputs):
            self.put(data)
        kept = self._read(path).baselines if path.exists() else {}
        whole = BaselineFile(schema=1, model=model, target=target, baselines={**kept, name: entry})
        text = json.dumps(whole.model_dump(mode="json", by_alias=True), indent=1, sort_keys=True, allow_nan=False)
        write_atomic(path, text.encode() + b"\n")
        return path

    def put(self, data: bytes) -> str:
        """Stores bytes under their hash and returns it."""
        sha = digest(data)
        if self.store.blob(sha) is None:
            write_atomic(self.store.path(sha), data)
        return sha

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps a second check of this store away: two at once would measure each other.

        Raises:
            BusyError: If another one is under way.
        """
        with stated(self.store.folder):
            self.store.folder.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.store.folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise BusyError(
                    f"{self.store.folder}: another check or baseline is being measured here; nothing was measured",
                    "wait for it to end: two at once would disturb each other's times.",
                ) from error
            yield
        finally:
            os.close(lock)

    def _read(self, path: Path) -> BaselineFile:
        where = str(path.relative_to(self.project))
        try:
            values = json.loads(path.read_bytes(), parse_constant=_refuse)
        except (OSError, ValueError, RecursionError) as error:
            raise StoreError(f"{where}: cannot be read: {error}", _HAND) from error
        if not isinstance(values, dict):
            raise StoreError(f"{where}: must hold a JSON object", _HAND)
        try:
            found = validate(BaselineFile, values, where, StoreError)
        except StoreError as error:
            raise StoreError(error.message, _HAND) from error
        if (found.target, found.model) != (path.parent.name, path.stem):
            raise StoreError(f"{where}: says it is {found.model!r} on {found.target!r}", _HAND)
        return found


def new_entry(
    *,
    file: str,
    source: str,
    runtime: str,
    precision: Literal["float", "int8"],
    threads: int,
    artifact: bytes,
    inputs: bytes,
    batch: int,
    figures: Figures,
    environment: Environment,
) -> Entry:
    """Returns the entry of an artifact that was just measured."""
    plain = asdict(figures)
    return Entry(
        sha256=digest(artifact),
        file=file,
        source=source,
        runtime=runtime,
        precision=precision,
        threads=threads,
        batch=batch,
        rows="synthetic",
        inputs_sha256=digest(inputs),
        figures=StoredFigures(**{**plain, "operators": tuple(StoredOperators(**item) for item in plain["operators"])}),
        machine=fingerprint(environment),
        packages=dict(environment.packages),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


def fingerprint(environment: Environment) -> dict[str, str]:
    """Returns what of a machine decides about times, as texts."""
    machine = environment.machine
    return {
        "cpu": str(machine.get("cpu")),
        "features": " ".join(machine.get("features", ())),
        "cores": str(machine.get("allowed_cores")),
        "system": f"{machine.get('system')} {machine.get('kernel')}",
        "python": str(machine.get("python")),
    }


def pack(arrays: Mapping[str, NDArray[np.generic]]) -> bytes:
    """Returns arrays as the bytes of an `.npz`, the same bytes for the same arrays."""
    with tempfile.TemporaryDirectory(prefix="edge-compress-") as folder:
        path = Path(folder) / "rows.npz"
        write_arrays(path, arrays)
        return path.read_bytes()


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no number")
