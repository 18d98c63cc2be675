"""What a package holds beside its float32 network: golden tensors, and variants that compute in fewer bits.

Golden tensors are small crops full of objects, with the maps that every engine must give for them and what the task finds in those. A
variant is shipped only if it counts as the float32 network does. The int8 variant holds every convolution but the first and the last
in 8-bit integers, calibrated on training images.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cellcount_core.domain.columns import Value
from cellcount_core.evaluation.evaluate import Diameter, in_turn, objects_of, package_scorer
from cellcount_core.images.imagefile import Plane
from cellcount_core.images.pixels import LARGEST_FACTOR, SMALLEST_FACTOR
from cellcount_core.labelled.image import Pictured
from cellcount_core.models.engines import Engine, check_golden, load_engine, maps_of
from cellcount_core.models.engines.onnx import keep_onnxruntime_silent
from cellcount_core.models.families import family_named
from cellcount_core.models.families.onnx_graph import Weights
from cellcount_core.models.package import InputSpec, Package, write_package
from cellcount_core.pipeline.maps import whole_canvas
from cellcount_core.tasks.matching import Report
from cellcount_core.tasks.task import task_of

Crops = NDArray[np.float32]


def busiest(
    planes: Sequence[Plane], spec: InputSpec, size: int, objects: Callable[[int, int], int]
) -> NDArray[np.float32]:
    """Cut a crop (size, size, C) float32 of an image, normalised as part of the whole image, where it has the most objects.

    `objects` tells how many there are in the crop with a given upper left corner (top, left). `size` is a multiple of the stride.
    """
    canvas = whole_canvas(planes, spec, size)
    places = [
        (top, left)
        for top in range(0, canvas.shape[0] - size + 1, size // 2)
        for left in range(0, canvas.shape[1] - size + 1, size // 2)
    ]
    top, left = max(places, key=lambda place: objects(*place))
    return np.ascontiguousarray(canvas[top : top + size, left : left + size])


def put_arrays(path: Path, arrays: Mapping[str, NDArray[np.generic] | None]) -> None:
    """Add arrays to a golden file, which is made if it is not there, or take out those that are None.

    `input` (N, h, w, C) and `maps` (N, h, w, K) float32 are what every engine is checked with.
    """
    kept: dict[str, NDArray[np.generic] | None] = {}
    if path.is_file():
        with np.load(path, allow_pickle=False) as stored:
            kept = {name: stored[name] for name in stored.files if name not in arrays}
    kept |= arrays
    np.savez_compressed(
        path, allow_pickle=False, **{name: array for name, array in kept.items() if array is not None}
    )


def read_golden(path: Path, name: str) -> Crops:
    """Read one array (N, h, w, channels) float32 of a golden file."""
    with np.load(path, allow_pickle=False) as stored:
        return np.asarray(stored[name], np.float32)


CalibrationTile = NDArray[np.float32]

_TILES = 128
_TILE_PX = 256
_SCALES = (1.0, 0.7, 1.4)
"""Calibration images are brought to these multiples of the model's scale, in turn, because the scale of a run is
never exact."""


def calibration_tiles(images: Sequence[Pictured], spec: InputSpec, stride: int) -> list[CalibrationTile]:
    """Cut up to 128 normalised tiles (h, w, C) float32 from training images, evenly spread, at about the model's
    scale.

    Every image is normalised whole, as in a run, and gives its centre, at most 256 px a side. h and w are multiples
    of the network's `stride`.
    """
    chosen = images[:: max(1, len(images) // _TILES)][:_TILES]
    tiles = []
    for number, image in enumerate(chosen):
        factor = 1.0
        if spec.diameter_px is not None and image.diameter_px > 0:
            factor = _SCALES[number % len(_SCALES)] * spec.diameter_px / image.diameter_px
            factor = float(np.clip(factor, SMALLEST_FACTOR, LARGEST_FACTOR))
        canvas = whole_canvas(list(image.planes.values()), spec, stride, factor)
        top, left = (max(0, (side - _TILE_PX) // 2) for side in canvas.shape[:2])
        tiles.append(np.ascontiguousarray(canvas[top : top + _TILE_PX, left : left + _TILE_PX]))
    return tiles


def write_int8(
    config: Mapping[str, object],
    weights: Weights,
    tiles: Sequence[CalibrationTile],
    path: Path,
    *,
    family: str = "unet",
) -> None:
    """Write the network in 8-bit integers: activations unsigned, scaled by layer; weights signed, scaled by channel,
    within -64..64.

    Seven bits of weight keep the sum of two products within 16 bits, the width in which processors without VNNI add
    them. Their integers, and so their counts, are then the same as on processors that have it.

    Activations are scaled to their smallest and largest value. Percentiles of 99.99 and 99.9, which cut outliers off,
    made `nuclei` 1.2.0 count the fitting images worse and did not improve the outlines. The extremes are found inside
    the network, tile by tile; a percentile would need every activation of every tile at once (200 MB a tile for a
    U-Net of 31 M parameters).
    """
    keep_onnxruntime_silent()
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as scratch:
        plain, prepared = Path(scratch) / "plain.onnx", Path(scratch) / "prepared.onnx"
        plain.write_bytes(family_named(family).graph(config, weights, "gather").SerializeToString())
        quant_pre_process(str(plain), str(prepared), skip_symbolic_shape=True)
        with redirect_stdout(io.StringIO()):
            # The calibrator prints its progress.
            quantize_static(
                str(prepared),
                str(path),
                _Tiles(tiles),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                reduce_range=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=list(family_named(family).float_nodes(config)),
                calibrate_method=CalibrationMethod.MinMax,
            )


class _Tiles:
    """Hands one tile after the other to ONNX Runtime's calibrator."""

    def __init__(self, tiles: Sequence[CalibrationTile]) -> None:
        self._rest: Iterator[CalibrationTile] = iter(tiles)

    def get_next(self) -> dict[str, CalibrationTile] | None:
        """The next input by name, or None after the last one."""
        tile = next(self._rest, None)
        return None if tile is None else {"image": tile[None]}


