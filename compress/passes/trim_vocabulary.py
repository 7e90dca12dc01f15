"""Tables of embeddings without the rows that no row of the data looks up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch.fx import GraphModule

from compress.data.base import Dataset
from compress.data.text import text_reader
from compress.data.text_vocabulary import ids_of, special_ids, unknown_id
from compress.errors import PassError
from compress.model.belongings import token_tables
from compress.model.core import Model
from compress.model.edit import edited, get_parameter, set_buffer, set_parameter, unused_name
from compress.model.layers import layers, select
from compress.passes.base import Change, Context, PassResult, Skip
from compress.passes.lookups import INDEX, fixed_ids, is_mapped, lookups
from compress.passes.weights import SharedWeight, chosen_weights, names_of
from compress.schema import Strict, validate

_ID_BYTES = 4


class Options(Strict):
    """`[[passes]] kind = "trim_vocabulary"`.

    `min_count`: how often train and calibration rows must look a row of the table up for it to stay. `keep_extra`: ids
    that stay in any case, or tokens of the model's tokenizer. `include` and `exclude` are patterns on layer names.
    """

    min_count: int = Field(default=1, ge=1)
    keep_extra: tuple[str | int, ...] = ()
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class _Table:
    """A table to trim: which ids keep their row, and what stands for all others.

    `unknown` is the id whose row that is; None where it is a new row, the mean of those that went. Where `closed`, the
    graph itself says every id, so that there are no others.
    """

    weight: SharedWeight
    kept: NDArray[np.int64]
    unknown: int | None
    closed: bool

    @property
    def new_rows(self) -> int:
        """How many rows are added to those that stay."""
        return int(self.unknown is None and not self.closed)

    def rows(self, table: torch.Tensor) -> torch.Tensor:
        """Returns the rows that stay, and the new one."""
        left = table[torch.from_numpy(self.kept)]
        if not self.new_rows:
            return left
        gone = np.setdiff1d(np.arange(len(table)), self.kept)
        return torch.cat([left, table[torch.from_numpy(gone)].double().mean(0, keepdim=True).to(table.dtype)])

    def places(self, size: int) -> NDArray[np.int64]:
        """Returns the new row of every old id, `[size]`."""
        unknown = 0 if self.closed else len(self.kept)
        if self.unknown is not None:
            unknown = int(np.searchsorted(self.kept, self.unknown))
        found = np.full(size, unknown, np.int64)
        found[self.kept] = np.arange(len(self.kept))
        return found


class TrimVocabulary:
    """Takes the rows out that train and calibration rows never look up; the graph maps old ids to the rows left.

    1. The Model takes the ids that it took before: its tokenizer, its rows and its signature stay. A table of four
       bytes an old id stands between them and the rows.
    2. What has no row any more is unknown: it gets the row of the tokenizer's unknown token or, where ids are no
       tokens, the mean of all rows that went.
    3. For whatever looks up only rows that stay, the function is the same.
    """

    def apply(self, model: Model, data: Dataset | None, ctx: Context) -> PassResult:
        """Trims every chosen table where that saves more than the table of ids costs.

        Raises:
            RecipeError: If an option is unknown or wrong.
            CompressError: If a pattern matches no layer, or `keep_extra` or a row of the data names what is not there.
        """
        options = validate(Options, dict(ctx.options), "passes: trim_vocabulary")
        if data is None:
            return PassResult(model, (), (Skip("the whole model", "there are no rows to say which ids are used"),))
        module = model.program.module(check_guards=False)
        found = layers(model)
        reasons = select(found, options.include, options.exclude, "trim_vocabulary")
        for layer in found:
            if not reasons[layer.name] and layer.operator != "embedding":
                reasons[layer.name] = f"{layer.operator} is no look-up"
            elif not reasons[layer.name] and is_mapped(module, layer):
                reasons[layer.name] = "its ids are mapped to fewer rows already"
        chosen, skipped = chosen_weights(module, found, reasons)
        reader, tokens = text_reader(data), set(token_tables(data, model))
        if reader is None and any(isinstance(item, str) for item in options.keep_extra):
            raise PassError("trim_vocabulary.keep_extra names tokens, but the rows are no texts", "name ids instead.")
        used = np.concatenate([data.split("train"), data.split("calibration")])
        counts = lookups(module, model, chosen, data, used)
        held_out = lookups(module, model, chosen, data, data.split("validation"))
        changed: list[Change] = []
        tables: list[_Table] = []
        for weight in chosen:
            read = reader is not None and bool(tokens & set(names_of(module, weight.name)))
            definition = reader.tokenizer.definition if reader is not None and read else None
            fixed, closed = fixed_ids(module, weight)
            # Where there are texts, what is to be kept are tokens, and no positions.
            extra = options.keep_extra if (read or reader is None) and not closed else ()
            kept = _kept(counts[weight.name], options.min_count, fixed, definition, extra)
            table = _Table(weight, kept, None if definition is None else unknown_id(definition), closed)
            name, old = weight.layers[0].name, get_parameter(module, weight.name)
            saved = (len(old) - len(kept) - table.new_rows) * old.shape[1] * old.element_size()
            if saved <= len(old) * _ID_BYTES:
                few = f"{len(kept):,} of {len(old):,} rows are used: too few would go to pay for the map"
                skipped.append(Skip(name, few))
                continue
            tables.append(table)
            lost = "no other id can come" if closed else _lost(held_out[weight.name], kept, definition)
            said = f"{len(old):,} -> {len(kept) + table.new_rows:,} rows: {saved:,} bytes less"
            changed.append(Change(name, f"{said}, {len(old) * _ID_BYTES:,} for the map; {lost}"))

        def edit(copy: GraphModule) -> None:
            for table in tables:
                _trim(copy, table)

        result = edited(model, edit, "trim_vocabulary") if tables else model
        return PassResult(result, tuple(changed), tuple(skipped))


def _kept(
    counts: NDArray[np.int64], least: int, fixed: set[int], definition: bytes | None, extra: Sequence[str | int]
) -> NDArray[np.int64]:
    """The ids that keep their row, ascending."""
    kept = set(np.flatnonzero(counts >= least).tolist()) | fixed
    if definition is not None:
        unknown = unknown_id(definition)
        kept |= special_ids(definition) | ({unknown} if unknown is not None else set())
        kept |= ids_of(definition, [item for item in extra if isinstance(item, str)], "trim_vocabulary.keep_extra")
    numbers = {item for item in extra if isinstance(item, int)}
    outside = sorted(number for number in numbers if not 0 <= number < len(counts))
    if outside:
        raise PassError(
            f"trim_vocabulary.keep_extra: there is no row {outside[0]} in a table of {len(counts)}",
            "ids are counted from 0; include the tables that they belong to.",
        )
    return np.array(sorted(number for number in kept | numbers if number < len(counts)), np.int64)


def _lost(counts: NDArray[np.int64], kept: NDArray[np.int64], definition: bytes | None) -> str:
    """How many of the look-ups by rows that nothing was chosen by become unknown."""
    telling = counts.copy()
    if definition is not None:
        # Padding and the ends of a text are no evidence.
        telling[[number for number in special_ids(definition) if number < len(telling)]] = 0
    return f"{telling.sum() - telling[kept].sum():,} of {telling.sum():,} look-ups of validation rows become unknown"


def _trim(module: GraphModule, table: _Table) -> None:
    name = table.weight.name
    old = get_parameter(module, name).detach()
    left = table.rows(old)
    for tied in names_of(module, name):
        set_parameter(module, tied, left)
    owner = name.rpartition(".")[0]
    places = unused_name(module, f"{owner}.row_of_id".lstrip("."))
    set_buffer(module, places, torch.from_numpy(table.places(len(old)).astype(np.int32)))
    nodes = {node.name: node for node in module.graph.nodes}
    for layer in table.weight.layers:
        call = nodes[layer.node]
        with module.graph.inserting_before(call):
            held = module.graph.get_attr(places)
            rows = module.graph.call_function(INDEX, (held, [call.args[1]]))
        arguments: list[object] = list(call.args)
        arguments[1] = rows
        if len(arguments) > 2:
            # It says which row gets no gradient.
            padding = arguments[2]
            arguments[2] = int(table.places(len(old))[padding]) if isinstance(padding, int) and padding >= 0 else -1
        call.args = tuple(arguments)
