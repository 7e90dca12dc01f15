"""Which rows a step sees, and what augmentation does to them."""

from __future__ import annotations

import numpy as np
import pytest
from train_kit import BINARY, dataset, rows_of

from compress.errors import DataError
from compress.passes.base import Task
from compress.passes.train.augment import Augment
from compress.passes.train.options import AugmentOptions
from compress.passes.train.rows import Order, class_groups, make_pool
from compress.passes.train.views import Views


def batches(order, epoch=1):
    return list(order.epoch(epoch))


@pytest.mark.parametrize("sampling", ["shuffle", "stratified", "balanced"])
def test_an_epoch_depends_on_seed_and_number_alone(sampling):
    groups = np.repeat([0, 1], [90, 10])
    order = Order(groups, 16, sampling, seed=4)
    assert [item.tolist() for item in batches(order)] == [item.tolist() for item in batches(order)]
    assert np.concatenate(batches(order, 1)).tolist() != np.concatenate(batches(order, 2)).tolist()
    assert [len(item) for item in batches(order)] == [16] * 6


def test_a_shuffled_epoch_has_no_row_twice():
    drawn = np.concatenate(batches(Order(np.zeros(100, np.int64), 16, "shuffle", 0)))
    assert len(set(drawn.tolist())) == 96


def test_fewer_rows_than_a_batch_make_one():
    (only,) = batches(Order(np.zeros(5, np.int64), 16, "shuffle", 0))
    assert sorted(only.tolist()) == [0, 1, 2, 3, 4]


def test_stratified_batches_hold_the_classes_in_their_shares():
    groups = np.repeat([0, 1, 2], [800, 160, 40])
    for rows in batches(Order(groups, 50, "stratified", 0)):
        counts = np.bincount(groups[rows], minlength=3)
        assert abs(counts[0] - 40) <= 2 and abs(counts[1] - 8) <= 2 and abs(counts[2] - 2) <= 1


def test_balanced_batches_show_every_class_alike_and_every_rare_row():
    groups = np.repeat([0, 1], [970, 30])
    drawn = batches(Order(groups, 50, "balanced", 0))
    assert all(abs(int(groups[rows].sum()) - 25) <= 2 for rows in drawn)
    assert set(range(970, 1000)) <= set(np.concatenate(drawn).tolist())


def test_rows_without_labels_come_behind_those_that_have_them():
    data = dataset(rows=50, unlabelled=20)
    pool = make_pool(data, "train", [BINARY], data.unlabelled)
    assert (pool.labelled, len(pool)) == (30, 50)
    positions = np.array([35, 2, 49, 0])
    read = pool.read(positions)["features"]
    np.testing.assert_array_equal(read[1], data.reader.read(np.array([2]))["features"][0])
    np.testing.assert_array_equal(read[2], data.unlabelled.reader.read(np.array([19]))["features"][0])
    assert class_groups(pool, [BINARY])[30:].tolist() == [-1] * 20
    assert make_pool(data, "train", [BINARY]).fingerprint() != pool.fingerprint()


def test_an_empty_split_and_a_task_without_classes_are_named():
    data = dataset(shares={"train": 0.0, "calibration": 0.5, "test": 0.5})
    with pytest.raises(DataError, match="the train split is empty"):
        make_pool(data, "train", [BINARY])
    number = Task("", "regression", "score", "amount", None)
    with pytest.raises(DataError, match="needs a task with classes"):
        class_groups(make_pool(dataset(), "train", [number]), [number])


def augmented(inputs, tokens=None, special=(), seed=0, **options):
    return Augment(AugmentOptions(**options), tokens or {}, special)(inputs, np.random.default_rng(seed))


