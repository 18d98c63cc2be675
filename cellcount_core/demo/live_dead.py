"""Made-up plates of live and dead cells, whose mixture is known in every well.

Each plate is taken under one `Condition`: which two stains, how bright, how much of one spills into the other's channel, how the light
falls off. Along the columns of a plate the share of dead cells rises from 0 to 100 %. The true numbers stand in `truth.csv`, beside the images.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from cellcount_core.demo.optics import Camera, photograph
from cellcount_core.demo.scene import Scene, plant
from cellcount_core.domain.plates import WellPosition

MIXTURES = (0.0, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 1.0)
"""Share of live cells in the columns of a plate."""

UM_PER_PX = 0.65
TRUTH_COLUMNS = ("well", "site", "live", "dead", "both", "neither")

_SIDE = 512
_PEAK, _BACKGROUND, _BLUR = 600.0, 120.0, 1.2
_SPREAD = 0.35
"""Standard deviation of the logarithm of how much dead or live stain a cell takes up."""


@dataclass(frozen=True, slots=True)
class Condition:
    """How a plate is stained and photographed.

    `roles` are ("all", "dead") or ("live", "dead"), the channels w1 and w2. `first` and `dead` are how bright the stains of both are, 1 being
    usual. `spill` is the share of the first stain's light that shows in the channel of the dead one, `back` the reverse. `fall_off` is the
    share of the light that is lost in the corners. `doubles` is the share of cells that take up both stains (live + dead only).
    """

    name: str
    roles: tuple[str, str] = ("all", "dead")
    first: float = 1.0
    dead: float = 1.0
    spill: float = 0.0
    back: float = 0.0
    fall_off: float = 0.1
    doubles: float = 0.0


CONDITIONS = (
    Condition("all + dead"),
    Condition("crosstalk of 8 %", spill=0.08),
    Condition("uneven light", fall_off=0.55),
    Condition("dim dead stain", dead=0.3),
    Condition("dim stain of all", first=0.3),
    Condition("dim, crosstalk, uneven light", first=0.7, dead=0.45, spill=0.06, fall_off=0.45),
    Condition("live + dead", roles=("live", "dead")),
    Condition("live + dead, crosstalk both ways", roles=("live", "dead"), spill=0.08, back=0.05),
    Condition("live + dead, dim live, uneven light", roles=("live", "dead"), first=0.35, fall_off=0.5),
    Condition("live + dead, 5 % both", roles=("live", "dead"), doubles=0.05),
)
"""What plates are made up under, each by its name."""


@dataclass(frozen=True, slots=True)
class TruthCells:
    """The true numbers of a field."""

    well: str
    site: int
    live: int
    dead: int
    both: int = 0
    neither: int = 0


def render_live_dead(
    folder: Path, condition: Condition, seed: int, *, mixtures: tuple[float, ...] = MIXTURES, sites: int = 2, cells: int = 130,
    side: int = _SIDE, plate: str = "P",
) -> tuple[TruthCells, ...]:  # fmt: skip
    """Write a plate with a well for each mixture as `folder`/images/PLATE_A01_s1_w1.TIF …, and `folder`/truth.csv. Returns the true numbers.

    Fields are `side` px square with about `cells` cells each. Equal arguments give equal pixels.
    """
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    truths = []
    for column, live_share in enumerate(mixtures):
        well = WellPosition(*divmod(column, 12)).name
        for site in range(1, sites + 1):
            rng = np.random.default_rng((seed, column, site))
            scene = plant(rng, (side, side), cells)
            kinds = _kinds(rng, scene, live_share, condition)
            for channel, plane in enumerate(_planes(rng, scene, kinds, condition), 1):
                tifffile.imwrite(images / f"{plate}_{well}_s{site}_w{channel}.TIF", plane, compression="zlib")
            numbers = [int(np.count_nonzero(kinds == kind)) for kind in range(3)]
            truths.append(TruthCells(well, site, *numbers))
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(TRUTH_COLUMNS)
    writer.writerows((each.well, each.site, each.live, each.dead, each.both, each.neither) for each in truths)
    (folder / "truth.csv").write_text(text.getvalue())
    return tuple(truths)


def _kinds(
    rng: np.random.Generator, scene: Scene, live_share: float, condition: Condition
) -> NDArray[np.int64]:
    """The class of each cell (n,): 0 live, 1 dead, 2 both. The numbers of live and dead are as near to the mixture as whole cells are."""
    kinds = np.ones(scene.count, np.int64)
    order = rng.permutation(scene.count)
    both = round(condition.doubles * scene.count)
    kinds[order[:both]] = 2
    rest = order[both:]
    kinds[rest[: round(live_share * rest.size)]] = 0
    return kinds


def _planes(
    rng: np.random.Generator, scene: Scene, kinds: NDArray[np.int64], condition: Condition
) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    taken = rng.lognormal(0.0, _SPREAD, (2, scene.count))
    # Everybody takes up a stain of all cells, which scene.stain holds already.
    stained = (kinds != 1) | ("all" in condition.roles)
    first = np.where(stained, 1.0 if "all" in condition.roles else taken[0], 0.0)
    dead = np.where(kinds != 0, taken[1], 0.0)
    light = _light(scene.stain.shape, condition.fall_off)
    shows = [np.append(0.0, each)[scene.owners] * scene.stain for each in (first, dead)]
    shares = (
        condition.first * shows[0] + condition.back * condition.dead * shows[1],
        condition.dead * shows[1] + condition.spill * condition.first * shows[0],
    )
    one, two = (
        photograph(rng, Camera(), light, np.asarray(share, np.float32), (_PEAK, _BACKGROUND), _BLUR)
        for share in shares
    )
    return one, two


def _light(shape: tuple[int, ...], fall_off: float) -> NDArray[np.float32]:
    y, x = (np.linspace(-1, 1, length, dtype=np.float32) for length in shape)
    return np.asarray(1 - fall_off * (y[:, None] ** 2 + x[None] ** 2) / 2, np.float32)
