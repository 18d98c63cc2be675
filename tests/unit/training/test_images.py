"""Which images train, fit, are watched and are measured."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from cellcount_core.domain.errors import ConfigFault
from cellcount_core.training.config import TrainConfig
from cellcount_core.training.learning import train_config
from cellcount_core.training.start import load_lesson


def write_table(folder: Path, rows: list[str], columns: str = "image,label,group,split") -> TrainConfig:
    """A table of small images, and the configuration that trains on it."""
    labels = np.zeros((32, 32), np.uint16)
    labels[8:16, 8:16] = 1
    cv2.imwrite(str(folder / "label.png"), labels)
    for row in rows:
        cv2.imwrite(str(folder / row.split(",")[0]), labels * 100)
    (folder / "cells.csv").write_text("\n".join([columns, *rows, ""]))
    return train_config(
        {
            "name": "tiny", "data": {"kind": "auto", "path": str(folder)}, "steps": 1, "crop_px": 32, "work_dir": "w",
            "network": {"outputs": 2, "filters": [4]}, "package_dir": "p",
        }
    )  # fmt: skip


def with_data(config: TrainConfig, **changes: object) -> TrainConfig:
    return config.model_copy(update={"data": config.data.model_copy(update=changes)})


def names(images: list) -> list[str]:
    return [image.id for image in images]


def test_data_without_splits_are_split_by_group_the_same_every_time(tmp_path: Path) -> None:
    config = write_table(tmp_path, [f"i{n:02d}.png,label.png,g{n // 3}," for n in range(30)])
    one, two = load_lesson(config), load_lesson(config)
    assert names(one.train) == names(two.train)
    assert len(one.train) + len(one.fit) + len(one.validation) == 30
    assert 6 <= len(one.validation) <= 8
    parts = [{image.group for image in part} for part in (one.train, one.fit, one.validation)]
    assert not parts[0] & parts[1] | parts[0] & parts[2] | parts[1] & parts[2]


def test_without_groups_every_file_is_its_own(tmp_path: Path) -> None:
    images = load_lesson(write_table(tmp_path, [f"i{n}.png,label.png" for n in range(10)], "image,label"))
    assert len(images.validation) == 2


def test_splits_that_the_data_names_are_kept(tmp_path: Path) -> None:
    rows = [f"i{n}.png,label.png,,{'val' if n < 2 else 'train'}" for n in range(9)] + [
        "x.png,label.png,,test"
    ]
    config = write_table(tmp_path, rows)
    images = load_lesson(config)
    assert names(images.validation) == ["i0", "i1"]
    assert "x" not in names(images.train + images.fit)
    apart = load_lesson(with_data(config, validation_split=""))
    assert len(apart.train) + len(apart.fit) + len(apart.validation) == 7
    with pytest.raises(ConfigFault, match=r"no row with split 'dev'.*splits \['test', 'train', 'val'\]"):
        load_lesson(with_data(config, validation_split="dev"))


def test_what_was_taken_is_said(tmp_path: Path) -> None:
    lines: list[str] = []
    config = write_table(tmp_path, [f"i{n}.png,label.png" for n in range(10)], "image,label")
    load_lesson(config, report=lines.append)
    assert "reading" in lines[0]
    assert "layout 'table', 10 images; 20% of the groups are measured" in lines[1]


def test_where_nothing_is_set_aside_thresholds_are_fitted_on_what_trains_and_validation_is_watched(
    tmp_path: Path,
) -> None:
    config = write_table(tmp_path, [f"i{n}.png,label.png" for n in range(10)], "image,label")
    images = load_lesson(with_data(config, fit_share=0.0))
    assert images.fit is images.train
    assert images.watched is images.validation


def test_too_few_images_to_train_and_to_measure_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigFault, match="1 images leave none to train on"):
        load_lesson(write_table(tmp_path, ["i.png,label.png"], "image,label"))


def test_images_that_are_in_no_part_are_told(tmp_path: Path) -> None:
    rows = [f"{n}.png,label.png,g{n},{'val' if n % 2 else 'train'}" for n in range(8)]
    config = write_table(tmp_path, [*rows, "8.png,label.png,g8,trian", "9.png,label.png,g9,"])
    said: list[str] = []
    load_lesson(config, report=said.append)
    left = [line.partition(" (")[0] for line in said if "no part" in line]
    assert left == [
        "data: images in no part, without a split: 1",
        "data: images in no part, of the split 'trian': 1",
    ]
