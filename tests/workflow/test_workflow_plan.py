"""Everything that is refused before the first expensive step, and how little is loaded to refuse it."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
from tiny_project import Project, environment

from compress.errors import DataError, MissingPackageError, ModelError, RecipeError
from compress.workflow import plan as planning
from compress.workflow.build import open_model
from compress.workflow.holdout import take_holdout
from compress.workflow.plan import load_rows, make_plan, versions
from compress.workflow.progress import Silent


def planned(project: Project) -> planning.Plan:
    return make_plan(project.load(), project.folder, "recipe.toml")


def test_a_recipe_is_resolved(project: Project) -> None:
    project.change(schemes=["int8-dynamic"], targets=["litert-cpu", "onnxruntime-cpu"])
    plan = planned(project)
    assert [target.name for target in plan.targets] == ["litert-cpu", "onnxruntime-cpu"]
    # float32 is what the others are judged against, named or not.
    assert [scheme.name for scheme in plan.schemes] == ["float32", "int8-dynamic"]
    assert plan.digest == planned(project).digest
    assert plan.digest != planned(project.change(seed=1)).digest


def test_a_target_may_name_its_schemes(project: Project) -> None:
    project.write("phone.toml", 'schema = 1\nruntime = "litert"\nschemes = ["int8-static"]\n')
    plan = planned(project.change(targets=["phone.toml", "onnxruntime-cpu"]))
    phone, cpu = plan.targets
    assert [scheme.name for scheme in plan.schemes_for(phone)] == ["float32", "int8-static"]
    assert [scheme.name for scheme in plan.schemes_for(cpu)] == ["float32", "int8-static", "int8-dynamic"]


@pytest.mark.parametrize(
    ("changes", "message", "hint"),
    [
        (
            {"targets": ["onnxruntime-cp"]},
            "recipe.toml: targets: there is no target 'onnxruntime-cp'",
            "onnxruntime-cpu",
        ),
        ({"targets": ["no.toml"]}, "no.toml: No such file or directory", "check the path"),
        ({"targets": ["odd.toml"]}, "there is no runtime 'onnxrutime'", "did you mean 'onnxruntime'"),
        (
            {"targets": ["extra.toml"]},
            "the target 'extra' names the scheme 'float16', the recipe does not",
            "add it to the recipe's schemes",
        ),
        ({"targets": ["broken.toml"]}, "broken.toml: not valid TOML", "docs/recipe.md"),
        ({"targets": ["unknown.toml"]}, "unknown.toml: unknown key 'thread'", "did you mean 'threads'"),
        ({"targets": ["remote.toml"]}, "remote.toml: host", ""),
        ({"targets": ["other/onnxruntime-cpu.toml", "onnxruntime-cpu"]}, "two targets have the same name", "own name"),
        (
            {"passes": [{"kind": "fold_batchnorm"}]},
            "passes[0].kind: there is no pass 'fold_batchnorm'",
            "fold_batch_norm",
        ),
    ],
)
def test_names_that_do_not_exist(project: Project, changes: dict[str, Any], message: str, hint: str) -> None:
    project.write("odd.toml", 'schema = 1\nruntime = "onnxrutime"\n')
    project.write("extra.toml", 'schema = 1\nruntime = "onnxruntime"\nschemes = ["float16"]\n')
    project.write("broken.toml", "schema = = 1\n")
    project.write("unknown.toml", 'schema = 1\nruntime = "onnxruntime"\nthread = 2\n')
    project.write("remote.toml", 'schema = 1\nruntime = "onnxruntime"\nhost = "moon"\n')
    (project.folder / "other").mkdir()
    project.write("other/onnxruntime-cpu.toml", 'schema = 1\nruntime = "onnxruntime"\n')
    with pytest.raises(RecipeError) as caught:
        planned(project.change(**changes))
    assert message in caught.value.message
    assert caught.value.message.startswith("recipe.toml: ")
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("target", "package", "extra"),
    [
        ("onnxruntime-cpu", "onnxruntime", "edge-compress[onnxruntime]"),
        ("onnxruntime-cpu", "onnxscript", "edge-compress[onnxruntime]"),
        ("litert-cpu", "ai_edge_quantizer", "edge-compress[litert]"),
        ("litert-cpu", "litert_torch", "edge-compress[litert]"),
        ("executorch-cpu", "executorch", "edge-compress[executorch]"),
        ("executorch-cpu", "torchao", "edge-compress[executorch]"),
    ],
)
def test_a_runtime_that_is_not_installed_names_the_extra(
    project: Project, monkeypatch: pytest.MonkeyPatch, target: str, package: str, extra: str
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *given: None if name == package else real(name, *given)
    )
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingPackageError) as caught:
        planned(project.change(targets=[target]))
    assert f"targets: the package {package!r} is needed for the target {target!r}" in caught.value.message
    assert caught.value.hint == f"pip install '{extra}'"
    assert caught.value.exit_code == 2


def test_wrong_names_are_told_without_torch(project: Project) -> None:
    project.change(targets=["onnxruntime-cp"])
    text = (
        "import sys\n"
        "from pathlib import Path\n"
        "from compress.errors import RecipeError\n"
        "from compress.recipe import load_recipe\n"
        "from compress.workflow.plan import make_plan\n"
        "try:\n"
        "    make_plan(load_recipe(Path('recipe.toml')), Path(), 'recipe.toml')\n"
        "except RecipeError as error:\n"
        "    print(error.message, 'torch' in sys.modules)\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", text], cwd=project.folder, env=environment(), capture_output=True, text=True, check=True
    )
    assert said.stdout.split()[-2:] == ["'onnxruntime-cp'", "False"]


def test_a_stratified_split_deals_by_the_label_of_the_task(project: Project) -> None:
    frame = pd.read_csv(project.folder / "rows.csv")
    frame["late_too"] = (frame["late"] > 0).astype(int)
    frame.to_csv(project.folder / "rows.csv", index=False)
    project.change(
        data={"label": None, "labels": {"default": "defaulted", "late": "late_too"}, "split": {"by": "stratified"}},
        task={"label": "default"},
    )
    dataset, labels = load_rows(planned(project))
    assert labels == {"": "default"}
    shares = [dataset.label("default")[rows].mean() for rows in dataset.splits.values()]
    assert max(shares) - min(shares) < 0.01


def test_versions_name_everything_that_does_the_work() -> None:
    assert versions("torch").keys() == {"edge-compress", "torch"}
    assert versions("onnxruntime").keys() > versions("torch").keys()
    assert not {"not installed"} & {*versions("litert").values(), *versions("executorch").values()}
    # A runtime of another distribution still depends on the graph's own versions.
    assert versions("somebody's") == versions("torch")


FACTORIES = """
import torch


