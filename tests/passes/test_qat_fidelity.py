"""What is simulated in training is what the runtimes compute: a file answers like the simulation, not like float."""

from __future__ import annotations

import pytest
import torch
from tiny_models import answers, engine, sqnr_db, target

from compress.passes.qat.insert import Inserter, find_sites
from compress.passes.train.network import Network
from compress.recipe import BUILTIN_SCHEMES

SCHEME = BUILTIN_SCHEMES["int8-static"]


@pytest.mark.parametrize("name", ["mlp", "conv", "attention"])
@pytest.mark.parametrize("runtime", ["onnxruntime", "litert"])
def test_the_file_answers_like_the_simulation(workshop, runtime, name):
    model, calibrated = workshop.tiny(name, fold=True).model, workshop.ranges(name)
    place = target(runtime)
    sites = find_sites(model, SCHEME, (place,), "x")
    # Narrower than calibration found: who does not use them answers otherwise.
    bounds = {value: tuple(0.6 * bound for bound in calibrated.of(value)) for value in sites.values}
    inserter = Inserter(sites, bounds)
    network = Network(model, torch.device("cpu"), prepare=inserter)
    rows = workshop.tiny(name).rows(200, seed=7)
    with torch.no_grad():
        outputs, _ = network(model.arguments(rows))
    simulated = {output: value.numpy() for output, value in outputs.items()}
    ranges = calibrated.learned(inserter.ranges())
    file = engine(runtime).quantize(workshop.lowered(runtime, name), SCHEME, ranges, place)
    given, exact = answers(runtime, file.data, rows), model.run(rows)
    for output, wanted in simulated.items():
        to_float, to_simulation = sqnr_db(exact[output], given[output]), sqnr_db(wanted, given[output])
        assert to_simulation > 25 and to_simulation > to_float + 6, (to_simulation, to_float)
