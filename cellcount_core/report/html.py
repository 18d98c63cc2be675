"""Pages: templates filled in by Jinja2, where every value is escaped. A page is one file that asks for nothing outside it."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment


@dataclass(frozen=True, slots=True)
class Card:
    """A figure at the top of a page: its name, its value, and what stands below it (None: nothing, and no room for it)."""

    name: str
    value: str
    below: str | None = None


def render(template: str, **values: object) -> str:
    """The template of that name in `report/templates/` with these values; text among them is escaped, whatever it holds.

    Equal values give equal bytes. Raises jinja2.UndefinedError where the template names a value that is not given.
    """
    page: str = _environment().get_template(template).render(values)
    return page


def inline_png(png: bytes) -> str:
    """A picture as the `src` of an image, so that it lies within the page."""
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
