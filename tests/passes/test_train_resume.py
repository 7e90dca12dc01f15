"""A run that is killed goes on where it was, to the same last bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from train_kit import Scorer, dataset, model_of, run, weights

import compress
from compress.passes.train.checkpoint import read_state, write_state

OPTIONS = {"epochs": 4, "ema": 0.9, "warm_up": 0.2, "checkpoint_s": 0.0, "augment": {"swap": 0.1}}
PROGRAM = """
import sys
from pathlib import Path
from train_kit import Scorer, dataset, model_of, run
run("train", model_of(Scorer()), dataset(noise=0.5), ctx={"work": Path(sys.argv[1])}, **OPTIONS)
"""


def start(folder: Path) -> subprocess.Popen[bytes]:
    here = Path(__file__).resolve().parent
    path = os.pathsep.join(map(str, (here, here.parent, Path(compress.__file__).resolve().parents[1])))
    program = PROGRAM.replace("OPTIONS", repr(OPTIONS))
    return subprocess.Popen([sys.executable, "-c", program, str(folder)], env={**os.environ, "PYTHONPATH": path})


def steps_done(folder: Path) -> int:
    found = [read_state(path) for path in folder.rglob("last.safetensors")]
    return found[0][1]["step"] if found and found[0] is not None else -1


@pytest.mark.timeout(300)
def test_killed_twice_it_ends_with_the_same_weights(tmp_path):
    whole = run("train", model_of(Scorer()), dataset(noise=0.5), **OPTIONS)
    reached = 0
    # In the middle of the first epoch, in the middle of a later one.
    for wanted in (3, 17):
        process = start(tmp_path)
        limit = time.monotonic() + 100
        while steps_done(tmp_path) < wanted and process.poll() is None and time.monotonic() < limit:
            time.sleep(0.002)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        assert steps_done(tmp_path) >= max(wanted, reached)
        reached = steps_done(tmp_path)
    assert reached < 28
    resumed = run("train", model_of(Scorer()), dataset(noise=0.5), ctx={"work": tmp_path}, **OPTIONS)
    assert resumed.model.digest == whole.model.digest
    assert resumed.training.epochs == whole.training.epochs
    assert (resumed.training.best_epoch, resumed.training.steps) == (whole.training.best_epoch, 28)


class Stop(Exception):
    pass


def interrupted(folder, after):
    """Trains until so many sentences were said."""
    said = []

    def say(sentence):
        said.append(sentence)
        if len(said) == after:
            raise Stop

    with pytest.raises(Exception, match="Stop"):
        run("train", model_of(Scorer()), dataset(noise=0.5), ctx={"work": folder, "say": say}, **OPTIONS)


def test_a_finished_run_is_not_trained_again(tmp_path):
    said = []
    one = run("train", model_of(Scorer()), dataset(noise=0.5), ctx={"work": tmp_path}, **OPTIONS)
    other = run("train", model_of(Scorer()), dataset(noise=0.5), ctx={"work": tmp_path, "say": said.append}, **OPTIONS)
    assert one.model.digest == other.model.digest and said == []
    assert other.training.seconds >= one.training.seconds
    # The state of the optimizer is no longer needed.
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.safetensors")) < 10_000


def test_other_rows_options_or_seeds_begin_anew(tmp_path):
    interrupted(tmp_path, after=3)
    (old,) = tmp_path.iterdir()
    plain = run("train", model_of(Scorer()), dataset(noise=0.5), **{**OPTIONS, "learning_rate": 0.02})
    mixed = run(
        "train", model_of(Scorer()), dataset(noise=0.5), ctx={"work": tmp_path}, **{**OPTIONS, "learning_rate": 0.02}
    )
    assert mixed.model.digest == plain.model.digest
    # What belongs to the older recipe is gone.
    assert not old.exists() and len(list(tmp_path.iterdir())) == 1


def test_a_checkpoint_that_cannot_be_read_is_none(tmp_path):
    interrupted(tmp_path, after=3)
    (state,) = tmp_path.rglob("last.safetensors")
    state.write_bytes(state.read_bytes()[:-20])
    whole = run("train", model_of(Scorer()), dataset(noise=0.5), **OPTIONS)
    again = run("train", model_of(Scorer()), dataset(noise=0.5), ctx={"work": tmp_path}, **OPTIONS)
    assert again.model.digest == whole.model.digest


def test_a_state_survives_the_disk(tmp_path):
    tensors = {"a": torch.arange(6.0).reshape(2, 3).T, "b": torch.tensor(1.5), "c": torch.tensor([], dtype=torch.int64)}
    write_state(tmp_path / "s.safetensors", tensors, {"step": 3, "loss": 0.1})
    found, values = read_state(tmp_path / "s.safetensors")
    assert values == {"schema": 1, "step": 3, "loss": 0.1}
    for name, value in tensors.items():
        assert torch.equal(found[name], value)
    assert read_state(tmp_path / "none.safetensors") is None
    header = (tmp_path / "s.safetensors").read_bytes()
    assert json.loads(header[8 : 8 + int.from_bytes(header[:8], "little")])["__metadata__"]["state"]


def test_weights_of_a_resumed_run_are_finite(tmp_path):
    interrupted(tmp_path, after=2)
    resumed = run("train", model_of(Scorer()), dataset(noise=0.5), ctx={"work": tmp_path}, **OPTIONS)
    assert all(np.isfinite(values).all() for values in weights(resumed.model).values())
