"""Torch-Pruning at work, in a process and a Python of its own; `pruning.py` starts it and reads what it leaves.

    python benchmarks/pruning_peer.py '{"model": "mobilenet_v2", "ratio": 0.5, …}'

What comes out is exported as the project's own models are, so that from there on both take the same way.
"""

from __future__ import annotations

import fnmatch
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch_pruning as tp
from pruning_models import SUBJECTS, module_of, rows_of
from torch import nn

from compress.model.cost import cost
from compress.model.factory import export_module

ROOTS = (nn.Conv2d, nn.Linear)


def main() -> int:
    job = json.loads(sys.argv[1])
    torch.set_num_threads(job["threads"])
    result: dict[str, Any] = {"version": tp.__version__}
    try:
        prune(job, result)
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
        result["error"] = f"{result.get('stage', 'import')}: {type(error).__name__}: {lines[0][:200]}"
    Path(job["result"]).write_text(json.dumps(result))
    return 0


def prune(job: dict[str, Any], result: dict[str, Any]) -> None:
    subject, module = SUBJECTS[job["model"]], module_of(job["model"])
    rows = rows_of(job["model"])
    ignored = [module.get_submodule(subject.last)]

    result["stage"] = "analysis"
    start = time.process_time()
    graph = tp.DependencyGraph().build_dependency(module, example_inputs=rows)
    groups = list(graph.get_all_groups(ignored_layers=ignored, root_module_types=list(ROOTS)))
    result["analysis_s"] = time.process_time() - start
    result["groups"] = len(groups)

    result["stage"] = "pruning"
    patterns, count = subject.heads
    named = dict(module.named_modules()).items()
    heads = {layer: count for name, layer in named if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)}
    # Its documented way for Transformers: heads go as a whole, as with us.
    whole_heads = {"num_heads": heads, "prune_num_heads": True, "prune_head_dims": False}
    start = time.process_time()
    pruner = tp.pruner.BasePruner(
        module,
        rows,
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        global_pruning=job["allocation"] == "global",
        pruning_ratio=job["ratio"],
        max_pruning_ratio=1 - job["floor"],
        ignored_layers=ignored,
        round_to=job["round_to"],
        **({**whole_heads, "head_pruning_ratio": job["ratio"]} if heads else {}),
    )
    pruner.step()
    result["pruning_s"] = time.process_time() - start
    for part in module.modules():
        if hasattr(part, "num_attention_heads") and hasattr(part, "query"):
            # Its example for BERT sets these by hand.
            part.num_attention_heads = pruner.num_heads[part.query]
            part.attention_head_size = part.query.out_features // part.num_attention_heads
            part.all_head_size = part.query.out_features

    result["stage"] = "running what it made"
    with torch.no_grad():
        module(*rows)
    result["stage"] = "exporting what it made"
    model = export_module(module, subject.inputs, (), job["model"])
    result["macs"], result["parameters"] = cost(model).macs, cost(model).parameters
    Path(job["out"]).write_bytes(model.to_bytes())
    del result["stage"]


if __name__ == "__main__":
    sys.exit(main())
