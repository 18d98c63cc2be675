"""What counting one image gives: the number, how sure it is, and every object."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

if TYPE_CHECKING:
    from cellcount_core.report.overlay import Layer


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """One counted image.

    `count`: objects in the image. `interval`: between which numbers the true count lies with the probability that the model's
    package states; None where it states none, or the image is unlike those it was measured on.
    `warnings`: codes of what is doubtful, as in the tables (docs/reference/warnings.md); `notes`: the same in words, with what
    can be done about it. `diameter`: the objects' median diameter in px that the image was counted by; None where it was
    counted as it is. `um_per_px`: the pixel size, None where it is not known.
    `labels`: (H, W) int32, 0 for the background and 1 to n for the objects; `boxes`: (n, 4) float, y0 x0 y1 x1 half-open in px of the
    image; None where the model's task finds none of the kind. `objects`: an Arrow table of one row an object, as in
    `objects/` of a run; `objects.to_pandas()` where pandas is installed. `image`: the plane that was counted, (H, W), in raw units; its colours (H, W, 3) uint8 for a model of colours.
    `row`: every column of the image's row, as in `fields/` of a run. `model`: name and version of the package.

    In a notebook it shows the image with the outline or box of every object. A package whose task counts no objects gives None for
    `count`, `labels` and `objects`; what it found stands in `row`.
    """

    count: int | None
    interval: tuple[float, float] | None
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    diameter: float | None
    um_per_px: float | None
    model: str
    labels: NDArray[np.int32] | None = field(repr=False)
    objects: pa.Table | None = field(repr=False)
    image: NDArray[np.generic] = field(repr=False)
    row: Mapping[str, object] = field(repr=False)
    boxes: NDArray[np.float64] | None = field(default=None, repr=False)
    classes: tuple[str, ...] = field(default=(), repr=False)

    def overlay(self) -> NDArray[np.uint8]:
        """The image with the outline or box of each object, if there are any: (h, w, 3) uint8 RGB, enlarged or reduced for the screen."""
        from cellcount_core.report.overlay import overlay_image

        return overlay_image(self.image, self._layer())

    def _layer(self) -> Layer:
        from cellcount_core.report.overlay import Layer

        told = None if self.objects is None or not self.classes else self.objects.column("class").to_pylist()
        places = None if told is None else np.array([self.classes.index(one) for one in told], np.int64)
        return Layer(self.labels, self.boxes, places, self.classes)

    def _repr_png_(self) -> bytes:
        from cellcount_core.report.overlay import overlay_png

        shown = self.overlay()
        size = None if self.um_per_px is None else self.um_per_px * self.image.shape[1] / shown.shape[1]
        return overlay_png(shown, caption=self._headline(), um_per_px=size, legend=self._layer().legend())

    def _repr_html_(self) -> str:
        from cellcount_core.report.html import inline_png, render

        return render(
            "result.html",
            count="no count" if self.count is None else f"{self.count:,}",
            noun="" if self.count is None else "object" if self.count == 1 else "objects",
            about=self._about(),
            notes=self.notes,
            picture=inline_png(self._repr_png_()),
        )

    def _headline(self) -> str:
        about = self._about()
        if self.count is None:
            return self.model
        return f"{self.count:,} object{'' if self.count == 1 else 's'}{f' ({about})' if about else ''}"

    def _about(self) -> str:
        """The interval and the object size, in words."""
        told = [] if self.interval is None else [f"{self.interval[0]:.0f} to {self.interval[1]:.0f}"]
        told += [] if self.diameter is None else [f"by objects of {self.diameter:.1f} px"]
        return ", ".join(told)


_OPTION = re.compile(
    r"--(?P<name>[a-z][a-z-]*)(?: (?!(?:or|and|out|is|to|with|are)\b)(?:'(?P<quoted>[^']*)'|(?P<value>[\w./:=-]+\[[^\]]*\]|[\w./:=,-]*[\w/])))?"
)
_ARGUMENTS = {
    "channel": "channel",
    "model": "model",
    "measure": "measure",
    "diameter": "diameter",
    "layout": "layout",
    "um-per-px": "um_per_px",
}
"""What `count` and `run` take by names of their own, by option."""

_SETTINGS = {
    "threshold": "run.viability.thresholds", "control": "run.viability.controls", "min-diameter": "run.viability.min_diameter",
    "max-diameter": "run.viability.max_diameter", "min-circularity": "run.viability.min_circularity", "chamber": "run.viability.chamber",
    "depth": "run.viability.depth_um", "dilution": "run.viability.dilution", "runner": "execution.runner", "address": "execution.address",
    "actors": "execution.actors", "max-failed": "execution.max_failed", "strict": "execution.strict", "per": "run.classes.per",
    "crop": "run.classes.crop_px", "plate-format": "run.plate_format", "platemap": "run.platemap",
}  # fmt: skip
"""What is a setting in Python, by option."""

_FLAGS = {"skip-faulty": 'faulty="skip"'}
_COMMAND = "`cellcount"
"""How what is to be typed on a command line begins, which stays as it is."""

_PLACEHOLDERS = frozenset(
    {"PX", "NAME", "PIXELSIZE", "UM", "SHARE", "VALUE", "NANOLITRES", "WELL", "TIMES", "N"}
)
_ONE_IMAGE = re.compile(r"; to leave (?:it|them) out: --set 'run\.exclude=\[[^\]]*\]'")


def in_python(text: str) -> str:
    """Advice that names options of the command line, in words of this module.

    Options one behind the other become arguments with commas between them, those that are settings in one `settings`.

    >>> in_python("give the right one: --set run.um_per_px=PIXELSIZE, or --diameter 25; try --model histology")
    'give the right one: settings={"run.um_per_px": PIXELSIZE}, or diameter=25; try model="histology"'
    >>> in_python("name control wells (--control live=A01,A02 --control dead=H01,H02), or change --min-diameter")
    'name control wells (settings={"run.viability.controls": {"live": ["A01", "A02"], "dead": ["H01", "H02"]}}), or change "run.viability.min_diameter"'
    """
    return "".join(
        part if part.startswith(_COMMAND) else _translated(part)
        for part in re.split(f"({_COMMAND}[^`]*`)", text)
    )


def _translated(text: str) -> str:
    told, at = "", 0
    found = list(_OPTION.finditer(text))
    while found:
        several = [found.pop(0)]
        while found and found[0].start() == several[-1].end() + 1 and text[several[-1].end()] == " ":
            several.append(found.pop(0))
        told += text[at : several[0].start()] + _arguments(several)
        at = several[-1].end()
    return told + text[at:]


def of_one_image(text: str) -> str:
    """`in_python` for the image that `count` was given: without advice that only helps where there are others."""
    return in_python(_ONE_IMAGE.sub("", text)).replace(" (`cellcount pictures`)", " (`overlay()` draws it)")


def _arguments(options: Sequence[re.Match[str]]) -> str:
    """Options that stand one behind the other, as Python would have them."""
    plain: dict[str, object] = {}
    settings: dict[str, object] = {}
    for option in options:
        name, value = option["name"], option["quoted"] or option["value"]
        if name in _FLAGS:
            return _FLAGS[name]
        if value is None:
            # The option itself is spoken of.
            named = (
                f"`{_ARGUMENTS[name]}`"
                if name in _ARGUMENTS
                else f'"{_SETTINGS[name]}"'
                if name in _SETTINGS
                else option[0]
            )
            return named + "".join(f" {one[0]}" for one in options[1:])
        if name == "set":
            key, _, text = value.partition("=")
            settings[key] = _Code(_value(text))
        elif name in _SETTINGS:
            _put(settings, _SETTINGS[name], value)
        elif name == "measure":
            plain[name] = _Code(f"[{_value(value)}]")
        elif name in _ARGUMENTS:
            _put(plain, _ARGUMENTS[name], value)
        else:
            return " ".join(one[0] for one in options)
    written = [f"{name}={_shown(value)}" for name, value in plain.items()]
    return ", ".join([*written, *([f"settings={_shown(settings)}"] if settings else [])])


class _Code(str):
    """A value as it is written in Python."""


def _put(given: dict[str, object], name: str, text: str) -> None:
    """Note a value, or the part of one that an option such as `dead=350` or `live=A01,A02` is."""
    part, equals, value = text.partition("=")
    if not equals:
        given[name] = _Code(_value(text))
        return
    parts = given.setdefault(name, {})
    assert isinstance(parts, dict)
    parts[part] = _Code(_value(f"[{value}]" if name.endswith("controls") else value))


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f'"{name}": {_shown(inner)}' for name, inner in value.items()) + "}"
    return str(value)


def _value(text: str) -> str:
    if text.startswith("["):
        return "[" + ", ".join(_value(each.strip()) for each in text[1:-1].split(",")) + "]"
    number = re.fullmatch(r"\d+(\.\d+)?", text) is not None
    return text if number or text in _PLACEHOLDERS else f'"{text}"'
