"""Matching gives what `stardist.matching` gives, by the answers stored in stardist_matching.json."""

from __future__ import annotations

import json

import pytest

from cellcount_core.tasks.instances.score import overlap
from cellcount_core.tasks.matching import match_with_iou
from tests.unit.evaluation.make_stardist_fixture import FIXTURE, THRESHOLDS, digest, scenes

STORED = json.loads(FIXTURE.read_text(encoding="utf-8"))
ANSWERS = {each["scene"]: each for each in STORED["scenes"]}
SCENES = {name: (true, counted) for name, true, counted in scenes()}


def test_the_stored_answers_are_of_a_named_version_and_of_these_scenes() -> None:
    assert STORED["stardist"] == "0.9.2"
    assert {name: digest(*images) for name, images in SCENES.items()} == {
        name: answer["digest"] for name, answer in ANSWERS.items()
    }


@pytest.mark.parametrize("name", SCENES)
def test_hits_misses_extras_and_what_follows_from_them_are_stardists(name: str) -> None:
    overlapping = overlap(*SCENES[name])
    for threshold in THRESHOLDS:
        expected = ANSWERS[name]["thresholds"][f"{threshold:g}"]
        found, matched_iou = match_with_iou(overlapping, threshold)
        counted = (found.hits, found.extras, found.misses)
        assert counted == (expected["tp"], expected["fp"], expected["fn"]), threshold
        if name == "none, none counted":
            # The one difference: nothing found where there is nothing is right here, and 0 there.
            assert (expected["f1"], expected["accuracy"], expected["panoptic_quality"]) == (0, 0, 0)
            assert (found.f1, found.ap, found.panoptic_quality(matched_iou)) == (1, 1, 1)
            continue
        assert (found.f1, found.ap) == pytest.approx((expected["f1"], expected["accuracy"]), rel=1e-12)
        # StarDist divides areas in single precision.
        assert found.panoptic_quality(matched_iou) == pytest.approx(expected["panoptic_quality"], rel=1e-6)


def test_the_scenes_have_hits_misses_and_extras_at_every_threshold() -> None:
    for threshold in THRESHOLDS:
        answers = [answer["thresholds"][f"{threshold:g}"] for answer in ANSWERS.values()]
        assert all(sum(answer[kind] for answer in answers) >= 60 for kind in ("tp", "fp", "fn"))
