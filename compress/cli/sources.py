"""What a user types to name a model or data: `file.py:function`, `package.module:function`, or a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from compress.errors import RecipeError


def check_model(source: str) -> None:
    """Checks that a source has the form of a model; whether it is one is for the model's reader to tell.

    Raises:
        RecipeError: If it has not.
    """
    if _parts(source)[1] or source.endswith((".pt2", ".onnx")) or (Path(source) / "config.json").is_file():
        return
    raise RecipeError(
        f"{source!r} is neither a recipe (.toml) nor a model "
        "(file.py:function, a .pt2, an .onnx or a Hugging Face folder)",
        f"name the function that builds the model: {source}:FUNCTION."
        if source.endswith(".py")
        else "a new recipe is written by: edge-compress init file.py:function --data FILE --label COL.",
    )


def is_factory(source: str) -> bool:
    """Whether a source names a function, whose weights lie in a file of their own."""
    return bool(_parts(source)[1])


def moved(source: str, move: Callable[[Path], str]) -> str:
    """Returns a source with its path written another way; a module is found by its name and stays as it is.

    Args:
        source: As typed.
        move: Path as typed -> path as wanted.
    """
    place, function = _parts(source)
    if function and not place.endswith(".py"):
        return source
    return move(Path(place)) + function


def default_name(source: str) -> str:
    """Returns a name for artifacts that says which model they come from."""
    place, function = _parts(source)
    stem = place.replace(".", "-") if function and not place.endswith(".py") else Path(place).stem
    cleaned = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "._-") else "-" for letter in stem)
    return cleaned.strip("._-")[:64] or "model"


def _parts(source: str) -> tuple[str, str]:
    """The place, and `:function` where the source names one."""
    place, colon, function = source.rpartition(":")
    return (place, colon + function) if colon and function.isidentifier() else (source, "")
