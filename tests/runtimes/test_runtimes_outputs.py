"""Outputs that are one tensor with an input or with each other: a file of these runtimes has one place for it."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_models import built, engine, exported
from torch import nn

from compress.errors import LoweringError


class Twice(nn.Module):
    """Gives one value under two names, or an input as it is."""

    def __init__(self, passing):
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.passing = passing

    def forward(self, x):
        hidden = self.layer(x)
        return {"one": hidden, "same": x if self.passing else hidden}


@pytest.mark.parametrize("runtime", ["litert", "executorch"])
@pytest.mark.parametrize(("passing", "other"), [(False, "one"), (True, "x")])
def test_an_output_that_is_another_tensor_is_told(runtime, passing, other):
    model = exported(built(lambda: Twice(passing)), {"x": np.zeros((2, 4), np.float32)})
    with pytest.raises(LoweringError, match=f"the output 'same' is the same tensor as '{other}'"):
        engine(runtime).lower(model)
