"""Intervals hold what they promise on counts like those they were fitted on; the domain tells what lies outside."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from cellcount_core.cli.settings import read_yaml
from cellcount_core.domain.errors import ConfigFault
from cellcount_core.domain.statistics import CountInterval, TrainingDomain
from cellcount_core.evaluation.evaluate import evaluate, package_scorer
from cellcount_core.evaluation.suites.made_up import make
from cellcount_core.labelled.image import LabelledImage
from cellcount_core.models.engines import load_engine, resolve_engine
from cellcount_core.models.manifest import MANIFEST
from cellcount_core.models.package import load_package, shipped_folder
from cellcount_core.tasks.instances.domain_features import FEATURES
from cellcount_core.tasks.instances.learn import InstancesConfig, LabelLesson
from cellcount_core.training.export import refit_package
from cellcount_core.training.fit import fit_domain, fit_interval
from cellcount_core.training.learning import Images
from tests.unit.training.tiny import CONF


def counts(rng: np.random.Generator, images: int) -> tuple[list[int], list[int]]:
    """True and counted numbers: some 5 % lost, errors that grow with the root of the number."""
    true = rng.integers(1, 300, images)
    counted = np.maximum(0, np.rint(0.95 * true + rng.normal(0, 1, images) * np.sqrt(true) * 0.5))
    return true.tolist(), counted.astype(int).tolist()


def test_nine_of_ten_counts_lie_in_an_interval_fitted_on_others() -> None:
    rng = np.random.default_rng(1)
    covered = []
    for _ in range(40):
        interval = fit_interval(*counts(rng, 60))
        assert interval is not None
        for true, counted in zip(*counts(rng, 50), strict=True):
            low, high = interval.around(counted)
            covered.append(low <= true <= high)
    assert 0.87 < np.mean(covered) < 0.95


def test_an_interval_makes_up_for_a_bias_of_the_count() -> None:
    true = list(range(50, 150))
    interval = fit_interval(true, [round(0.9 * value) for value in true])
    assert interval is not None
    low, high = interval.around(90)
    assert 90 < low < 100 < high


def test_an_interval_never_begins_below_zero_and_widens_with_the_count() -> None:
    interval = CountInterval(level=0.9, relative=0.1, low=-2.0, high=1.5, images=40)
    assert interval.around(0)[0] == 0
    widths = [high - low for low, high in map(interval.around, (1, 10, 100, 1000))]
    assert widths == sorted(widths)


def test_too_few_images_give_no_interval_and_no_domain() -> None:
    assert fit_interval([10] * 19, [10] * 19) is None
    assert fit_domain(FEATURES, [(0.0,) * len(FEATURES)] * 10, []) is None


@pytest.fixture(scope="module")
def domain() -> TrainingDomain:
    rng = np.random.default_rng(2)
    found = fit_domain(FEATURES, _like(rng, 150), _like(rng, 50))
    assert found is not None
    return found


def _like(rng: np.random.Generator, images: int) -> list[tuple[float, ...]]:
    mixing = np.random.default_rng(3).normal(0, 1, (len(FEATURES), len(FEATURES)))
    return [tuple(row) for row in rng.normal(0, 1, (images, len(FEATURES))) @ mixing]


def test_most_images_like_the_training_images_are_typical(domain: TrainingDomain) -> None:
    scores = [domain.unlikeness(values) for values in _like(np.random.default_rng(4), 400)]
    assert np.mean(np.array(scores) <= 0.5) > 0.9
    assert min(scores) >= 0


def test_an_image_far_from_them_is_not(domain: TrainingDomain) -> None:
    far = tuple(30.0 for _ in FEATURES)
    assert domain.unlikeness(far) > 0.8
    assert domain.unlikeness(domain.mean) == 0


def labelled(number: int) -> LabelledImage:
    made = make(14, 20 + number, "sparse", "noisy", seed=number)
    return LabelledImage(f"{number}", made.plane, made.labels, f"{number}", "", made.diameter_px)


@pytest.mark.slow
def test_a_package_is_measured_anew_without_training(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    folder = tmp_path / "nuclei"
    shutil.copytree(shipped_folder() / "nuclei", folder)
    before = load_package(folder)
    config = InstancesConfig.model_validate({**read_yaml(CONF / "train_nuclei.yaml"), "version": "9.0.0"})
    train, fit, validation = ([labelled(at) for at in range(*ends)] for ends in ((0, 4), (4, 26), (26, 29)))
    said: list[str] = []
    lesson = LabelLesson(config, Images(train, fit, fit, validation))
    after = refit_package(config, lesson, folder, report=said.append)
    assert after == load_package(folder)
    assert (after.version, after.golden, after.section) == ("9.0.0", before.golden, before.section)
    files = [
        json.loads((path / MANIFEST).read_text())["files"] for path in (shipped_folder() / "nuclei", folder)
    ]
    assert files[0] == files[1]
    assert json.loads((folder / MANIFEST).read_text())["training"]["refitted"]["from"] == {
        "version": before.version,
        "digest": before.digest,
    }
    engine = load_engine(after, resolve_engine(after, "auto", gpus=0), 1)
    with package_scorer(after, engine, "auto") as score:
        counts = [one.counted for one in evaluate(score, fit).images]
        own = evaluate(score, validation).summary()
    assert after.interval == fit_interval([int(image.labels.max()) for image in fit], counts)
    assert after.accuracy["at_estimated_diameter"] == own
    assert after.domain is not None
    assert after.domain != before.domain
    with pytest.raises(ConfigFault, match=r"has version 9\.0\.0 already"):
        refit_package(config, lesson, folder)
    with pytest.raises(ConfigFault, match=r"a package named 'nuclei'; the configuration is of 'other'"):
        refit_package(config.model_copy(update={"name": "other"}), lesson, folder)
