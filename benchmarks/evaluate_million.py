"""1,000,000 scored rows in 20 segments, reviewed as `edge-compress evaluate` does, with time and peak memory.

    PYTHONPATH=. python benchmarks/evaluate_million.py [--rows 1000000]

Attributions and robustness need the model and are not part of it. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import resource
import time

import numpy as np

from compress.evaluate.groups import group
from compress.evaluate.review import Asked, review_task
from compress.evaluate.tasks import compare_task
from compress.recipe import CostConfig, EvaluateConfig

SEGMENTS = {"region": 5, "age_band": 5, "product": 5, "channel": 5}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--resamples", type=int, default=1000)
    arguments = parser.parse_args()
    random = np.random.default_rng(0)
    rows = arguments.rows
    logit = random.normal(-1.2, 1.3, rows)
    labels = (random.random(rows) < 1 / (1 + np.exp(-logit))).astype(np.int64)
    baseline = (logit + random.normal(0, 0.6, rows)).astype(np.float32)
    candidate = baseline + random.normal(0, 0.05, rows).astype(np.float32)
    segments = [group(name, random.integers(0, size, rows)) for name, size in SEGMENTS.items()]
    config = EvaluateConfig(cutoffs=(0.2, 0.3), cost=CostConfig(false_positive=1, false_negative=5))
    started = time.perf_counter()
    metrics = compare_task(
        "binary",
        labels,
        baseline,
        candidate,
        task="",
        link="logit",
        cutoff=0.5,
        resamples=arguments.resamples,
        seed=0,
        where="score",
    )
    of_metrics = time.perf_counter() - started
    asked = Asked("", "binary", "logit", 0.5, segments)
    review = review_task(
        labels, baseline, candidate, asked, config, resamples=arguments.resamples, seed=0, where="score"
    )
    seconds = time.perf_counter() - started
    print(
        json.dumps(
            {
                "rows": rows,
                "segments": len(review.segments),
                "metrics": len(metrics),
                "seconds": round(seconds, 1),
                "seconds_of_metrics": round(of_metrics, 1),
                "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
