from __future__ import annotations

import os

import numpy as np
import pytest
from PIL import Image

from compress.data import images as images_module
from compress.data import load_dataset
from compress.data.base import TensorSpec
from compress.errors import DataError, MissingPackageError
from compress.recipe import DataConfig

CLASSES = ("cat", "dog", "eel")


def save(path, value, size=(6, 4), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (size[1], size[0]), value if mode == "L" else (value, 0, 255 - value)).save(path)


@pytest.fixture
def photos(tmp_path):
    """Three classes of 20 pictures; the red of each is its number."""
    for index, name in enumerate(CLASSES):
        for row in range(20):
            save(tmp_path / "photos" / name / f"{row:03}.png", 20 * index + row)
    return tmp_path / "photos"


def load(folder, label=None, **config):
    image = {"size": (6, 4), "scale": 1.0, **config.pop("image", {})}
    return load_dataset(
        DataConfig.model_validate({"source": "photos", "image": image, "label": label, **config}), folder.parent
    )


def test_what_a_folder_becomes(photos):
    dataset = load(photos)
    assert dataset.rows == 60
    assert dataset.ids[[0, 20, 59]].tolist() == ["cat/000.png", "dog/000.png", "eel/019.png"]
    assert dataset.labels["class"].tolist() == [0] * 20 + [1] * 20 + [2] * 20
    assert dataset.categories == {"class": CLASSES}
    assert dataset.reader.signature() == (TensorSpec("image", (3, 6, 4), "float32"),)
    assert dataset.notes == ()
    assert dataset.source == "photos"


def test_rows_are_read_in_the_order_asked_for(photos):
    read = load(photos).reader.read(np.array([59, 0, 21]))["image"]
    assert read.shape == (3, 3, 6, 4)
    assert read.dtype == np.float32
    assert read[:, 0, 0, 0].tolist() == [59, 0, 21]
    assert load(photos).reader.read(np.array([], np.int64))["image"].shape == (0, 3, 6, 4)


def test_only_the_rows_asked_for_are_decoded(photos, monkeypatch):
    dataset = load(photos)
    seen = []
    decode = images_module.decode

    def counting(content, path):
        seen.append(path.name)
        return decode(content, path)

    monkeypatch.setattr(images_module, "decode", counting)
    dataset.reader.read(np.array([3, 5]))
    assert seen == ["003.png", "005.png"]


def test_the_label_has_the_name_that_the_recipe_gives(photos):
    dataset = load(photos, label="animal", split={"by": "stratified"})
    assert list(dataset.labels) == ["animal"]
    assert dataset.categories == {"animal": CLASSES}
    assert np.bincount(dataset.labels["animal"][dataset.splits["test"]]).tolist() == [4, 4, 4]


def test_the_recipe_may_fix_the_order_of_the_classes(photos):
    dataset = load(photos, categories={"class": ("eel", "cat", "dog")})
    assert dataset.ids[0] == "cat/000.png"
    assert dataset.labels["class"][[0, 20, 40]].tolist() == [1, 2, 0]
    assert dataset.categories == {"class": ("eel", "cat", "dog")}


def test_fingerprint_follows_content_preparation_and_classes(photos):
    first = load(photos).fingerprint()
    assert load(photos).fingerprint() == first
    assert load(photos, image={"mean": (1.0, 1.0, 1.0)}).fingerprint() != first
    assert load(photos, categories={"class": ("eel", "cat", "dog")}).fingerprint() != first
    save(photos / "cat" / "000.png", 200)
    assert load(photos).fingerprint() != first


def test_order_does_not_depend_on_the_file_system(photos, monkeypatch):
    listed = os.listdir
    first = load(photos)
    monkeypatch.setattr(os, "listdir", lambda folder: listed(folder)[::-1])
    assert load(photos).fingerprint() == first.fingerprint()


def test_a_row_keeps_its_split_when_others_come(photos):
    before = load(photos)
    kept = {name: set(before.ids[rows].tolist()) for name, rows in before.splits.items()}
    save(photos / "cat" / "0000-new.png", 1)
    after = load(photos)
    for name, rows in after.splits.items():
        assert set(after.ids[rows].tolist()) - {"cat/0000-new.png"} == kept[name]


def test_folders_in_a_class_hidden_files_and_loose_files(photos):
    save(photos / "dog" / "small" / "x.png", 9)
    (photos / "dog" / ".DS_Store").write_bytes(b"x")
    (photos / ".cache").mkdir()
    (photos / "LICENSE.txt").write_text("free")
    dataset = load(photos)
    assert "dog/small/x.png" in dataset.ids.tolist()
    assert dataset.rows == 61
    assert dataset.notes == ("not read, for it lies in no class folder: 'LICENSE.txt'.",)


