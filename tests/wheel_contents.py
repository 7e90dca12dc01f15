"""Fails unless a built wheel holds the package, all of it, and nothing beside it.

python tests/wheel_contents.py FOLDER_OR_WHEEL
"""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = "compress"
# Beside the modules: data that is read at run time, and the files that hosts copy to a device.
PATTERNS = ("profiles/*.toml", "report/templates/*", "worker/*.py", "**/*.py")


def expected(root: Path = ROOT) -> set[str]:
    """Returns the files of the source tree that the wheel must hold."""
    package = root / PACKAGE
    return {path.relative_to(root).as_posix() for pattern in PATTERNS for path in package.glob(pattern)}


def problems(names: Iterable[str], wanted: Iterable[str]) -> list[str]:
    """Returns what is wrong with a wheel of these members, as sentences."""
    members = {name for name in names if not name.endswith("/")}
    tops = {name.partition("/")[0] for name in members}
    foreign = sorted(top for top in tops if top != PACKAGE and not top.endswith(".dist-info"))
    found = [f"{top!r} lies beside the package; an installed wheel would collide with it" for top in foreign]
    if PACKAGE not in tops:
        found.append(f"there is no {PACKAGE!r} in it")
    missing = sorted(set(wanted) - members)
    if missing:
        found.append(f"{len(missing)} files are missing: {', '.join(missing[:5])}")
    found += [
        f"{pattern!r} matches nothing" for pattern in PATTERNS if not any(_matches(name, pattern) for name in members)
    ]
    return found


def main(arguments: list[str]) -> int:
    """Checks every wheel of a folder, or one wheel; prints what is wrong."""
    if len(arguments) != 1:
        print("usage: wheel_contents.py FOLDER_OR_WHEEL", file=sys.stderr)
        return 1
    place = Path(arguments[0])
    wheels = sorted(place.glob("*.whl")) if place.is_dir() else [path for path in [place] if path.suffix == ".whl"]
    if not wheels:
        print(f"{place}: no wheel here", file=sys.stderr)
        return 1
    failed = False
    for wheel in wheels:
        try:
            with zipfile.ZipFile(wheel) as archive:
                found = problems(archive.namelist(), expected())
        except (OSError, zipfile.BadZipFile) as error:
            found = [str(error)]
        for problem in found:
            print(f"{wheel.name}: {problem}", file=sys.stderr)
        failed = failed or bool(found)
    return int(failed)


def _matches(name: str, pattern: str) -> bool:
    return name.startswith(f"{PACKAGE}/") and Path(name.removeprefix(f"{PACKAGE}/")).match(pattern)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