ManifestContent = Mapping[str, object]
"""The content of `package.json`, without the key "files"."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What a variant may cost, as fractions: the fall of the mean AP over IoU 0.5-0.9 (of the task's headline figure, where there are no
    objects), and the change of the count bias."""

    ap_fall: float = 0.01
    bias_change: float = 0.005


@dataclass(frozen=True, slots=True)
class Variant:
    """An engine that computes in fewer bits, and its file in the package.

    `golden` names the golden maps it is compared with: its own, or "maps" for those of float32. `atol` and
    `mean_atol` are how far one machine may differ from another, at most and on average.
    """

    engine: str
    file: str
    golden: str
    atol: float
    mean_atol: float


INT8 = Variant("onnxruntime-int8", "network.int8.onnx", "maps__onnxruntime-int8", atol=0.1, mean_atol=0.0015)
"""The integers are the same on every processor. But the float32 result of the first convolution, which is rounded to
them, is not the same to the last bit: a difference of 1e-6 there was seen to move single pixels by 0.044 and the
mean by 0.0006."""

FLOAT16 = Variant("keras-float16", "network.weights.h5", "maps", atol=0.02, mean_atol=0.002)
"""On a CPU it was seen to differ by 0.0023 from float32. Accelerators add in other orders."""


@dataclass(frozen=True, slots=True)
class VariantVerdict:
    """A variant compared with the float32 network, on the same images and with the same separator."""

    images: int
    ap_mean: float
    ap_fall: float
    count_bias: float
    bias_change: float
    reasons: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether the variant may be shipped."""
        return not self.reasons

    def figures(self) -> dict[str, float | int]:
        """The figures that a package states of a variant, rounded to four digits."""
        return {
            "images": self.images,
            "ap_mean": round(self.ap_mean, 4),
            "ap_fall": round(self.ap_fall, 4),
            "count_bias": round(self.count_bias, 4),
            "bias_change": round(self.bias_change, 4),
        }

    def __str__(self) -> str:
        told = (
            f"mean AP {self.ap_mean:.4f} (falls by {self.ap_fall:.4f}), count bias {self.count_bias:+.2%} "
            f"(changes by {100 * self.bias_change:+.2f} points) on {self.images} images"
        )
        return f"{told}: passes" if self.passed else f"{told}: left out, {' and '.join(self.reasons)}"


def judge(variant: Report, reference: Report, gate: Tolerance) -> VariantVerdict:
    """Compare a variant's report with that of float32. A figure that is not a number does not pass."""
    fall = reference.mean_ap() - variant.mean_ap()
    change = variant.count_bias() - reference.count_bias()
    reasons = []
    if not fall < gate.ap_fall:
        reasons.append(f"mean AP must fall by less than {gate.ap_fall:g}")
    if not abs(change) < gate.bias_change:
        reasons.append(f"count bias must change by less than {100 * gate.bias_change:g} points")
    return VariantVerdict(
        len(variant.images), variant.mean_ap(), fall, variant.count_bias(), change, tuple(reasons)
    )