def test_a_noted_rotation_is_said_and_not_carried_out(photos):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (4, 6)).save(photos / "cat" / "turned.jpg", exif=exif)
    assert load(photos).notes == ("1 of 61 pictures ask to be rotated (EXIF); they are read as stored.",)


def test_a_file_that_changes_after_loading(photos):
    dataset = load(photos)
    save(photos / "cat" / "002.png", 77)
    with pytest.raises(DataError, match=r"cat/002\.png: the file changed"):
        dataset.reader.read(np.array([1, 2]))
    (photos / "cat" / "001.png").unlink()
    with pytest.raises(DataError, match=r"cat/001\.png: cannot be read as an image"):
        dataset.reader.read(np.array([1]))


def broken_png(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (broken_png, "or its beginning is damaged"),
        (lambda path: path.write_bytes(b""), "the file is empty"),
        (lambda path: path.write_bytes(b"no picture"), "not a picture in a known format"),
        (lambda path: (path.unlink(), path.symlink_to("nowhere.png")), "not a file"),
        (lambda path: (path.unlink(), os.mkfifo(path)), "not a file"),
        (lambda path: (path.unlink(), path.symlink_to(path.parent)), "not a file"),
    ],
)
def test_broken_files_are_named_when_the_folder_is_loaded(photos, spoil, message):
    spoil(photos / "dog" / "007.png")
    with pytest.raises(DataError, match=message) as error:
        load(photos)
    assert "photos/dog/007.png" in error.value.message
    assert error.value.hint


def test_a_file_that_is_too_large(photos, monkeypatch):
    monkeypatch.setattr(images_module, "MAX_IMAGE_BYTES", 10)
    with pytest.raises(DataError, match=r"cat/000\.png: \d+ bytes; a picture may have 10"):
        load(photos)


@pytest.mark.parametrize("name", ["a\nb.png", "a\udcff.png"])
def test_a_name_that_cannot_be_printed(photos, name):
    (photos / "cat" / "000.png").rename(photos / "cat" / name)
    with pytest.raises(DataError, match="characters that cannot be printed"):
        load(photos)


def test_an_empty_class(photos):
    (photos / "fox").mkdir()
    with pytest.raises(DataError, match=r"photos/fox: the class has no pictures"):
        load(photos)


@pytest.mark.parametrize(("kept", "message"), [(["cat"], "there is one folder, 'cat'"), ([], "there is none")])
def test_fewer_than_two_classes(tmp_path, kept, message):
    (tmp_path / "photos").mkdir()
    for name in kept:
        save(tmp_path / "photos" / name / "0.png", 1)
    with pytest.raises(DataError, match=message):
        load(tmp_path / "photos")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"source": "photo"}, "data.source: .*photo is no folder"),
        ({"source": "rows.csv"}, "rows.csv is no folder, and data.image prepares the pictures of one"),
        ({"image": {"size": (0, 4)}}, r"data.image.size must be a height and a width from 1 to 4096; got \[0, 4\]"),
        ({"image": {"mean": (0.5,)}}, 'data.image.mean has 1 numbers, and mode = "RGB" has 3 channels'),
        ({"image": {"mode": "L", "std": (1.0, 1.0)}}, 'data.image.std has 2 numbers, and mode = "L" has 1 channel'),
        ({"image": {"std": (1.0, 0.0, 1.0)}}, "data.image.std must be above 0"),
        ({"labels": {"a": "b"}}, "data.labels means nothing for photos"),
        ({"sensitive": ("sex",)}, "data.sensitive means nothing for photos"),
        ({"missing": "error"}, "data.missing: no pixel can be missing"),
        ({"split": {"by": "time", "column": "day"}}, "needs a column, and pictures have none"),
        ({"categories": {"kind": CLASSES}}, "data.categories: there is no label 'kind'"),
        ({"categories": {"class": ("cat", "dog")}}, "data.categories.class: the folder 'eel' of .* is not listed"),
        ({"categories": {"class": (*CLASSES, "fox")}}, "data.categories.class: .* has no folder 'fox'"),
        ({"categories": {"class": (*CLASSES, "cat")}}, "data.categories.class lists 'cat' twice"),
    ],
)
def test_what_the_recipe_cannot_ask_for(photos, config, message):
    with pytest.raises(DataError, match=message) as error:
        load(photos, **config)
    assert error.value.hint


def test_a_folder_without_preparation(photos):
    with pytest.raises(DataError, match="nothing says how they are prepared") as error:
        load_dataset(DataConfig(source="photos"), photos.parent)
    assert "[data.image]" in error.value.hint


def test_without_pillow(photos, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "PIL.Image", None)
    with pytest.raises(MissingPackageError) as error:
        load(photos)
    assert error.value.hint == "pip install 'edge-compress[images]'"
