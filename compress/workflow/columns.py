"""Which columns of the data a run keeps beside its features."""

from __future__ import annotations

from compress.data.load import TABLES
from compress.recipe import DataConfig, Recipe


def with_columns(recipe: Recipe) -> DataConfig:
    """Returns `[data]` that also keeps the columns of segments and of time: tables drop what nobody names."""
    config = recipe.data
    if not config.source.lower().endswith(TABLES):
        return config
    wanted = [segment.column for segment in recipe.segments.values()]
    wanted += [recipe.evaluate.time] if recipe.evaluate.time else []
    more = tuple(name for name in dict.fromkeys(wanted) if name not in config.sensitive)
    return config.model_copy(update={"sensitive": (*config.sensitive, *more)}) if more else config
