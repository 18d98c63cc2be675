"""`cellcount pictures`."""

from __future__ import annotations

from cellcount_core.domain.errors import ExitCode


def draw(out: str, fields: int, endpoint: str | None) -> int:
    """Draw the pictures of a run and say where they are."""
    from cellcount_core.report.pictures import draw_pictures
    from cellcount_core.stores.open import asked_for, open_store

    options = asked_for(out, endpoint=endpoint)
    pictures = draw_pictures(open_store(out, options), options, fields)
    place = out.rstrip("/")
    for key in (pictures.plate_map, pictures.overlays, *pictures.fields):
        print(f"{place}/{key}")
    return int(ExitCode.OK)