def test_swapped_values_come_from_the_same_column():
    values = np.arange(4000, dtype=np.float32).reshape(1000, 4) % 4 * 1000 + np.arange(1000, dtype=np.float32)[:, None]
    mixed = augmented({"x": values}, swap=0.2).inputs["x"]
    assert np.array_equal(mixed // 1000, values // 1000)
    assert 0.17 < float((mixed != values).mean()) < 0.23
    assert values[0, 0] == 0


def test_mixed_rows_are_between_their_two():
    values = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
    mixed = augmented({"x": values, "code": np.arange(64)}, mixup=0.4)
    assert 0.5 <= mixed.share < 1
    wanted = mixed.share * values + (1 - mixed.share) * values[mixed.partner]
    np.testing.assert_allclose(mixed.inputs["x"], wanted, rtol=1e-5, atol=1e-6)
    assert mixed.inputs["x"].dtype == np.float32
    assert mixed.inputs["code"].tolist() == list(range(64))


def test_pictures_are_flipped_moved_and_cut():
    picture = np.arange(2 * 3 * 4, dtype=np.float32).reshape(1, 2, 3, 4).repeat(200, axis=0)
    flipped = augmented({"x": picture}, flip=True).inputs["x"]
    both = {tuple(item.reshape(-1)) for item in flipped}
    assert both == {tuple(picture[0].reshape(-1)), tuple(picture[0, :, :, ::-1].reshape(-1))}
    moved = augmented({"x": picture}, shift=1).inputs["x"]
    assert moved.shape == picture.shape and len({tuple(item.reshape(-1)) for item in moved}) == 9
    cut = augmented({"x": picture}, crop=0.5).inputs["x"]
    assert cut.shape == picture.shape and set(np.unique(cut)) <= set(np.unique(picture))
    assert np.array_equal(picture[0], picture[199])


def test_masked_tokens_leave_special_ones_and_other_inputs_alone():
    ids = np.tile(np.array([101, 7, 8, 9, 102, 0]), (500, 1))
    mask = (ids != 0).astype(np.int64)
    mixed = augmented({"ids": ids, "mask": mask}, tokens={"ids": 103}, special=(101, 102, 0, 103), mask=0.3)
    found = mixed.inputs["ids"]
    assert np.array_equal(found[:, [0, 4, 5]], ids[:, [0, 4, 5]])
    assert 0.25 < float((found[:, 1:4] == 103).mean()) < 0.35
    assert np.array_equal(mixed.inputs["mask"], mask) and mixed.share == 1


def views(count=3, seed=0):
    random = np.random.default_rng(1)
    inputs = {"picture": random.normal(size=(20, 1, 4, 6)).astype(np.float32)}
    data = rows_of(inputs, {"late": np.arange(20) % 2}, {"train": 1.0})
    augment = Augment(AugmentOptions(flip=True, shift=1, views=count), {})
    return Views(make_pool(data, "train", [BINARY]), augment, count, seed), inputs["picture"]


def test_a_form_of_a_row_is_the_same_whoever_reads_it():
    forms, pictures = views()
    assert len(forms) == 60
    np.testing.assert_array_equal(forms.read(np.arange(20))["picture"], pictures)
    whole = forms.read(np.arange(60))["picture"]
    some = np.array([47, 3, 29, 47])
    np.testing.assert_array_equal(forms.read(some)["picture"], whole[some])
    assert (whole[20:40] != pictures).any(axis=(1, 2, 3)).sum() >= 12
    assert (whole[40:] != whole[20:40]).any() and (views(seed=1)[0].read(np.arange(60))["picture"] != whole).any()


def test_every_form_is_drawn_alike():
    forms, _ = views()
    drawn = forms.draw(np.repeat(np.arange(20), 300), np.random.default_rng(0))
    assert np.array_equal(drawn % 20, np.repeat(np.arange(20), 300))
    assert np.abs(np.bincount(drawn // 20) / 6000 - 1 / 3).max() < 0.03


@pytest.mark.parametrize(
    "options",
    [
        {"views": 2, "mixup": 0.4},
        {"views": 2, "swap": 0.1, "flip": True},
        {"views": 2},
        {"views": 1, "flip": True},
    ],
)
def test_forms_that_one_row_cannot_have_are_refused(options):
    with pytest.raises(ValueError, match="views"):
        AugmentOptions(**options)
