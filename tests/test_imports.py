"""What an import may load: whatever answers at once never loads torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

LIGHT = [
    "compress",
    "compress.errors",
    "compress.registry",
    "compress.recipe",
    "compress.target",
    "compress.evidence",
    "compress.gate",
    "compress.report",
    "compress.store.outdir",
    "compress.data",
    "compress.worker",
    "compress.hosts",
    "compress.bench",
    "compress.evaluate",
    "compress.search",
    "compress.workflow.approval",
]
HEAVY = {
    *("torch", "onnx", "onnxruntime", "litert_torch", "ai_edge_litert", "ai_edge_quantizer"),
    *("executorch", "torchao", "jax", "tensorflow"),
}


def loaded_by(module):
    program = f"import {module}, sys; print('\\n'.join(sorted({{name.partition('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("module", LIGHT)
def test_what_answers_at_once_loads_nothing_heavy(module):
    loaded = loaded_by(module)
    assert "compress" in loaded
    assert not loaded & HEAVY


def test_the_package_itself_loads_nothing_at_all():
    bare = loaded_by("json")
    assert loaded_by("compress, json") - bare == {"compress"}