INT8_VECTOR = replace(INT8, atol=0.25, mean_atol=0.03)
FLOAT16_VECTOR = replace(FLOAT16, atol=0.1, mean_atol=0.02)
"""The same for networks that give a vector of an image. It holds a few numbers, some of which have no bound, so none is averaged out."""


@dataclass(frozen=True, slots=True)
class FigureVerdict:
    """A variant of a task without objects compared with the float32 network: by the figure `name`, on the same images."""

    images: int
    name: str
    value: float
    fall: float
    allowed: float

    @property
    def passed(self) -> bool:
        """Whether the variant may be shipped. A figure that is not a number does not pass."""
        return self.fall < self.allowed

    def figures(self) -> dict[str, float | int]:
        """The figures that a package states of a variant, rounded to four digits."""
        return {"images": self.images, self.name: round(self.value, 4), "fall": round(self.fall, 4)}

    def __str__(self) -> str:
        told = f"{self.name} {self.value:.4f} (falls by {self.fall:.4f}) on {self.images} images"
        return (
            f"{told}: passes"
            if self.passed
            else f"{told}: left out, it must fall by less than {self.allowed:g}"
        )


def _judged(
    package: Package,
    engines: tuple[Engine, Engine],
    images: Sequence[Pictured],
    diameter: Diameter,
    gate: Tolerance,
) -> VariantVerdict | FigureVerdict:
    """Both engines' results on the images compared: the variant's, and that of float32."""
    both = []
    for engine in engines:
        with package_scorer(package, engine, diameter) as score:
            both.append(list(in_turn(score, images)))
    if all(scored.objects is not None for scored in both[0]):
        counted, expected = (Report(tuple(map(objects_of, scored))) for scored in both)
        return judge(counted, expected, gate)
    scoring = task_of(package).scoring(package)
    values = [_number(scoring.figures(scored)[scoring.headline]) for scored in both]
    return FigureVerdict(len(images), scoring.headline, values[0], values[1] - values[0], gate.ap_fall)


def _number(value: Value) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")


def add_variant(
    folder: Path,
    manifest: ManifestContent,
    variant: Variant,
    images: Sequence[Pictured],
    report: Callable[[str], None],
    *,
    diameters: Sequence[Diameter],
    gate: Tolerance,
) -> dict[str, object]:
    """Try a variant whose file is in the package's folder. Returns the manifest with it, or without it if it does not
    pass.

    `images` are counted by the variant and by ONNX Runtime in float32, at each of `diameters`, and the variant must
    pass at every one: if only a diameter were tried at which float32 itself fails, nothing could fall. Both have the
    same weights, so training images may be among them. Many images are needed: on few, the choice of calibration
    tiles alone moves the difference by more than half of the tolerance.
    """
    package = write_package(folder, _with(manifest, variant, {}))
    engine = load_engine(package, variant.engine, 1)
    # Whole images, whose number of pixels differs: a full batch of each would be the same image many times.
    engine.batch = 1
    own = variant.golden != "maps"
    if own:
        golden = package.file(package.golden)
        put_arrays(golden, {variant.golden: maps_of(engine, read_golden(golden, "input"))})
        package = write_package(folder, _with(manifest, variant, {}))
    check_golden(package, engine)
    reference = load_engine(package, "onnxruntime", 1)
    figures: dict[str, object] = {}
    passed = True
    for diameter in diameters:
        verdict = _judged(package, (engine, reference), images, diameter, gate)
        report(f"{variant.engine}, diameter {diameter}: {verdict}")
        figures[str(diameter)] = verdict.figures()
        passed = passed and verdict.passed
    if passed:
        kept = _with(manifest, variant, figures)
    else:
        kept = dict(manifest)
        if own:
            put_arrays(package.file(package.golden), {variant.golden: None})
            package.file(variant.file).unlink()
    write_package(folder, kept)
    return kept


def _with(manifest: ManifestContent, variant: Variant, figures: Mapping[str, object]) -> dict[str, object]:
    golden = _section(manifest, "golden")
    allowed = {"maps": variant.golden, "atol": variant.atol, "mean_atol": variant.mean_atol}
    golden["engines"] = {**_section(golden, "engines"), variant.engine: allowed}
    return {
        **manifest,
        "engines": {**_section(manifest, "engines"), variant.engine: {"file": variant.file}},
        "golden": golden,
        "variants": {**_section(manifest, "variants"), variant.engine: dict(figures)},
    }


def _section(manifest: ManifestContent, key: str) -> dict[str, object]:
    section = manifest.get(key, {})
    if not isinstance(section, dict):
        raise TypeError(f"{key} must be an object (got {section!r})")
    return dict(section)
