"""A function that the user names in a recipe: `file.py:function` or `package.module:function`, loaded and called.

This is the only place where code that is not ours is run, and only because the recipe names it.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from compress.errors import CompressError, did_you_mean

_MARK = "__user_folder__"


def load_function(spec: str, folder: Path, key: str, kind: type[CompressError]) -> Callable[..., Any]:
    """Returns the function that a recipe names.

    1. `file.py:function` is a file relative to `folder`; it becomes a module under a private name, so that it hides
       nothing that is installed. The same unchanged file gives the same module again.
    2. `package.module:function` is imported; packages in `folder` are found before installed ones.
    3. While the module is imported its own folder is on the path, so that it can import its neighbours at its top.

    Args:
        spec: What the recipe says.
        folder: The folder of the recipe.
        key: Where the recipe says it, for the message: `recipe.toml: model.source`.
        kind: The class of the error to raise.

    Raises:
        CompressError: Of the given kind, if the file or module is missing, its import fails, or it has no such
            function.
    """
    place, colon, name = spec.rpartition(":")
    if not colon or not place or not name.isidentifier():
        raise kind(
            f"{key}: {spec!r} names no function",
            "write 'file.py:function' (relative to the recipe) or 'package.module:function'.",
        )
    if place.endswith(".py"):
        module = _file_module(folder / place, key, kind)
    else:
        module = _installed_module(place, folder, key, kind)
    if not hasattr(module, name):
        functions = [known for known, value in vars(module).items() if callable(value) and not known.startswith("_")]
        raise kind(f"{key}: {place} has no function {name!r}", did_you_mean(name, functions))
    function = getattr(module, name)
    if not callable(function):
        raise kind(
            f"{key}: {name!r} of {place} is of type {type(function).__name__}, not a function",
            "name a function; it is called with the keys of `arguments`.",
        )
    return function  # type: ignore[no-any-return]


def call_function(
    function: Callable[..., Any], arguments: Mapping[str, Any], key: str, kind: type[CompressError]
) -> Any:
    """Calls a user's function with the `arguments` of the recipe.

    Args:
        function: What `load_function` returned.
        arguments: Keyword arguments.
        key: Where the recipe names the function, for the message.
        kind: The class of the error to raise.

    Raises:
        CompressError: Of the given kind, if it does not take these arguments or fails; a `CompressError` that it
            raises itself passes through.
    """
    name = getattr(function, "__name__", type(function).__name__)
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        signature = None
    if signature is not None:
        try:
            signature.bind(**arguments)
        except TypeError as error:
            raise kind(
                f"{key}: {name} cannot be called with the given arguments: {error}", f"it is {name}{signature}."
            ) from error
    try:
        return function(**arguments)
    except CompressError:
        raise
    except Exception as error:
        code = getattr(function, "__code__", None)
        folder = Path(code.co_filename).parent if code else Path()
        raise kind(f"{key}: {name} failed with {_described(error, folder)}", "run the function by itself.") from error


def _file_module(path: Path, key: str, kind: type[CompressError]) -> ModuleType:
    try:
        source = path.read_bytes()
    except OSError as error:
        near = sorted(item.name for item in path.parent.glob("*.py")) if path.parent.is_dir() else []
        raise kind(f"{key}: {path}: {error.strerror or error}", did_you_mean(path.name, near)) from error
    # The content is in the name: an edited file is a new module, an unchanged one is not run twice.
    content = hashlib.sha256(str(path.resolve()).encode() + b"\0" + source).hexdigest()[:16]
    name = f"_user_{path.stem}_{content}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None:
        raise kind(f"{key}: {path} is not a Python file", "name a .py file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with _neighbours(path.parent):
            # Compiled here, not by the loader: its cache tells files apart by second and size.
            exec(compile(source, str(path), "exec", dont_inherit=True), module.__dict__)
    except (Exception, SystemExit) as error:
        sys.modules.pop(name, None)
        raise _import_error(path, path.parent, error, key, kind) from error
    return module


def _installed_module(name: str, folder: Path, key: str, kind: type[CompressError]) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise kind(
            f"{key}: {name!r} is neither a .py file nor the name of a module",
            "write 'file.py:function' (relative to the recipe) or 'package.module:function'.",
        )
    try:
        with _neighbours(folder):
            return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}."):
            raise kind(
                f"{key}: there is no module {error.name!r}", f"install it, or put it beside the recipe, in {folder}."
            ) from error
        raise _import_error(name, folder, error, key, kind) from error


@contextmanager
def _neighbours(folder: Path) -> Iterator[None]:
    """Puts a folder first on the import path for a while.

    What earlier calls imported from other folders is forgotten first: a neighbour `layers.py` must never be that of
    another recipe.
    """
    home = str(folder.resolve())
    for name, module in list(sys.modules.items()):
        if getattr(module, "__dict__", {}).get(_MARK, home) != home:
            del sys.modules[name]
    importlib.invalidate_caches()
    before, path = set(sys.modules), [Path(entry).resolve() for entry in sys.path]
    sys.path.insert(0, home)
    try:
        yield
    finally:
        with suppress(ValueError):
            sys.path.remove(home)
        # What any other entry of the path gives too (a virtual environment inside the folder) is not its own.
        shared = [entry for entry in path if entry.is_relative_to(home)]
        for name in set(sys.modules) - before:
            content = getattr(sys.modules[name], "__dict__", {})
            file = Path(content.get("__file__") or "/").resolve()
            if file.is_relative_to(home) and not any(file.is_relative_to(entry) for entry in shared):
                content[_MARK] = home


def _import_error(
    place: object, folder: Path, error: BaseException, key: str, kind: type[CompressError]
) -> CompressError:
    hint = "import it by itself to see the whole traceback."
    if isinstance(error, ModuleNotFoundError):
        hint = f"install the package {error.name!r} into this environment."
    if isinstance(error, SystemExit):
        hint = "keep what runs as a script under `if __name__ == '__main__':`."
    return kind(f"{key}: importing {place} failed with {_described(error, folder)}", hint)


def _described(error: BaseException, folder: Path) -> str:
    """Type, message, file and line of the innermost frame that lies in `folder`, else of the innermost one."""
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if isinstance(error, SyntaxError):
        return f"SyntaxError: {error.msg} ({error.filename}, line {error.lineno})"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename != __file__ and not frame.filename.startswith("<")
    ]
    home = folder.resolve()
    inside = [
        frame
        for frame in frames
        if Path(frame.filename).resolve().is_relative_to(home) and "site-packages" not in frame.filename
    ]
    frame = next(iter(reversed(inside or frames)), None)
    return f"{text} ({frame.filename}, line {frame.lineno})" if frame else text
