"""Does another layout fit the names better than the one in use?"""

from __future__ import annotations

from collections.abc import Iterable

from cellcount_core.layouts.base import ignored_name
from cellcount_core.layouts.imagexpress import tells_site_or_channel


def suggest(keys: Iterable[str]) -> str | None:
    """A warning for a run with layout `flat` where most names of images follow the ImageXpress convention, or None."""
    images = matching = 0
    for key in keys:
        if ignored_name(key) is None:
            images += 1
            matching += tells_site_or_channel(key)
    return hint(images, matching)


def hint(images: int, matching: int) -> str | None:
    """The warning, where `matching` of `images` names follow the ImageXpress convention and that is most of them."""
    if matching * 2 <= images:
        return None
    return (
        f"{matching} of {images} names look like ImageXpress names (plate_well_site_channel), but the layout 'flat' counts "
        "every file as an image of its own, channels and thumbnails too: did you mean --layout imagexpress?"
    )
