"""cellcount: counts cells in microscope images at plate scale.

>>> import cellcount_core as cc
>>> image, planted = cc.made_up_image(objects=40)
>>> result = cc.count(image)

`import cellcount_core` takes no time: what a function needs is imported when it is first asked for.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cellcount_core.api.calls import count, evaluate, plan, run
    from cellcount_core.api.result import Result
    from cellcount_core.demo.plate import made_up_image, made_up_labelled, made_up_plate
    from cellcount_core.domain.doubts import DoubtfulCount
    from cellcount_core.output.open import Output
    from cellcount_core.output.open import open_output as open  # noqa: A004

__all__ = [
    "DoubtfulCount", "Output", "Result", "__version__", "count", "evaluate", "made_up_image", "made_up_labelled",
    "made_up_plate", "open", "plan", "run",
]  # fmt: skip
__version__ = "0.1.0"

_HOMES = {
    "count": "cellcount_core.api.calls",
    "plan": "cellcount_core.api.calls",
    "run": "cellcount_core.api.calls",
    "evaluate": "cellcount_core.api.calls",
    "Result": "cellcount_core.api.result",
    "DoubtfulCount": "cellcount_core.domain.doubts",
    "Output": "cellcount_core.output.open",
    "made_up_image": "cellcount_core.demo.plate",
    "made_up_labelled": "cellcount_core.demo.plate",
    "made_up_plate": "cellcount_core.demo.plate",
}
"""In which module each public name is defined."""


def __getattr__(name: str) -> object:
    if name == "open":
        return import_module("cellcount_core.output.open").open_output
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """`cellcount_core.plan` is the public function, though a package below has that name too and is imported by its path."""

    @property
    def plan(self) -> object:
        """See `cellcount_core.api.calls.plan`."""
        return __getattr__("plan")

    @plan.setter
    def plan(self, _: object) -> None:
        """What the import of the package of that name sets is not kept."""


sys.modules[__name__].__class__ = _Package
