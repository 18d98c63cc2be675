"""Parts of images that show several patterns each: every part has its share of every pattern, and no group is cut."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from cellcount_core.domain.errors import ConfigFault
from cellcount_core.labelled.patterns import pattern_names, read_annotations
from cellcount_core.training.stratify import pattern_shares, stratified_folds, stratified_parts
from tests.data_dir import data_dir, needs_data


def imbalanced(images: int) -> NDArray[np.bool_]:
    rng = np.random.default_rng(0)
    shown = rng.random((images, 8)) < np.geomspace(0.4, 0.03, 8)
    shown[:, 1] |= shown[:, 0] & (rng.random(images) < 0.5)
    return shown


def own_groups(images: int) -> list[str]:
    return [str(number) for number in range(images)]


def test_every_part_has_its_share_of_every_pattern() -> None:
    shown = imbalanced(1200)
    part = stratified_parts(shown, own_groups(1200), (0.7, 0.15, 0.15))
    sizes = np.bincount(part) / 1200
    assert sizes.tolist() == pytest.approx([0.7, 0.15, 0.15], abs=0.01)
    for pattern in range(8):
        held = np.bincount(part[shown[:, pattern]], minlength=3)
        assert (held / held.sum()).tolist() == pytest.approx([0.7, 0.15, 0.15], abs=0.03)


def test_a_group_is_on_one_side_and_parts_keep_their_shares() -> None:
    shown = imbalanced(900)
    groups = [f"photo {number // 3}" for number in range(900)]
    fold = stratified_folds(shown, groups, 5)
    assert all(len(set(fold[at : at + 3])) == 1 for at in range(0, 900, 3))
    assert np.bincount(fold).tolist() == pytest.approx([180] * 5, abs=12)
    assert max(one.off for one in pattern_shares(shown, fold, "abcdefgh", 5) if one.images >= 100) < 0.15


def test_the_same_images_are_split_in_the_same_way_and_another_seed_splits_them_anew() -> None:
    shown, groups = imbalanced(300), own_groups(300)
    fold = stratified_folds(shown, groups, 3, 1)
    assert (fold == stratified_folds(shown, groups, 3, 1)).all()
    assert (fold != stratified_folds(shown, groups, 3, 2)).any()


def test_fewer_groups_than_parts_are_refused() -> None:
    with pytest.raises(ConfigFault, match="2 groups of images for 3 parts"):
        stratified_folds(imbalanced(6), ["a", "a", "a", "b", "b", "b"], 3)


@pytest.mark.slow
@needs_data("hpa")
def test_folds_of_the_real_table_keep_the_share_of_every_pattern_of_50_images_within_a_tenth() -> None:
    folder, names = data_dir(), pattern_names("structures")
    assert folder is not None
    rows = read_annotations(folder / "hpa" / "train.csv", names)
    shown = np.array([[name in row.patterns for name in names] for row in rows])
    fold = stratified_folds(shown, [row.id for row in rows], 5)
    common = [one for one in pattern_shares(shown, fold, names, 5) if one.images >= 50]
    assert len(common) == 24
    assert max(one.off for one in common) <= 0.1