class Module(torch.nn.Module):
    def __init__(self, answer):
        super().__init__()
        self.linear = torch.nn.Linear(6, 2)
        self.answer = answer

    def forward(self, features):
        return self.answer(self.linear(features))


def two_columns():
    return Module(lambda values: {"scores": values})


def two_outputs():
    return Module(lambda values: {"no": values[:, 0], "yes": values[:, 1]})


def logits():
    return Module(lambda values: {"logit": values[:, 0] * 10})


def probabilities():
    return Module(lambda values: {"chance": torch.sigmoid(values[:, 0])})


def nothing():
    return Module(lambda values: {})
"""


@pytest.fixture
def holdout(project: Project) -> Callable[..., Any]:
    project.write("model.py", FACTORIES)

    def take(function: str, **changes: Any) -> Any:
        project.change(model={"source": f"model.py:{function}", "weights": None}, **changes)
        plan = planned(project)
        dataset, labels = load_rows(plan)
        return take_holdout(open_model(plan, dataset, Silent()), labels, plan)

    return take


def test_what_an_output_holds_is_found_or_said(holdout: Callable[..., Any]) -> None:
    def asked(function: str, **task: str) -> tuple[str, str]:
        (question,) = holdout(function, task=task).questions
        return question.output, question.link

    assert asked("logits") == ("logit", "logit")
    assert asked("probabilities") == ("chance", "probability")
    assert asked("probabilities", link="logit") == ("chance", "logit")
    assert asked("two_outputs", output="yes") == ("yes", "logit")


@pytest.mark.parametrize(
    ("function", "changes", "kind", "message"),
    [
        ("two_outputs", {}, RecipeError, "task.output must say which of the model's 2 outputs"),
        ("two_outputs", {"task": {"output": "yess"}}, RecipeError, "the model has no output 'yess'"),
        ("logits", {"task": {"link": "probability"}}, DataError, r"lie outside \[0, 1\]"),
        ("two_columns", {}, DataError, r"must have the shape \[rows\] or \[rows, 1\]; got \[\d+, 2\]"),
        (
            "logits",
            {"measure": {"batch": 1000}},
            RecipeError,
            "measure.batch: 1000 rows a call, but the test split has",
        ),
        ("nothing", {}, ModelError, "the model has no output"),
    ],
)
def test_an_output_that_cannot_answer_is_told_before_anything_is_lowered(
    holdout: Callable[..., Any], function: str, changes: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        holdout(function, **changes)


def test_parity_rows_lie_in_the_test_split(holdout: Callable[..., Any]) -> None:
    taken = holdout("logits", measure={"parity_rows": 50})
    assert len(taken.parity_rows) == 50
    assert taken.parity_rows.min() >= 0 and taken.parity_rows.max() < taken.rows == len(taken.questions[0].labels)
    assert len(set(taken.parity_rows.tolist())) == 50
