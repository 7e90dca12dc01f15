"""What is quantized: models in float32, the rows to calibrate on, and test rows with what is asked of them."""

from __future__ import annotations

import gzip
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from compress.data.base import Dataset
from compress.evaluate.scores import Link, TaskKind
from compress.model.core import Model, TensorInfo
from compress.model.factory import export_module
from compress.passes.base import Context, run_pass
from compress.recipe import load_recipe
from compress.workflow.build import build_models, open_model
from compress.workflow.plan import load_rows, make_plan
from compress.workflow.progress import Silent
from compress.zoo.mobilenet import mobilenet_v2

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
sys.path.insert(0, str(EXAMPLES))
from assets import fetch  # noqa: E402

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Case:
    """A model with its rows.

    Attributes:
        model: The graph, batch normalisation folded: what every lowering of a run gets.
        calibration: Rows of the calibration split, by input.
        test: Rows of the test split.
        labels: Of the test rows; None where the model has no head for them: then the float model's answers are.
        task: What kind of question it is.
        link: What its output holds.
        output: Which one.
    """

    model: Model
    calibration: Arrays
    test: Arrays
    labels: NDArray[Any] | None
    task: TaskKind
    link: Link
    output: str


@dataclass(frozen=True)
class Source:
    """Where a case comes from.

    Attributes:
        title: For the table.
        transformer: What peers want to know of a model.
        rows: Test rows at most, `--quick` a tenth of them.
        load: Makes it with a number of calibration rows and one of test rows.
    """

    title: str
    transformer: bool
    rows: int
    load: Callable[[int, int], Case]


def _fashion(calibration: int, test: int) -> Case:
    fetch("fashion_mnist")
    return _of_recipe(EXAMPLES / "fashion_items/recipe.toml", calibration, test)


def _credit(calibration: int, test: int) -> Case:
    return _of_recipe(EXAMPLES / "credit_default/recipe.toml", calibration, test)


def _intent(calibration: int, test: int) -> Case:
    recipe = EXAMPLES / "message_intent/recipe.toml"
    if not (recipe.parent / "model").is_dir():
        raise FileNotFoundError("the fine-tuned model is not there: python examples/message_intent/train.py")
    return _of_recipe(recipe, calibration, test)


def _of_recipe(path: Path, calibration: int, test: int) -> Case:
    plan = make_plan(load_recipe(path), path.parent, path.name)
    dataset, labels = load_rows(plan)
    models = build_models(open_model(plan, dataset, Silent()), plan, (), None, Silent())
    dataset, (question, label) = models.dataset, next(iter(labels.items()))
    config = plan.recipe.questions[question]
    fed = dataset.sample("calibration", calibration, plan.recipe.seed, label)
    asked = _some(dataset, test)
    link = "logit" if config.link == "auto" else config.link
    assert isinstance(models.compressed, Model)
    output = config.output or models.compressed.signature.outputs[0].name
    return Case(
        models.compressed,
        dataset.reader.read(fed),
        dataset.reader.read(asked),
        dataset.label(label)[asked],
        config.kind,
        link,
        output,
    )


def _some(dataset: Dataset, count: int) -> NDArray[np.int64]:
    """Test rows, evenly from the whole split."""
    rows = dataset.split("test")
    return rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(np.int64)]


def _imagenet(calibration: int, test: int) -> Case:
    """ImageNet's MobileNetV2 on pictures that it was not trained on: speed, and agreement with itself in float."""
    weights = fetch("mobilenet_v2") / "mobilenet_v2-b0353104.pth"
    module = mobilenet_v2()
    module.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    image = TensorInfo("image", (3, 224, 224), "float32")
    model = export_module(module.eval(), [image], ("scores",), "mobilenet_v2")
    folded = run_pass("fold_batch_norm", model, None, Context(), allow_no_change=True).model
    with gzip.open(fetch("fashion_mnist") / "train-images-idx3-ubyte.gz") as file:
        pictures = np.frombuffer(file.read(), np.uint8, (calibration + test) * 28 * 28, 16).reshape(-1, 1, 28, 28)
    large = np.repeat(np.repeat(pictures, 8, axis=2), 8, axis=3).repeat(3, axis=1).astype(np.float32)
    mean, spread = (
        np.array(each, np.float32)[:, None, None] for each in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    rows = (large / 255 - mean) / spread
    return Case(
        folded, {"image": rows[:calibration]}, {"image": rows[calibration:]}, None, "multiclass", "logit", "scores"
    )


SOURCES = {
    "fashion": Source("MobileNetV2 96x96, Fashion-MNIST", False, 2000, _fashion),
    "imagenet": Source("MobileNetV2 224x224, ImageNet's weights", False, 200, _imagenet),
    "intent": Source("MiniLM-L6, Banking77, 48 tokens", True, 3080, _intent),
    "credit": Source("Transformer, credit default", True, 6012, _credit),
}
