"""How the files that a user writes are read: TOML, strict, with messages for the person who wrote them."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from compress.errors import CompressError, RecipeError, did_you_mean


class Strict(BaseModel):
    """A frozen table of a file that a user writes: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)


T = TypeVar("T", bound=BaseModel)


def read_toml(path: Path, kind: type[CompressError] = RecipeError) -> dict[str, Any]:
    """Reads a TOML file of at most 1 MiB.

    Raises:
        CompressError: Of the given kind, if the file is missing, too large, or not TOML.
    """
    try:
        if path.stat().st_size > 1 << 20:
            raise kind(f"{path}: larger than 1 MiB", "a recipe is a short text file; is this the right one?")
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise kind(f"{path}: {error.strerror or error}", "check the path.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise kind(f"{path}: not valid TOML: {error}", "see docs/recipe.md for the format.") from error


def validate(schema: type[T], values: Mapping[str, Any], where: str, kind: type[CompressError] = RecipeError) -> T:
    """Checks values against a schema and words what is wrong for the person who wrote the file.

    Args:
        schema: The pydantic model.
        values: What the file says.
        where: The file's name, for the message.
        kind: The class of the error to raise.
    """
    try:
        return schema.model_validate(dict(values))
    except ValidationError as error:
        # A misspelt key often makes another one missing; the misspelling is the cause, so it is named first.
        found = sorted(error.errors(include_url=False), key=lambda item: item["type"] != "extra_forbidden")
        first = found[0]
        key = _dotted(first["loc"])
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        if first["type"] == "extra_forbidden":
            raise kind(
                f"{where}: unknown key {key!r}{more}", did_you_mean(str(first["loc"][-1]), _keys(schema, first["loc"]))
            ) from error
        if first["type"] == "missing":
            raise kind(f"{where}: the key {key!r} is missing{more}", "see docs/recipe.md for what it means.") from error
        text = first["msg"].removeprefix("Value error, ")
        shown = "" if isinstance(first["input"], dict) or first["type"] == "value_error" else f"; got {first['input']!r}"
        prefix = f"{key}: " if key else ""
        raise kind(f"{where}: {prefix}{text}{shown}{more}", "see docs/recipe.md for the keys.") from error


def _dotted(location: tuple[int | str, ...]) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else (f".{part}" if text else str(part))
    return text


def _keys(schema: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """The keys known where `location` points, found by walking the schema's fields."""
    current: type[BaseModel] = schema
    for part in location[:-1]:
        field = next((f for n, f in current.model_fields.items() if part in (n, f.alias)), None)
        if field is None:
            continue
        found = _model_in(field.annotation)
        if found is not None:
            current = found
    return [field.alias or name for name, field in current.model_fields.items()]


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _model_in(argument)
        if found is not None:
            return found
    return None
