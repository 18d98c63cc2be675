"""Training on the images of several laboratories: what each brings, what is ignored in it, and that none pays for another."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from pydantic import ValidationError

from cellcount_core.domain.errors import ConfigFault
from cellcount_core.labelled.image import LabelledImage
from cellcount_core.labelled.label_files import median_diameter
from cellcount_core.models.package import InputSpec
from cellcount_core.tasks.instances.crops import plain_crop, sample_of, targets_of
from cellcount_core.tasks.instances.fit import SEPARATOR_START, fit_cores
from cellcount_core.tasks.instances.learn import InstancesConfig, InstancesLearning, LabelLesson
from cellcount_core.tasks.instances.sources import SourceConfig, bright_unlabelled, of_source
from cellcount_core.tasks.instances.targets import LossConfig
from cellcount_core.training.augment import draw_crop, sprinkle
from tests.unit.training.test_fit import example
from tests.unit.training.tiny import compact, write_archive

NETWORK = {"outputs": 2, "stem": 2, "filters": [4, 8], "skip": "add", "up": "project", "batch_norm": True}
SPEC = InputSpec(("nuclei",), 20.0, 99.8, 12.0)


def config(data: object, **changes: object) -> InstancesConfig:
    return InstancesConfig.model_validate(
        {
            "name": "tiny", "data": data, "network": NETWORK, "steps": 4, "batch": 3, "crop_px": 64,
            "work_dir": "unused", "package_dir": "unused", **changes,
        }
    )  # fmt: skip


def discs(
    *places: tuple[int, int], radius: int = 8, unlabelled: tuple[tuple[int, int], ...] = ()
) -> LabelledImage:
    """Discs of 2300 on a background of 300, some without a label."""
    labels = np.zeros((128, 128), np.int32)
    for number, place in enumerate(places, 1):
        cv2.circle(labels, place, radius, number, -1)
    bright = labels.copy()
    for place in unlabelled:
        cv2.circle(bright, place, radius, 99, -1)
    noise = np.random.default_rng(0).normal(0, 20, labels.shape)
    plane = (300 + 2000 * (bright > 0) + noise).astype(np.uint16)
    return LabelledImage("a", plane, labels, "g", "", median_diameter(labels))


def archive(path: Path, images: int, level: int) -> Path:
    """An archive of made-up images, whose brightness tells them apart."""
    stack = [discs((30, 30), (90, 60 + 4 * number)) for number in range(images)]
    planes = np.stack([image.plane // 4 + level for image in stack]).astype(np.uint16)
    np.savez(path, X=planes, y=np.stack([image.labels for image in stack]))
    return path


def two_sources(tmp_path: Path, **second: object) -> InstancesConfig:
    first = {"name": "one", "kind": "npz", "path": str(archive(tmp_path / "one.npz", 10, 0)), "weight": 3}
    other = {"name": "two", "kind": "npz", "path": str(archive(tmp_path / "two.npz", 20, 500)), **second}
    return config([first, other])


def loaded(of: InstancesConfig) -> LabelLesson:
    lesson = InstancesLearning().load(of, lambda _: None)
    assert isinstance(lesson, LabelLesson)
    return lesson


def test_a_list_of_sources_is_read_back_as_it_was_given(tmp_path: Path) -> None:
    given = two_sources(tmp_path)
    assert [source.name for source in given.sources] == ["one", "two"]
    assert InstancesConfig.model_validate_json(given.model_dump_json(exclude_unset=True)) == given


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([], "empty list"),
        ([{"path": "a"}, {"path": "b"}], "a name of its own"),
        ([{"name": "x", "path": "a"}, {"name": "x", "path": "b"}], "a name of its own"),
        ([{"name": "x", "path": "a"}, {"name": "y", "path": "b", "kind": "foldr"}], "did you mean 'folder'"),
        ([{"name": "x", "path": "a", "weight": 0}, {"name": "y", "path": "b"}], "greater than 0"),
    ],
)
def test_sources_that_do_not_go_together_are_refused(data: object, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        config(data)


def test_crops_are_shared_by_the_weights_of_the_sources_and_not_by_their_numbers(tmp_path: Path) -> None:
    lesson = loaded(two_sources(tmp_path))
    chances = lesson.chances()
    assert chances.sum() == pytest.approx(1)
    assert chances[[image.id.startswith("one/") for image in lesson.train]].sum() == pytest.approx(0.75)
    assert lesson.statistics_chances(4).shape == chances.shape


def test_images_of_equal_names_stay_apart_and_every_source_is_measured(tmp_path: Path) -> None:
    lesson = loaded(two_sources(tmp_path))
    every = [*lesson.train, *lesson.fit, *lesson.validation]
    assert len({image.id for image in every}) == 30
    assert {image.group.split("/")[0] for image in every} == {"one", "two"}
    apart = lesson.measured_apart()
    assert {name: len(images) for name, images in apart.items()} == {"one": 2, "two": 4}
    assert loaded(config(two_sources(tmp_path).data.model_dump())).measured_apart() == {}


def test_images_labelled_in_part_are_named_as_they_are_in_the_run(tmp_path: Path) -> None:
    assert two_sources(tmp_path, partial=["3"]).partial() == ("two/3",)
    given = two_sources(tmp_path)
    fold = given.model_copy(update=given.in_fold(2, 5))
    assert [each.fold for each in fold.sources] == [(2, 5), (2, 5)]


def test_bright_pixels_without_a_label_are_ignored_and_those_around_labels_are_not() -> None:
    image = discs((30, 30), (90, 30), unlabelled=((60, 90),))
    ignored = bright_unlabelled(image.plane, image.labels)
    disc = cv2.circle(np.zeros((128, 128), np.uint8), (60, 90), 8, 1, -1) > 0
    assert ignored[disc].mean() > 0.95
    assert ignored[~disc].mean() < 0.01
    assert not bright_unlabelled(image.plane, np.zeros_like(image.labels)).any()
    assert not bright_unlabelled(2600 - image.plane, image.labels).any()


def test_a_number_may_mean_not_labelled_here() -> None:
    image = discs((30, 30), (90, 30))
    labels = image.labels.copy()
    labels[100:, :] = 65535
    marked = LabelledImage("a", image.plane, labels, "g", "", 17.0)
    seen = of_source(
        marked, SourceConfig.model_validate({"path": "p", "name": "n", "ignore": {"label": 65535}})
    )
    assert (seen.id, seen.group) == ("n/a", "n/g")
    np.testing.assert_array_equal(seen.labels, image.labels)
    assert seen.ignored is not None
    assert seen.ignored[100:].all()
    assert not seen.ignored[:100].any()


def test_regions_take_out_the_objects_that_lie_mostly_in_them(tmp_path: Path) -> None:
    image = discs((30, 30), (90, 30), (64, 100))
    mask = np.zeros((128, 128), np.uint8)
    mask[:, 86:] = 7
    cv2.imwrite(str(tmp_path / "a.png"), mask)
    source = SourceConfig.model_validate({"path": "p", "ignore": {"regions": str(tmp_path)}})
    assert set(np.unique(of_source(image, source).labels)) == {0, 1, 3}
    cv2.imwrite(str(tmp_path / "a.png"), mask[:64])
    with pytest.raises(ConfigFault, match=r"a\.png: a mask of \(64, 128\)"):
        of_source(image, source)
    with pytest.raises(ConfigFault, match="no such folder"):
        of_source(
            image, SourceConfig.model_validate({"path": "p", "ignore": {"regions": str(tmp_path / "no")}})
        )


def test_ignored_pixels_weigh_nothing_in_any_crop() -> None:
    image = discs((30, 30), (90, 30), unlabelled=((60, 90),))
    sample = sample_of(
        of_source(image, SourceConfig.model_validate({"path": "p", "ignore": {"bright": True}})), SPEC
    )
    rng = np.random.default_rng(1)
    plain = targets_of(plain_crop(rng, sample, 128), ("foreground", "distance"), LossConfig())
    assert plain[90, 60, -1] == 0
    assert plain[30, 30, -1] > 0
    for _ in range(8):
        crop = draw_crop(rng, sample.linear, sample.labels, sample.sizes, 1.0, 128)
        targets = targets_of(crop, ("foreground", "distance"), LossConfig())
        assert (crop.labels >= 0).all()
        # The one bright disc without a label is the only place of the image that may weigh nothing.
        weightless = (targets[..., -1] == 0) & (crop.valid > 0)
        assert (weightless == ((crop.taught == 0) & (crop.valid > 0))).all()


def test_background_beyond_the_edge_weighs_as_background_whatever_is_mirrored_there() -> None:
    sample = sample_of(discs((4, 64), (20, 64), (36, 64)), SPEC)
    loss = LossConfig(touching=3.0)
    seen = 0
    for seed in range(40):
        crop = draw_crop(np.random.default_rng(seed), sample.linear, sample.labels, sample.sizes, 0.5, 128)
        beyond = crop.valid == 0
        if crop.blank and (crop.labels[beyond] > 0).any():
            seen += 1
            targets = targets_of(crop, ("foreground", "distance"), loss)
            assert (targets[beyond][:, :-1] == 0).all()
            assert (targets[beyond][:, -1] == 1).all()
    assert seen


def test_small_copies_lie_on_background_apart_from_all_objects() -> None:
    image = discs((30, 30), (90, 30), radius=12)
    sample = sample_of(image, SPEC)
    whole = np.ones((128, 128), bool)
    put = 0
    for seed in range(10):
        pixels, labels, sizes = sprinkle(
            np.random.default_rng(seed), sample.linear, sample.labels, sample.sizes, whole, 1.0
        )
        np.testing.assert_array_equal(labels[sample.labels > 0], sample.labels[sample.labels > 0])
        for number in range(3, len(sizes)):
            mask = labels == number
            put += 1
            assert 3.5 <= sizes[number] <= 14
            around = cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
            assert set(np.unique(labels[around])) <= {0, number}
            assert pixels[mask].mean() > sample.linear[mask].mean() + 0.1
    assert put > 10


@pytest.mark.slow
def test_no_source_pays_for_another_however_many_images_that_has() -> None:
    few, many = example(0.4), example(0.55)
    images, maps = zip(few, *[many] * 5, strict=True)
    groups = ["few", *["many"] * 5]
    start = {**SEPARATOR_START, "foreground": 0.7, "edge_area": 8.0, "outline": 0.5}

    def outline(sources: Sequence[str]) -> float:
        fitted = fit_cores(
            list(images), list(maps), lambda _: None, start=start, names=("outline",), groups=sources
        )
        return fitted["outline"]

    assert outline(()) == pytest.approx(0.55, abs=0.051)
    assert outline(groups) < outline(())


@pytest.mark.slow
def test_a_package_of_two_sources_says_what_it_learnt_from_and_how_it_does_on_each(tmp_path: Path) -> None:
    pytest.importorskip("keras", reason="Keras is not installed (extra: train)")
    pytest.importorskip("onnx", reason="onnx is not installed (extra: train)")
    from cellcount_core.training.trainer import train

    write_archive(tmp_path / "X_and_y.npz")
    write_archive(tmp_path / "other.npz", count=12)
    one = compact(tmp_path)
    sources = [
        {**one.data.model_dump(), "name": "one", "licence": "CC0-1.0", "title": "First"},
        {**one.data.model_dump(), "name": "two", "path": str(tmp_path / "other.npz"), "weight": 2.0},
    ]
    tree = {**one.model_dump(exclude={"data", "beside"}), "data": sources, "steps": 20}
    lines: list[str] = []
    package = train(InstancesConfig.model_validate(tree), report=lines.append)
    manifest = json.loads((package / "package.json").read_text())
    assert manifest["training"]["licence"] == "CC0-1.0, not stated"
    assert [source["weight"] for source in manifest["training"]["sources"]] == [1.0, 2.0]
    measured = manifest["accuracy"]["sources"]
    assert {name: figures["images"] for name, figures in measured.items()} == {"one": 2, "two": 3}
    first = next(line for line in lines if line.startswith("step 1 of 20"))
    assert "s a step" in first
    assert lines.index(first) < next(at for at, line in enumerate(lines) if "validation" in line)
