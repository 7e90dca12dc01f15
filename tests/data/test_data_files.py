from __future__ import annotations

import gzip
import io
import os
import zipfile

import numpy as np
import pandas as pd
import pytest

from compress.data import files, load_dataset
from compress.errors import DataError, MissingPackageError
from compress.recipe import DataConfig

CSV = "id,x,y\n" + "".join(f"{row},{row * 0.5},{row % 2}\n" for row in range(200))


def load(folder, name, content=None, **config):
    if content is not None:
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return load_dataset(DataConfig(**{"source": name, "id": "id", "label": "y", **config}), folder)


def npz(**arrays):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def parquet():
    buffer = io.BytesIO()
    pd.read_csv(io.StringIO(CSV)).to_parquet(buffer)
    return buffer.getvalue()


WHOLE = {
    "rows.csv": CSV.encode(),
    "rows.csv.gz": gzip.compress(CSV.encode()),
    "rows.parquet": parquet(),
    "rows.npz": npz(id=np.arange(200), x=np.random.default_rng(0).normal(size=200), y=np.arange(200) % 2),
}


@pytest.mark.parametrize("name", WHOLE)
def test_whole_files_are_read(tmp_path, name):
    assert load(tmp_path, name, WHOLE[name]).rows == 200


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("content", [b"", b"\x00\xff\xfe\x80garbage" * 50, b"\n\n\n", b"PK\x03\x04" + b"\x00" * 90])
def test_garbage_is_a_data_error_that_names_the_file(tmp_path, name, content):
    with pytest.raises(DataError) as error:
        load(tmp_path, name, content)
    assert str(tmp_path / name) in error.value.message
    assert error.value.hint


