"""Trainings of networks that look at images as a whole."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from pydantic import ValidationError

from cellcount_core.domain.errors import ConfigFault
from cellcount_core.domain.trust import distrust
from cellcount_core.images.normalise import compress
from cellcount_core.labelled.whole import WholeImage
from cellcount_core.models.package import InputSpec
from cellcount_core.pipeline.maps import FieldVectors, levels
from cellcount_core.tasks.classes.learn import (
    ClassesConfig,
    ClassesLearning,
    ClassLesson,
    at_its_bound,
    fit_temperature,
)
from cellcount_core.tasks.classes.task import tempered
from cellcount_core.tasks.task import Levels
from cellcount_core.tasks.whole import starts, tiles_of
from cellcount_core.training.learning import data_digest
from cellcount_core.training.start import load_lesson
from cellcount_core.training.whole_images import (
    CacheConfig,
    Canvases,
    WholeAugment,
    augmented_view,
    linear_canvas,
)
from tests.shapes import CLASSES, class_table, tiny_classes

SPEC = InputSpec(("image",), None, 99.8, 12.0)
STILL = WholeAugment(
    turns="none",
    mirror=False,
    zoom_sigma=0,
    shift=0,
    gain_sigma=0,
    colour_sigma=0,
    offset_sigma=0,
    blur=0,
    noise=0,
)


@pytest.fixture
def images(tmp_path: Path) -> list[WholeImage]:
    class_table(tmp_path, 30)
    return list(load_lesson(tiny_classes(tmp_path)).train)  # type: ignore[arg-type]


@pytest.mark.slow
def test_what_trains_is_what_is_counted(images: list[WholeImage]) -> None:
    plane = images[0].planes["image"]

    class Sees:
        """A device that gives back what it is given."""

        def submit(self, tile: np.ndarray) -> Sees:
            self.tile = tile
            return self

        def result(self) -> np.ndarray:
            return self.tile

    vectors = FieldVectors([plane], levels([plane], SPEC), SPEC, 32, Sees())  # type: ignore[arg-type]
    counted = vectors.of(tiles_of(plane.shape, None), Levels.FIELD)[0]
    trained = augmented_view(np.random.default_rng(0), linear_canvas([plane], SPEC, 32), 32, 1.0, STILL)
    np.testing.assert_allclose(trained.ravel(), counted, atol=1e-4)


def test_8_12_and_16_bits_of_one_scene_look_alike_to_the_network() -> None:
    scene = cv2.GaussianBlur(np.random.default_rng(0).random((64, 64)), (0, 0), 4)
    scene = (scene - scene.min()) / np.ptp(scene)
    eight, twelve, sixteen = (
        np.rint(scene * top).astype(kind)
        for top, kind in ((255, np.uint8), (4095, np.uint16), (65535, np.uint16))
    )
    shown = [compress(linear_canvas([plane], SPEC, 32)) for plane in (eight, twelve, sixteen)]
    np.testing.assert_allclose(shown[0], shown[2], atol=0.02)
    np.testing.assert_allclose(shown[1], shown[2], atol=0.02)


def test_a_quarter_turn_of_a_wide_image_is_squeezed_as_the_turned_image_is() -> None:
    """An image twice as wide as high: what was a wide bar becomes a high one of the same true length."""
    wide = np.zeros((64, 128), np.float32)
    wide[28:36, 44:84] = 1  # 40 px long, 8 px high
    canvas = cv2.resize(wide, (64, 64), interpolation=cv2.INTER_AREA)[..., None]
    quarter = STILL.model_copy(update={"turns": "quarter"})
    seen = [
        augmented_view(np.random.default_rng(seed), canvas, 64, 2.0, quarter)[:, 16:48, 0] > 0.5
        for seed in range(8)
    ]
    sizes = {(int(view.any(axis=1).sum()), int(view.any(axis=0).sum())) for view in seen}
    # Beyond the edge the image is mirrored, so the middle alone is looked at. As it is: 8 px high, 20 wide in the squeezed canvas. Turned: 40 px high, 4 wide.
    assert sizes == {(8, 20), (40, 4)}


@pytest.mark.slow
def test_what_is_drawn_depends_on_the_key_alone_and_not_on_the_cache(tmp_path: Path) -> None:
    class_table(tmp_path, 30)
    seen = []
    for kind in ("memory", "disk", "off", "disk"):
        lesson = load_lesson(tiny_classes(tmp_path, cache={"kind": kind}))
        drawn = [lesson.crop(np.random.default_rng([3, n]), n % 5) for n in range(6)]
        seen.append(np.stack([pixels for pixels, _ in drawn]))
        assert drawn[0][1].sum() == pytest.approx(1)
    for other in seen[1:]:
        np.testing.assert_array_equal(seen[0], other)
    assert len(list((tmp_path / "work" / "images").glob("*.npz"))) == 5


@pytest.mark.slow
def test_a_cache_in_memory_holds_no_more_than_it_may(images: list[WholeImage], tmp_path: Path) -> None:
    canvases = Canvases(SPEC, 32, None, CacheConfig(most_mb=0), tmp_path)
    first, aspect = canvases.of(images[0])
    again, _ = canvases.of(images[0])
    assert aspect == 1
    np.testing.assert_array_equal(first, again)
    assert not canvases._kept


@pytest.mark.slow
def test_every_class_is_in_every_part_and_no_group_in_two(tmp_path: Path) -> None:
    class_table(tmp_path, 45, groups=3)
    lesson = load_lesson(tiny_classes(tmp_path))
    parts = (lesson.train, lesson.fit, lesson.validation)
    for part in parts:
        assert {image.truth.values["class"] for image in part} == set(CLASSES)
    groups = [{image.group for image in part} for part in parts]
    assert not groups[0] & groups[1] and not groups[0] & groups[2] and not groups[1] & groups[2]
    assert sum(len(part) for part in parts) == 45


@pytest.mark.slow
def test_classes_are_drawn_equally_often_whatever_their_numbers(tmp_path: Path) -> None:
    class_table(tmp_path, 40, kinds=("dots", "dots", "dots", "rings", "stripes"))
    lesson = load_lesson(tiny_classes(tmp_path))
    chances = lesson.chances()
    for name in CLASSES:
        own = [
            chance
            for chance, image in zip(chances, lesson.train, strict=True)
            if image.truth.values["class"] == name
        ]
        assert sum(own) == pytest.approx(1 / 3)


@pytest.mark.slow
def test_other_files_are_other_data(tmp_path: Path) -> None:
    class_table(tmp_path, 30)
    before = data_digest(load_lesson(tiny_classes(tmp_path)))
    assert data_digest(load_lesson(tiny_classes(tmp_path))) == before
    tifffile.imwrite(tmp_path / "4.tif", np.zeros((96, 96), np.uint16))
    assert data_digest(load_lesson(tiny_classes(tmp_path))) != before


@pytest.mark.slow
def test_a_class_without_images_is_said_before_anything_is_trained(tmp_path: Path) -> None:
    class_table(tmp_path, 30)
    with pytest.raises(ConfigFault, match="no image of class 'squares' is left to train on"):
        load_lesson(tiny_classes(tmp_path, classes=[*CLASSES, "squares"]))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"classes": ["dots", "dots"]}, "the names of the classes, each once"),
        (
            {"network": {"preset": "compact", "output": "sigmoid"}},
            "network.output: 'softmax' follows from the other settings",
        ),
        ({"crop_px": 30}, "a multiple of the network's stride"),
        ({"input": {"channels": ["image"], "diameter_px": 20}}, "diameter_px"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    with pytest.raises(ValidationError, match=said):
        tiny_classes(tmp_path, **changes)


def test_settings_survive_being_sent_to_another_process(tmp_path: Path) -> None:
    config = tiny_classes(tmp_path)
    assert ClassesConfig.model_validate_json(config.model_dump_json(exclude_unset=True)) == config


def test_tiles_cover_a_field_and_stay_in_it() -> None:
    assert starts(100, 40) == [0, 40, 60]
    covered = np.zeros((100, 70), bool)
    for y0, y1, x0, x1 in tiles_of((100, 70), (40, 40)):
        assert (y1 - y0, x1 - x0) == (40, 40)
        covered[y0:y1, x0:x1] = True
    assert covered.all()
    assert tiles_of((30, 70), (40, 40))[:, 1].tolist() == [30, 30]


def test_the_temperature_makes_too_sure_probabilities_as_sure_as_they_are_right() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 4000)
    right = rng.random(4000) < 0.8
    told = np.where(right, truth, 1 - truth)
    chances = np.full((4000, 2), 0.01)
    chances[np.arange(4000), told] = 0.99
    temperature = fit_temperature(chances, truth)
    assert tempered(chances, temperature)[0].max() == pytest.approx(0.8, abs=0.02)


def test_the_temperature_makes_too_unsure_probabilities_as_sure_as_they_are_right() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, 4000)
    told = np.where(rng.random(4000) < 0.97, truth, (truth + 1) % 4)
    chances = np.full((4000, 4), 0.15)
    chances[np.arange(4000), told] = 0.55
    temperature = fit_temperature(chances, truth)
    assert temperature < 0.4
    assert tempered(chances, temperature)[0].max() == pytest.approx(0.97, abs=0.005)


@pytest.mark.parametrize("sure", [0.4, 0.7, 0.999])
def test_few_images_that_are_all_told_right_make_no_probability_certain(sure: float) -> None:
    truth = np.arange(40) % 4
    chances = np.full((40, 4), (1 - sure) / 3)
    chances[np.arange(40), truth] = sure
    temperature = fit_temperature(chances, truth)
    assert tempered(chances, temperature).max() == pytest.approx(41 / 44, abs=0.002)


def test_of_a_network_whose_probabilities_say_nothing_the_temperature_is_at_its_bound() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 4000)
    told = rng.random(4000) < 0.5
    chances = np.stack([np.where(told, 0.01, 0.99), np.where(told, 0.99, 0.01)], axis=1)
    assert at_its_bound(fit_temperature(chances, truth))
    chances = np.full((4000, 2), 0.2)
    chances[np.arange(4000), truth] = 0.8
    assert not at_its_bound(fit_temperature(chances, truth))


@pytest.mark.slow
def test_lessons_of_a_resumed_run_are_those_of_an_uninterrupted_one(tmp_path: Path) -> None:
    pytest.importorskip("keras", reason="Keras is not installed (extra: train)")
    from cellcount_core.training.trainer import train_network

    class_table(tmp_path, 30)
    arrays = []
    for stops in ((6,), (2, 6)):
        config = tiny_classes(
            tmp_path, steps=6, checkpoint_every=2, work_dir=str(tmp_path / f"work{len(stops)}")
        )
        lesson = load_lesson(config)
        assert isinstance(lesson, ClassLesson)
        for stop in stops:
            train_network(config.model_copy(update={"steps": stop}), lesson, report=str)
        with np.load(tmp_path / f"work{len(stops)}" / "checkpoint.npz") as stored:
            arrays.append({name: stored[name] for name in stored.files if name.startswith("w")})
    for name, array in arrays[0].items():
        np.testing.assert_array_equal(array, arrays[1][name], err_msg=name)


@pytest.mark.slow
def test_a_copy_on_both_sides_of_the_split_stops_the_training_unless_it_is_allowed(tmp_path: Path) -> None:
    class_table(tmp_path, 30)
    measured = next(iter(load_lesson(tiny_classes(tmp_path)).validation)).id
    trained = next(image.id for image in load_lesson(tiny_classes(tmp_path)).train)
    turned = np.ascontiguousarray(np.rot90(tifffile.imread(tmp_path / f"{measured}.tif")))
    tifffile.imwrite(tmp_path / f"{trained}.tif", turned)
    with pytest.raises(
        ConfigFault, match=r"1 pairs .* \(the same pixels, turned or mirrored\).*--allow-leaks"
    ):
        load_lesson(tiny_classes(tmp_path))
    config = tiny_classes(tmp_path)
    allowed = config.model_copy(update={"data": config.data.model_copy(update={"allow_leaks": True})})
    lesson = load_lesson(allowed)
    assert isinstance(lesson, ClassLesson)
    assert [{pair.first, pair.second} for pair in lesson.leaks] == [{measured, trained}]


def test_the_same_image_in_two_classes_is_refused_or_left_out_whatever_its_group(tmp_path: Path) -> None:
    table = class_table(tmp_path, 30)
    copies = ["0.tif", "1.tif"]
    tifffile.imwrite(tmp_path / "1.tif", tifffile.imread(tmp_path / "0.tif"))
    rows = [row.split(",") for row in table.read_text().splitlines()]
    table.write_text("\n".join(",".join([*row[:2], "one" if row[0] in copies else row[2]]) for row in rows))
    config = tiny_classes(tmp_path)
    with pytest.raises(ConfigFault, match=r"the same image has two classes, in 1 pair: 0 \(dots\) and 1 \("):
        load_lesson(config)
    skip = config.data.model_copy(update={"skip_two_classes": True})
    said: list[str] = []
    lesson = load_lesson(config.model_copy(update={"data": skip}), report=said.append)
    left = {image.id for image in (*lesson.train, *lesson.fit, *lesson.watched, *lesson.validation)}
    assert len(left) == 28 and not {"0", "1"} & left
    assert any("left out: 2 images whose pixels have two classes" in line for line in said)


@pytest.mark.slow
def test_the_shuffled_baseline_deals_classes_out_to_whole_groups(tmp_path: Path) -> None:
    class_table(tmp_path, 60, groups=3)
    plain, dealt = (load_lesson(tiny_classes(tmp_path, baseline=kind)) for kind in ("none", "shuffled"))
    classes = [[image.truth.values["class"] for image in lesson.train] for lesson in (plain, dealt)]
    assert classes[0] != classes[1]
    told = {(image.group, image.truth.values["class"]) for image in dealt.train}
    assert len(told) == len({group for group, _ in told})
    assert [image.truth.values for image in dealt.validation] == [
        image.truth.values for image in plain.validation
    ]


@pytest.mark.slow
def test_a_training_ends_in_a_package_that_every_engine_runs_and_says_what_came_of_it(tmp_path: Path) -> None:
    pytest.importorskip("keras", reason="Keras is not installed (extra: train)")
    pytest.importorskip("onnx", reason="onnx is not installed (extra: train)")
    from cellcount_core.models.engines import check_golden, load_engine
    from cellcount_core.models.package import load_package
    from cellcount_core.training.trainer import train

    class_table(tmp_path, 60)
    said: list[str] = []
    package = load_package(train(tiny_classes(tmp_path), report=said.append))
    assert {"keras", "onnxruntime"} <= set(package.engines)
    for engine in package.engines:
        check_golden(package, load_engine(package, engine, 1))
    assert package.domain is not None
    assert package.accuracy["balanced_accuracy"] >= 0.8  # type: ignore[operator]
    told = json.loads((tmp_path / "work" / "learning.json").read_text())
    assert told["chance_of_as_good"] < 0.05
    assert "told apart" in told["verdicts"][1] and told["verdicts"][1] in said
    assert (tmp_path / "work" / "learning.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_nobody_counts_with_a_shuffled_baseline_unknowingly(tmp_path: Path) -> None:
    pytest.importorskip("keras", reason="Keras is not installed (extra: train)")
    pytest.importorskip("onnx", reason="onnx is not installed (extra: train)")
    from cellcount_core.models.package import load_package
    from cellcount_core.training.trainer import train

    class_table(tmp_path, 60)
    said: list[str] = []
    config = tiny_classes(tmp_path, baseline="shuffled", steps=2, checkpoint_every=2, int8="off")
    package = load_package(train(config, report=said.append))
    random = "the classes of what trained were dealt out at random"
    assert package.name == "shapes-shuffled"
    manifest = json.loads((package.folder / "package.json").read_text())
    assert manifest["description"].startswith(f"Not to be counted with: {random}")
    assert distrust(package.name, package.accuracy).startswith(
        f"what `shapes-shuffled` tells means nothing: {random}"
    )
    assert any(line.startswith(f"BASELINE: {random}") for line in said)
    told = json.loads((tmp_path / "work" / "learning.json").read_text())
    assert told["taught_nothing"].startswith(random) and told["verdicts"][0] in said


@pytest.mark.slow
def test_what_shows_nothing_is_left_out_of_what_a_training_says_of_itself(tmp_path: Path) -> None:
    pytest.importorskip("keras", reason="Keras is not installed (extra: train)")
    pytest.importorskip("onnx", reason="onnx is not installed (extra: train)")
    from cellcount_core.training.trainer import train

    class_table(tmp_path, 60)
    config = tiny_classes(tmp_path, steps=2, checkpoint_every=2, int8="off")
    measured = ClassesLearning().load(config, lambda _: None).validation
    tifffile.imwrite(tmp_path / Path(measured[0].id).with_suffix(".tif"), np.full((96, 96), 7, np.uint16))
    said: list[str] = []
    train(config, report=said.append)
    number = len(measured)
    assert f"1 of {number} images that did not train show nothing, and no class is told of them" in said
    told = json.loads((tmp_path / "work" / "learning.json").read_text())
    assert sum(map(sum, told["confusion"])) == number - 1
