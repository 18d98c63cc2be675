"""Variants of a package's network that compute in fewer bits: each is shipped only where it counts as float32 does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cellcount_core.evaluation.evaluate import Diameter, Report, evaluate, package_predictor
from cellcount_core.labelled.image import LabelledImage
from cellcount_core.models.engines import Engine, check_golden, load_engine, maps_of
from cellcount_core.models.package import Package, write_package
from cellcount_core.training.goldens import put_maps, read_input

Manifest = Mapping[str, object]
"""The content of `package.json` without "files"."""


@dataclass(frozen=True, slots=True)
class Gate:
    """What a variant may cost, as fractions: fall of the mean AP over IoU 0.5-0.9, and change of the count's bias."""

    ap_fall: float = 0.01
    bias_change: float = 0.005


@dataclass(frozen=True, slots=True)
class Variant:
    """An engine that computes in fewer bits, and its file in the package.

    `golden` names its own golden maps, "maps" where it is compared with those of float32. `atol` and `mean_atol` are how far
    one machine may be from another.
    """

    engine: str
    file: str
    golden: str
    atol: float
    mean_atol: float


INT8 = Variant("onnxruntime-int8", "network.int8.onnx", "maps__onnxruntime-int8", atol=0.1, mean_atol=0.0015)
"""The integers are the same on every processor, but the first convolution's float32 is not to the last bit, and is rounded to
them: a difference of 1e-6 there was seen to move single pixels by 0.044 and the mean by 0.0006."""

FLOAT16 = Variant("keras-float16", "network.weights.h5", "maps", atol=0.02, mean_atol=0.002)
"""Seen on a CPU: 0.0023 from float32. Accelerators sum in other orders."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A variant beside the float32 network, on the same images with the same separator."""

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
        """What a package states of a variant."""
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


def judge(variant: Report, reference: Report, gate: Gate) -> Verdict:
    """Compare a variant's report with that of float32. A figure that is no number does not pass."""
    fall = reference.mean_ap() - variant.mean_ap()
    change = variant.count_bias() - reference.count_bias()
    reasons = []
    if not fall < gate.ap_fall:
        reasons.append(f"mean AP must fall by less than {gate.ap_fall:g}")
    if not abs(change) < gate.bias_change:
        reasons.append(f"count bias must change by less than {100 * gate.bias_change:g} points")
    return Verdict(len(variant.images), variant.mean_ap(), fall, variant.count_bias(), change, tuple(reasons))


def add_variant(
    folder: Path,
    manifest: Manifest,
    variant: Variant,
    images: Sequence[LabelledImage],
    report: Callable[[str], None],
    *,
    diameters: Sequence[Diameter],
    gate: Gate,
) -> dict[str, object]:
    """Try a variant whose file is in the package's folder; the manifest with it, or without it where it does not pass.

    `images` are counted by the variant and by ONNX Runtime in float32, at each of `diameters`, and the variant must pass at every
    one: where float32 itself fails, nothing can fall. Both have the same weights, so images that trained may be among them, and
    many are needed: on few, the choice of tiles it was calibrated on moves the difference by more than half of the gate.
    """
    package = write_package(folder, _with(manifest, variant, {}))
    engine = load_engine(package, variant.engine, 1)
    # Whole images, whose number of pixels differs: a full batch of each would be the same image many times.
    engine.batch = 1
    own = variant.golden != "maps"
    if own:
        golden = package.file(package.golden)
        put_maps(golden, variant.golden, maps_of(engine, read_input(golden)))
        package = write_package(folder, _with(manifest, variant, {}))
    check_golden(package, engine)
    reference = load_engine(package, "onnxruntime", 1)
    figures: dict[str, object] = {}
    passed = True
    for diameter in diameters:
        counted, expected = (_report(package, each, images, diameter) for each in (engine, reference))
        verdict = judge(counted, expected, gate)
        report(f"{variant.engine}, diameter {diameter}: {verdict}")
        figures[str(diameter)] = verdict.figures()
        passed = passed and verdict.passed
    if passed:
        kept = _with(manifest, variant, figures)
    else:
        kept = dict(manifest)
        if own:
            put_maps(package.file(package.golden), variant.golden, None)
            package.file(variant.file).unlink()
    write_package(folder, kept)
    return kept


def _report(package: Package, engine: Engine, images: Sequence[LabelledImage], diameter: Diameter) -> Report:
    with package_predictor(package, engine, diameter) as predict:
        return evaluate(predict, images)


def _with(manifest: Manifest, variant: Variant, figures: Mapping[str, object]) -> dict[str, object]:
    golden = _section(manifest, "golden")
    allowed = {"maps": variant.golden, "atol": variant.atol, "mean_atol": variant.mean_atol}
    golden["engines"] = {**_section(golden, "engines"), variant.engine: allowed}
    return {
        **manifest,
        "engines": {**_section(manifest, "engines"), variant.engine: {"file": variant.file}},
        "golden": golden,
        "variants": {**_section(manifest, "variants"), variant.engine: dict(figures)},
    }


def _section(manifest: Manifest, key: str) -> dict[str, object]:
    section = manifest.get(key, {})
    if not isinstance(section, dict):
        raise TypeError(f"{key} must be an object (got {section!r})")
    return dict(section)
