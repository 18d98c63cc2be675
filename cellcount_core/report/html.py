"""HTML pages from Jinja2 templates, in which every value is escaped. A page is one file that loads nothing from elsewhere."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment


@dataclass(frozen=True, slots=True)
class Card:
    """A figure at the top of a page: its name, its value, and the text below it (None leaves no room for one)."""

    name: str
    value: str
    below: str | None = None


def render(template: str, **values: object) -> str:
    """Fill in the template of this name in `report/templates/` with these values. All text is escaped,
    whatever it contains.

    Equal values give equal bytes. Raises jinja2.UndefinedError if the template uses a value that is not
    given.
    """
    page: str = _environment().get_template(template).render(values)
    return page


def inline_png(png: bytes) -> str:
    """Return a PNG as the `src` of an image, so that the picture is part of the page."""
    return "data:image/png;base64," + b64encode(png).decode("ascii")


@lru_cache(maxsize=1)
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("cellcount_core.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
