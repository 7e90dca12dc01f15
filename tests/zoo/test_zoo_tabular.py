from __future__ import annotations

import pytest
import torch

from compress.errors import DataError, ModelError
from compress.zoo.scale import Standardise
from compress.zoo.tabular import CodeEmbedding, ft_transformer

NAN = float("nan")


def test_scales_are_those_of_the_known_values() -> None:
    scale = Standardise(3)
    scale.fit(torch.tensor([[[1.0, 5.0, NAN]], [[NAN, 5.0, NAN]], [[3.0, 5.0, NAN]]]))
    assert scale.mean.tolist() == [2.0, 5.0, 0.0]
    assert scale.std.tolist() == [1.0, 1.0, 1.0]
    assert set(scale.state_dict()) == {"mean", "std"}
    assert scale(torch.tensor([[4.0, NAN, 1.0]])).tolist() == [[2.0, 0.0, 1.0]]


def test_large_amounts_keep_their_spread() -> None:
    scale, values = Standardise(1), 1e8 + 64 * torch.arange(100.0)[:, None]
    scale.fit(values)
    assert float(scale.std) == pytest.approx(float(values.double().std(correction=0)), rel=1e-3)


def test_outliers_end_at_eight_deviations() -> None:
    assert Standardise(3)(torch.tensor([[float("inf"), -1e30, 7.5]])).tolist() == [[8.0, -8.0, 7.5]]


def test_scales_refuse_what_they_cannot_fit() -> None:
    with pytest.raises(DataError, match="2 features are given, the model has 3"):
        Standardise(3).fit(torch.zeros(4, 2))
    with pytest.raises(DataError, match="infinite"):
        Standardise(1).fit(torch.tensor([[float("inf")]]))


def test_each_code_has_a_row_of_its_own_and_unknown_ones_share_one() -> None:
    codes = CodeEmbedding([2, 3], 4)
    assert codes.table.weight.shape == (7, 4)
    assert list(codes.state_dict()) == ["table.weight"]
    with torch.no_grad():
        codes.table.weight.copy_(torch.arange(7.0)[:, None].expand(7, 4))
    looked_up = codes(torch.tensor([[0, 0], [1, 2], [-1, 3], [2, -9]]))[..., 0]
    assert looked_up.tolist() == [[1, 4], [2, 6], [0, 3], [0, 3]]


def test_a_missing_number_counts_as_the_mean() -> None:
    model = ft_transformer(numeric=3, categories=[4], width=8, heads=2, classes=2).eval()
    model.trunk.scale.fit(torch.randn(50, 3) * 5 + 3)
    numeric, codes = torch.randn(6, 3), torch.randint(-1, 5, (6, 1))
    numeric[:3, 1] = NAN
    filled = torch.where(torch.isnan(numeric), model.trunk.scale.mean, numeric)
    scores = model(numeric, codes)["scores"]
    assert torch.isfinite(scores).all()
    torch.testing.assert_close(scores, model(filled, codes)["scores"])


def test_rows_do_not_see_each_other() -> None:
    model = ft_transformer(numeric=3, width=8, heads=2).eval()
    rows = torch.randn(5, 3)
    torch.testing.assert_close(model(rows)["scores"][2:3], model(rows[2:3])["scores"])


def test_every_feature_is_read() -> None:
    torch.manual_seed(0)
    model = ft_transformer(numeric=2, categories=[3, 3], width=8, heads=2).eval()
    numeric, codes = torch.zeros(1, 2), torch.zeros(1, 2, dtype=torch.int64)
    before = model(numeric, codes)["scores"]
    for column in range(2):
        one_hot = torch.zeros(1, 2)
        one_hot[0, column] = 1
        assert not torch.allclose(model(numeric + one_hot, codes)["scores"], before, atol=1e-6)
        assert not torch.allclose(model(numeric, codes + one_hot.long())["scores"], before, atol=1e-6)


@pytest.mark.parametrize(
    ("categories", "inputs", "message"),
    [
        ([], (torch.zeros(2, 1),), "1 features are fed to a model of 3"),
        ([4, 4], (torch.zeros(2, 3), torch.zeros(2, 1, dtype=torch.int64)), "1 features of codes .* model of 2"),
        ([4], (torch.zeros(2, 3),), "'categories'"),
        ([], (torch.zeros(2, 3), torch.zeros(2, 1, dtype=torch.int64)), "'categories'"),
    ],
)
def test_other_features_than_declared_are_refused(
    categories: list[int], inputs: tuple[torch.Tensor, ...], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        ft_transformer(numeric=3, categories=categories, width=8, heads=2)(*inputs)
