"""The pictures of a finished run: the plate map, and overlays of a few fields, which are counted again for this."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cellcount_core.config import RunConfig
from cellcount_core.domain.errors import FieldFault, LedgerFault
from cellcount_core.domain.fields import FieldKey, PlannedField
from cellcount_core.domain.scales import ALL_PLATES
from cellcount_core.output.planfile import plate_shapes, read_shards
from cellcount_core.output.run_folder import load_plan
from cellcount_core.output.runfile import RunFile, read_run
from cellcount_core.output.schema import read_table_bytes
from cellcount_core.pipeline.field import Seen, recount
from cellcount_core.reduce.ledger import fields_parts
from cellcount_core.reduce.reducer import WELLS_KEY
from cellcount_core.report.overlay import (
    Layer,
    LegendEntry,
    SheetTile,
    contact_sheet,
    overlay_image,
    overlay_png,
    picture_of,
    roles_legend,
)
from cellcount_core.report.selection import ShownField, choose_fields, titles
from cellcount_core.runners.places import Places, make_context, selections
from cellcount_core.stores.base import Absent, StorageOptions, Store
from cellcount_core.tasks.viability.judging import ALL

PLATE_MAP_KEY = "pictures/plate_map.png"
OVERLAYS_KEY = "pictures/overlays.png"
_MOST_MAPS = 12


@dataclass(frozen=True, slots=True)
class Pictures:
    """The keys, below the output, of the files that were drawn, and `notes` on them for the user."""

    plate_map: str
    overlays: str
    fields: tuple[str, ...]
    further_maps: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def draw_pictures(output: Store, options: StorageOptions, number: int) -> Pictures:
    """Draw `pictures/plate_map.png`, `pictures/overlays.png` and one PNG for each of `number` fields of a
    finished run. A task with several results (a count for each class) has a plate map for each of the others too.

    The fields are the fullest one, the median, an empty one, one with a warning, one that failed, and some
    in between. They are counted again with the run's own model and settings, so the outlines are those of
    the objects that were counted. Raises OutputFault or LedgerFault if `output` does not hold a finished
    run, ModelFault if the run's model package is not available here.
    """
    run = read_run(output)
    try:
        wells = read_table_bytes(WELLS_KEY, output.get(WELLS_KEY))
    except Absent:
        raise LedgerFault(
            f"{output.url}: no {WELLS_KEY} yet; finish the run with the same command first"
        ) from None
    # Matplotlib, which the plate map alone is drawn with, takes long to load.
    from cellcount_core.report.platelayout import drawn_results, plate_map, shape_notes
    from cellcount_core.report.platemap import plate_map_png

    shapes = plate_shapes(load_plan(output, run))
    (leading, *others), not_drawn = drawn_results(wells, run.schema, _MOST_MAPS)
    first = plate_map(wells, run.schema, leading, shapes)
    output.put(PLATE_MAP_KEY, plate_map_png(first))
    further = {_map_key(column): column for column in others}
    for key, column in further.items():
        output.put(key, plate_map_png(plate_map(wells, run.schema, column, shapes)))
    shown = choose_fields(_fields(output), run.schema, number)
    tiles, files, legend = _overlays(output, options, shown)
    output.put(OVERLAYS_KEY, contact_sheet(tiles, title="what was counted", legend=legend))
    for key, body in files.items():
        output.put(key, body)
    notes = [*shape_notes(first)]
    if not_drawn:
        notes.append(
            f"{not_drawn} further results have no plate map: those with the largest values do; {WELLS_KEY} has all"
        )
    return Pictures(PLATE_MAP_KEY, OVERLAYS_KEY, tuple(files), tuple(further), tuple(notes))


def _fields(output: Store) -> pa.Table:
    tables = [part.table for part in fields_parts(output, read_run(output))]
    return pa.concat_tables([table.replace_schema_metadata(None) for table in tables])


def _overlays(
    output: Store, options: StorageOptions, shown: Sequence[ShownField]
) -> tuple[list[SheetTile], dict[str, bytes], tuple[LegendEntry, ...]]:
    """The tiles of the sheet, the pictures of single fields by key, and the legend of the sheet."""
    run = read_run(output)
    config = RunConfig.model_validate(dict(run.run))
    context = make_context(run, config, Places(run.input, options, output.url, options), readers=4)
    planned = _planned(load_plan(output, run), [field.key for field in shown])
    tiles: list[SheetTile] = []
    files: dict[str, bytes] = {}
    stains = roles_legend(run.channels)
    classes: list[NDArray[np.int64]] = []
    for field, title, seen in zip(shown, titles(shown), recount(context, planned), strict=True):
        match seen:
            case Seen():
                layer = Layer(seen.labels, seen.found.boxes, seen.found.classes, run.schema.classes)
                full = _full(run, config, field.key.plate)
                image = overlay_image(picture_of(seen.planes, seen.bit_max, full, tuple(run.channels)), layer)
                classes += [] if seen.found.classes is None else [seen.found.classes]
                tiles.append(SheetTile(title, image))
                files[_file_key(field.key)] = overlay_png(
                    image,
                    caption=_caption(field),
                    um_per_px=_shown_um(seen, image.shape[1]),
                    legend=(*layer.legend(), *stains),
                )
            case FieldFault():
                tiles.append(SheetTile(title, None, seen.reason.sentence))
    together = Layer(classes=np.concatenate(classes), names=run.schema.classes) if classes else Layer()
    return tiles, files, (*together.legend(), *stains)


_THRESHOLDS = 3.0
"""Times its threshold above the background, at which a stain has its full colour: positive cells are bright, and what spills over is dark."""


def _full(run: RunFile, config: RunConfig, plate: str) -> dict[str, float]:
    """How far above its background a counted channel has its full colour, for roles that have a threshold which tells classes."""
    found = {one.plate: one.numbers for one in run.plate_numbers}
    numbers = found.get(plate) or found.get(ALL_PLATES) or {}
    given = config.viability.thresholds
    full = {}
    for role, selection in zip(run.channels, selections(run.channels), strict=True):
        threshold = given.get(role, numbers.get(f"{role}_threshold"))
        if threshold is not None and role != ALL:
            full[selection.name] = _THRESHOLDS * threshold
    return full


def _caption(shown: ShownField) -> str:
    key = shown.key
    return f"{key.plate} {key.well} site {key.site}   {shown.found}"


def _shown_um(seen: Seen, width: int) -> float | None:
    """The size in µm of a pixel of the field when it is shown `width` px wide."""
    return None if seen.um_per_px is None else seen.um_per_px * seen.plane.shape[1] / width


def _planned(plan: bytes, wanted: Sequence[FieldKey]) -> list[PlannedField]:
    """The planned fields with these keys, in the order of `wanted`."""
    found = {
        planned.key: planned
        for shard in read_shards(plan)
        for planned in shard.fields
        if planned.key in set(wanted)
    }
    return [found[key] for key in wanted]


def _file_key(key: FieldKey) -> str:
    name = "_".join((key.plate, key.well, f"s{key.site}", f"t{key.timepoint}"))
    return f"pictures/{_safe(name)}_{key.field_id}.png"


def _map_key(column: str) -> str:
    return f"{PLATE_MAP_KEY.removesuffix('.png')}_{_safe(column)}.png"


def _safe(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in name)
