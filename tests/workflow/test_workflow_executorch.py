"""A runtime whose quantizer takes the graph: what comes out of the cache is quantized like what was just lowered."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_models import Workshop, target

from compress.errors import LoweringError
from compress.recipe import BUILTIN_SCHEMES
from compress.store.cache import Cache
from compress.workflow import build
from compress.workflow.progress import Silent


def test_a_kept_file_is_quantized_as_a_new_one(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = workshop.tiny("mlp", fold=True).model
    cache, device, scheme = Cache(tmp_path), target("executorch"), BUILTIN_SCHEMES["int8-dynamic"]
    new = build.lower_float(model, "executorch", cache, Silent())
    assert new.data == workshop.lowered("executorch", "mlp").data

    def lowered_again(*_: object) -> None:
        raise AssertionError("it was kept")

    monkeypatch.setattr(build, "_lower", lowered_again)
    kept = build.lower_float(model, "executorch", cache, Silent())
    assert kept == new
    made = build.quantize(kept, scheme, None, device, cache, Silent())
    assert made == workshop.artifact("executorch", "mlp", scheme)
    # And so is what was quantized.
    monkeypatch.setattr(build, "runtime", lowered_again)
    assert build.quantize(kept, scheme, None, device, cache, Silent()) == made


def test_a_scheme_that_it_does_not_have_is_an_error_of_that_scheme(workshop: Workshop, tmp_path: Path) -> None:
    lowered, cache = workshop.lowered("executorch", "mlp"), Cache(tmp_path)
    with pytest.raises(LoweringError, match="executorch has no float16") as caught:
        build.quantize(lowered, BUILTIN_SCHEMES["float16"], None, target("executorch"), cache, Silent())
    assert "schemes" in str(caught.value.hint)
