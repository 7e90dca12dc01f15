"""How the files that a user writes are read: TOML, strict, with messages for the person who wrote them."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from compress.errors import CompressError, RecipeError, did_you_mean


class Strict(BaseModel):
    """A frozen table of a file that a user writes: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True, allow_inf_nan=False)


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
    except RecursionError as error:
        raise kind(f"{path}: not valid TOML: nested too deeply", "see docs/recipe.md for the format.") from error


def validate(schema: type[T], values: Mapping[str, Any], where: str, kind: type[CompressError] = RecipeError) -> T:
    """Checks values against a schema and words what is wrong for the person who wrote the file.

    Nothing is converted: `"8"` and `true` are no numbers. A whole number may stand where a fraction may.

    Args:
        schema: The pydantic model.
        values: What the file says.
        where: The file's name, for the message.
        kind: The class of the error to raise.
    """
    # Strict validation knows lists only as JSON: TOML has no tuples.
    text = json.dumps(dict(values), default=str)
    try:
        return schema.model_validate_json(text, strict=True)
    except ValidationError as error:
        # A misspelt key often makes another one missing; the misspelling is the cause, so it is named first.
        found = sorted(error.errors(include_url=False), key=lambda item: item["type"] != "extra_forbidden")
        first = found[0]
        places = [_dotted(item, values) for item in found]
        key = places[0]
        others = len(set(places)) - 1
        more = f" (and {others} more)" if others else ""
        if first["type"] == "extra_forbidden":
            raise kind(
                f"{where}: unknown key {key!r}{more}", did_you_mean(str(first["loc"][-1]), _keys(schema, first["loc"]))
            ) from error
        if first["type"] == "missing":
            raise kind(f"{where}: the key {key!r} is missing{more}", "see docs/recipe.md for what it means.") from error
        # A key that may be of several kinds fails each of them, so all that it may be is said.
        alternatives = dict.fromkeys(_worded(item) for item, place in zip(found, places, strict=True) if place == key)
        if first["type"] == "value_error":
            said = f"{key}: {next(iter(alternatives))}" if key else next(iter(alternatives))
        else:
            said = f"{key} {' or '.join(alternatives).replace('or must be ', 'or ')}; got {first['input']!r}"
        raise kind(f"{where}: {said}{more}", "see docs/recipe.md for the keys.") from error


def _worded(item: ErrorDetails) -> str:
    if item["type"] in ("tuple_type", "list_type"):
        return "must be a list"
    if item["type"] in ("dict_type", "model_type"):
        return "must be a table"
    if item["type"] in ("too_short", "string_too_short"):
        return "must not be empty"
    if item["type"] == "string_pattern_mismatch":
        return f"must match {item['ctx']['pattern']}"
    return item["msg"].removeprefix("Value error, ").replace("Input should", "must", 1)


def _dotted(item: ErrorDetails, values: Any) -> str:
    """The key as the file has it; steps of the location that choose a kind of value are not in the file."""
    text = ""
    for part in item["loc"]:
        if isinstance(part, int) and isinstance(values, list | tuple):
            text += f"[{part}]"
            values = values[part]
        elif isinstance(values, Mapping) and (part in values or item["type"] == "missing"):
            text += f".{part}" if text else str(part)
            values = values.get(part)
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
