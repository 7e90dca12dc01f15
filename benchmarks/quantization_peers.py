"""The tools that are compared: pinned versions, settings, and an environment of its own for each."""

from __future__ import annotations

import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

OURS, RUNTIME = "edge-compress", "onnxruntime"
TIMEOUT_S = 3600


@dataclass(frozen=True)
class Peer:
    """A tool.

    Attributes:
        requires: What pip installs; nothing where this project's own environment has it.
        convolution: Settings to try on convolutional networks; see `quantization_jobs.py`.
        transformer: Settings to try on Transformers.
    """

    requires: tuple[str, ...]
    convolution: tuple[str, ...] = ("default", "best")
    transformer: tuple[str, ...] = ("default", "best")

    def settings(self, transformer: bool) -> tuple[str, ...]:
        """Those for such a model."""
        return self.transformer if transformer else self.convolution


PEERS = {
    OURS: Peer(
        (),
        ("static any", "static native", "best any", "best native"),
        ("static any", "static native", "best any", "best native", "dynamic any", "dynamic native"),
    ),
    RUNTIME: Peer((), transformer=("default", "best", "products", "dynamic", "dynamic best")),
    "nncf": Peer(("nncf==3.4.0", "onnx==1.23.2", "onnxruntime==1.31.1"), transformer=("default", "best", "products")),
    "onnx-neural-compressor": Peer(
        # Its own requirements lack the last four.
        (
            *("onnx-neural-compressor==1.0", "onnx==1.23.2", "onnxruntime==1.31.1"),
            *("scipy==1.17.1", "prettytable==3.18.0", "psutil==7.2.2", "py-cpuinfo==9.0.0"),
        ),
        transformer=("default", "best", "dynamic"),
    ),
    # Its own requirements lack the last one.
    "olive": Peer(
        ("olive-ai==0.13.0", "onnxruntime==1.31.1", "requests==2.34.2"),
        transformer=("default", "best", "products", "dynamic"),
    ),
    "aimet-onnx": Peer(("aimet-onnx==2.42.0",), transformer=("default", "best", "products")),
    "modelopt": Peer(("nvidia-modelopt[onnx]==0.47.0",), transformer=("default", "best", "products")),
}


class PeerError(Exception):
    """A tool that does not install, or fails."""


def python(name: str, folder: Path) -> Path:
    """The interpreter of a tool's environment.

    Raises:
        PeerError: If it is not installed.
    """
    if not PEERS[name].requires:
        return Path(sys.executable)
    found = folder / name / "bin" / "python"
    if not found.exists():
        raise PeerError(f"not installed in {folder.name}/ (--install)")
    return found


def install(name: str, folder: Path) -> None:
    """Makes a tool's environment, unless it is there; a failed one leaves nothing behind.

    Raises:
        PeerError: If pip cannot install it.
    """
    peer, place = PEERS[name], folder / name
    if not peer.requires or place.exists():
        return
    making = folder / f".{name}"
    venv.create(making, clear=True, with_pip=True)
    command = [str(making / "bin" / "python"), "-m", "pip", "install", "--quiet", *peer.requires]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()] or ["pip failed"]
        raise PeerError(f"does not install: {said[-1][:300]}")
    making.rename(place)


def quantize(name: str, setting: str, case: Path, out: Path, envs: Path, seconds: float) -> str:
    """Runs a tool on a case in its environment; returns the line of figures that the job prints.

    Raises:
        PeerError: If it fails, takes longer, or writes no file.
    """
    script = Path(__file__).resolve().parent / "quantization_jobs.py"
    command = [str(python(name, envs)), str(script), name, setting, str(case), str(out)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired as error:
        raise PeerError(f"took longer than {seconds:.0f} s") from error
    lines = [
        line.strip() for line in (done.stdout if not done.returncode else done.stderr).splitlines() if line.strip()
    ]
    if done.returncode or not lines or not out.exists():
        raise PeerError(f"fails: {(lines or ['no message'])[-1][:300]}")
    return lines[-1]
