from __future__ import annotations

import pytest
import torch

from compress.zoo.multitask import (
    MlpTrunk,
    MultiTask,
    multitask_mlp,
    multitask_transformer,
    read_tasks,
    soft_sharing_penalty,
)

TASKS = ["default:binary", "delinquency:3", "growth:regression"]
BOTH = pytest.mark.parametrize("factory", [multitask_mlp, multitask_transformer])


@BOTH
@pytest.mark.parametrize("sharing", ["hard", "soft"])
def test_each_task_has_its_output(factory: object, sharing: str) -> None:
    model = factory(features=4, tasks=TASKS, sharing=sharing).eval()  # type: ignore[operator]
    features = torch.randn(5, 4)
    features[0] = torch.nan
    outputs = model(features)
    assert {name: tuple(value.shape) for name, value in outputs.items()} == {
        "default": (5, 1),
        "delinquency": (5, 3),
        "growth": (5, 1),
    }
    assert all(torch.isfinite(value).all() for value in outputs.values())


def test_a_list_and_a_dictionary_of_tasks_mean_the_same() -> None:
    tasks = {"default": "binary", "delinquency": 3, "growth": "regression"}
    assert read_tasks(TASKS) == tasks == read_tasks(tasks)


@pytest.mark.parametrize(("sharing", "trunks"), [("hard", 1), ("soft", 3)])
def test_tasks_share_a_trunk_or_have_their_own(sharing: str, trunks: int) -> None:
    model = multitask_mlp(features=4, tasks=TASKS, sharing=sharing, hidden=[8], dropout=0.0)
    assert len(model.trunks) == trunks
    model(torch.randn(6, 4))["default"].sum().backward()
    reached = {
        name.split(".")[1] for name, value in model.named_parameters() if "trunks" in name and value.grad is not None
    }
    assert reached == ({"shared"} if sharing == "hard" else {"default"})


def test_scales_of_all_trunks_are_fitted() -> None:
    model = multitask_mlp(features=2, tasks=TASKS, sharing="soft")
    model.fit_scale(torch.tensor([[1.0, 2.0], [3.0, 2.0]]))
    assert [trunk.scale.mean.tolist() for trunk in model.trunks.values()] == [[2.0, 2.0]] * 3


def test_the_penalty_is_the_squared_distance_of_every_pair() -> None:
    model = multitask_mlp(features=2, tasks=TASKS, sharing="soft", hidden=[3])
    with torch.no_grad():
        assert float(soft_sharing_penalty(model)) == 0
        model.trunks["default"].layers[0].bias += torch.tensor([1.0, 2.0, 0.0])
        model.trunks["growth"].layers[0].weight[0, 0] += 3
        # default to delinquency 1 + 4, default to growth 1 + 4 + 9, delinquency to growth 9.
        assert float(soft_sharing_penalty(model)) == pytest.approx(28, rel=1e-5)


def test_one_trunk_has_no_penalty() -> None:
    assert float(soft_sharing_penalty(multitask_mlp(features=2, tasks=TASKS))) == 0


def test_the_penalty_draws_trunks_together() -> None:
    torch.manual_seed(0)
    model = MultiTask({"a": "binary", "b": "binary"}, "soft", lambda: MlpTrunk(3, [4], 0.0))
    with torch.no_grad():
        model.trunks["a"].layers[0].weight.normal_()
    before = soft_sharing_penalty(model)
    before.backward()
    with torch.no_grad():
        for parameter in model.trunks.parameters():
            parameter -= 0.1 * parameter.grad
        # A step of 0.1 on both sides leaves 1 - 2 * 0.2 of every difference.
        assert float(soft_sharing_penalty(model)) == pytest.approx(0.36 * float(before), rel=1e-4)
