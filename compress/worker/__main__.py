"""Runs the folder as a program: loads it as the package `edge_worker`, so that its imports stay relative."""

from __future__ import annotations

import sys


def run() -> int:
    """Loads the package and hands it the arguments."""
    from pathlib import Path

    folder = Path(__file__).resolve().parent
    # Python puts a folder that it runs in front of the path, where our file names would hide other modules.
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != folder]

    from importlib import import_module
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location("edge_worker", folder / "__init__.py", submodule_search_locations=[str(folder)])
    if spec is None or spec.loader is None:
        raise ImportError(f"{folder} is not the worker folder")
    package = module_from_spec(spec)
    sys.modules["edge_worker"] = package
    spec.loader.exec_module(package)
    code: int = import_module("edge_worker.main").main(sys.argv[1:])
    return code


if __name__ == "__main__":
    sys.exit(run())