@pytest.mark.parametrize("name", WHOLE)
def test_every_cut_is_a_data_error(tmp_path, name):
    content = WHOLE[name]
    for length in sorted({1, 2, 10, 18, len(content) // 3, len(content) // 2, len(content) - 9, len(content) - 2}):
        if name == "rows.csv" and content[:length].endswith((b",0", b",1", b"\n")):
            continue
        with pytest.raises(DataError) as error:
            load(tmp_path, name, content[:length])
        assert name in error.value.message, length


@pytest.mark.parametrize("name", ["rows.csv.gz", "rows.npz", "rows.parquet"])
def test_flipped_bytes_are_a_data_error_or_harmless(tmp_path, name):
    random = np.random.default_rng(0)
    for _ in range(60):
        content = bytearray(WHOLE[name])
        content[random.integers(len(content))] ^= 1 << int(random.integers(8))
        try:
            load(tmp_path, name, bytes(content))
        except DataError as error:
            assert name in error.message


def test_a_file_that_is_not_what_its_ending_says(tmp_path):
    with pytest.raises(DataError, match=r"rows\.csv: cannot be read as CSV"):
        load(tmp_path, "rows.csv", WHOLE["rows.csv.gz"])
    with pytest.raises(DataError, match=r"rows\.csv\.gz: cannot be read as CSV: Not a gzipped file"):
        load(tmp_path, "rows.csv.gz", WHOLE["rows.csv"])
    with pytest.raises(DataError, match=r"rows\.parquet: cannot be read as Parquet"):
        load(tmp_path, "rows.parquet", WHOLE["rows.npz"])


def test_missing_and_unknown_files(tmp_path):
    (tmp_path / "rows.csv").write_text(CSV)
    with pytest.raises(DataError, match=r"recipe\.toml: data\.source: there is no file .*rovs\.csv") as error:
        load(tmp_path, "rovs.csv")
    assert "did you mean 'rows.csv'" in error.value.hint
    with pytest.raises(DataError, match="there is no file"):
        load(tmp_path, "nowhere/rows.csv")
    with pytest.raises(DataError, match=r"'rows\.xlsx' is no kind of data that is known") as error:
        load(tmp_path, "rows.xlsx", b"x")
    assert ".csv, .csv.gz, .parquet, .npz" in error.value.hint


def test_a_huge_file_is_refused_unread(tmp_path):
    with (tmp_path / "rows.csv").open("wb") as file:
        os.truncate(file.fileno(), files.MAX_FILE_BYTES + 1)
    with pytest.raises(DataError, match=r"rows\.csv: 8,589,934,593 bytes"):
        load(tmp_path, "rows.csv")


@pytest.mark.parametrize("name", ["rows.csv.gz", "rows.npz", "rows.parquet"])
def test_a_file_that_expands_too_far_is_refused(tmp_path, name, monkeypatch):
    monkeypatch.setattr(files, "MAX_EXPANDED_BYTES", 2000)
    with pytest.raises(DataError, match=rf"{name}: more than 2,000 bytes when decompressed"):
        load(tmp_path, name, WHOLE[name])


def test_the_bound_counts_the_whole_stream(tmp_path, monkeypatch):
    rows = "".join(f"{row},{row},{row % 2}\n" for row in range(100_000))
    content = gzip.compress(f"id,x,y\n{rows}".encode(), 1)
    monkeypatch.setattr(files, "MAX_EXPANDED_BYTES", 1_000_000)
    with pytest.raises(DataError, match="more than 1,000,000 bytes when decompressed"):
        load(tmp_path, "rows.csv.gz", content)
    monkeypatch.setattr(files, "MAX_EXPANDED_BYTES", len(rows) + 7)
    assert load(tmp_path, "rows.csv.gz", content).rows == 100_000


def test_an_array_that_claims_more_than_it_has(tmp_path):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": (1 << 40, 3)})
    with zipfile.ZipFile(tmp_path / "rows.npz", "w") as archive:
        archive.writestr("x.npy", stream.getvalue() + b"\0" * 24)
    with pytest.raises(DataError, match=r"the array 'x' claims 13,194,139,533,312 bytes and has 24"):
        load(tmp_path, "rows.npz", id=None, label=None)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,x,x,y\n1,2,3,0\n", "duplicate column 'x'"),
        (",x,y\n0,2,0\n", "column 1 of 3 has no name"),
        ("id;x;y\n1;2;0\n", "one single column named 'id;x;y'"),
        ("id,x,y\n", "no rows"),
        ("id,x,y\n1,2,0\n2,3\n3,4,1\n", "line 3 has 2 fields, the header has 3"),
        ("id,x,y\n1,2,0\n2,3,1,9\n", "cannot be read as CSV"),
        ("id,x,y\n1,2,0,9\n2,3,1,9\n", "cannot be read as CSV"),
        ('id,x,y\n1,"2,0\n2,3,1\n', "cannot be read as CSV"),
        ("id,x,y\n1,2,0\n2,\xe9,1\n".encode("latin-1"), "cannot be read as CSV: 'utf-8' codec can't decode"),
    ],
)
def test_broken_csv(tmp_path, content, message):
    with pytest.raises(DataError, match=message) as error:
        load(tmp_path, "rows.csv", content)
    assert "rows.csv" in error.value.message


def test_blank_lines_and_quoted_breaks_are_fine(tmp_path):
    lines = [f"{row}," + ("c" if row % 2 == 0 else '"a\nb"') + f",{row or ''}" for row in range(60)]
    config = {"label": "x", "categories": {"x": ("c", "a\nb")}}
    dataset = load(tmp_path, "rows.csv", "\n\nid,x,y\n\n" + "\n\n".join(lines), **config)
    assert dataset.labels["x"].tolist() == [0, 1] * 30
    assert dataset.notes == ("missing values kept as NaN: y 1.",)


def test_parquet_without_pyarrow_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(MissingPackageError, match="pyarrow") as error:
        load(tmp_path, "rows.parquet", WHOLE["rows.parquet"])
    assert "edge-compress[parquet]" in error.value.hint
