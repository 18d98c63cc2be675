"""Boxes in Pascal VOC, COCO and YOLO: read alike, every fault in one report, left out or refused as the policy says, and written again."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from cellcount_core.cli.main import main
from cellcount_core.domain.errors import ConfigFault, ExitCode
from cellcount_core.images.imagefile import COLOURS
from cellcount_core.labelled.box_faults import BoxFault, policy_of
from cellcount_core.labelled.box_voc import Counting
from cellcount_core.labelled.box_writers import BoxedFile, write_boxes
from cellcount_core.labelled.boxes import BoxReading, check_boxes, list_boxes
from tests.data_dir import data_dir, needs_data

HEIGHT, WIDTH = 60, 80
CLASSES = ("round", "long")
FORMATS = ("voc", "coco", "yolo")


def image_file(path: Path, *, grey: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(path.stem)).integers(0, 255, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    assert cv2.imwrite(str(path), pixels[..., 0] if grey else pixels)


def boxed(name: str, corners: list[list[float]], classes: list[str]) -> BoxedFile:
    boxes: NDArray[np.float64] = np.array(corners, np.float64).reshape(-1, 4)
    return BoxedFile(name, HEIGHT, WIDTH, boxes, classes, [None] * len(classes))


GOOD = [
    boxed("a.png", [[10, 10, 30, 25], [5, 40, 15, 70]], ["round", "long"]),
    boxed("b.png", [[0, 0, 60, 80]], ["round"]),
    boxed("c.png", [], []),
]


def write(folder: Path, kind: str, images: list[BoxedFile]) -> Path:
    """A data set of this kind, with its images."""
    for image in images:
        where = {"voc": folder / "JPEGImages", "yolo": folder / "images", "coco": folder}[kind]
        image_file(where / image.name)
    for name, body in write_boxes(kind, images, CLASSES):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(body)
    return folder


@pytest.mark.parametrize("kind", FORMATS)
def test_what_is_written_is_read_back(tmp_path: Path, kind: str) -> None:
    data = list_boxes(write(tmp_path, kind, GOOD), BoxReading(classes=CLASSES))
    assert data.kind == kind
    assert data.classes == CLASSES
    assert data.report.faults == ()
    assert dict(data.report.boxes) == {"round": 2, "long": 1}
    assert {entry.id for entry in data.entries} == {"a", "b", "c"}
    for entry, wanted in zip(data.entries, GOOD, strict=True):
        assert entry.boxes == pytest.approx(wanted.boxes, abs=1e-3)
        assert list(entry.classes) == list(wanted.classes)


@pytest.mark.parametrize("kind", FORMATS)
def test_an_image_is_read_with_its_colours_or_in_grey(tmp_path: Path, kind: str) -> None:
    first = list_boxes(write(tmp_path, kind, GOOD)).entries[0]
    coloured, grey = first.load(COLOURS), first.load()
    assert tuple(coloured.planes) == COLOURS
    assert all(plane.shape == (HEIGHT, WIDTH) for plane in coloured.planes.values())
    assert len(grey.planes) == 1
    assert coloured.group == "a"
    assert coloured.diameter_px == pytest.approx(np.median(np.sqrt([20 * 15, 10 * 30])))


def test_a_grey_image_is_refused_where_colours_are_asked_for(tmp_path: Path) -> None:
    write(tmp_path, "voc", GOOD)
    image_file(tmp_path / "JPEGImages" / "a.png", grey=True)
    with pytest.raises(
        ConfigFault, match=r"a\.png: the image is grey; the model looks at red, green and blue"
    ):
        list_boxes(tmp_path).entries[0].load(COLOURS)


FAULTY = [
    boxed(
        "a.png",
        [[10, 10, 30, 25], [10, 10, 30, 25], [10, 10, 30, 25.5], [10, 10, 30, 25], [40, 70, 50, 95], [20, 30, 20, 40]],
        ["round", "round", "round", "long", "round", "long"],
    ),
    boxed("b.png", [[-8, 5, -2, 9], [50, 5, 58, 9]], ["round", "square"]),
]  # fmt: skip


def faulty_coco(folder: Path) -> Path:
    """Every kind of fault that there is, as COCO, which can state all of them."""
    for name in ("a.png", "b.png"):
        image_file(folder / name)
    (body,) = [body for _, body in write_boxes("coco", FAULTY, (*CLASSES, "square"))]
    data = json.loads(body)
    data["images"] += [
        {"id": 8, "file_name": "gone.png"},
        {"id": 9, "file_name": "d.png", "width": 99, "height": HEIGHT},
    ]
    image_file(folder / "d.png")
    data["annotations"] += [
        {"id": 90, "image_id": 8, "category_id": 1, "bbox": [1, 2, 3, 4]},
        {"id": 91, "image_id": 77, "category_id": 1, "bbox": [1, 2, 3, 4]},
        {"id": 92, "image_id": 2, "category_id": 1, "bbox": [1, 2, "wide", 4]},
    ]
    (folder / "boxes.json").write_text(json.dumps(data))
    return folder


def test_every_fault_is_in_one_report(tmp_path: Path) -> None:
    with pytest.raises(ConfigFault) as told:
        list_boxes(faulty_coco(tmp_path), BoxReading(classes=CLASSES))
    text = str(told.value)
    for line in (
        "2 x no_image", "gone.png", "image_id 77", "1 x size_disagrees", "80 x 60 px, the file states 99 x 60",
        "2 x outside", "x 70 to 95, y 40 to 50 in 80 x 60 px", "1 x zero_area", "1 x unknown_class: a class that is none",
        "'square'", "1 x duplicate", "2 x near_duplicate", "3 x two_classes", "1 x unreadable", "annotation 92",
        "--skip-faulty",
    ):  # fmt: skip
        assert line in text, line


def test_the_report_says_of_each_kind_what_was_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A box that is cut and kept is not said to be left out, and an image that goes with its box is."""
    folder = faulty_coco(tmp_path)
    command = ["check-boxes", str(folder), "--classes", ",".join(CLASSES), "--skip-faulty"]
    assert main(command) == ExitCode.OK
    told = capsys.readouterr().out
    assert "reaches out of its image -> cut off at the edge; left out where nothing of it lies inside" in told
    assert "none of the known ones -> left out, and its image with it" in told
    assert "a box without area -> left out\n" in told


def test_data_of_which_no_image_is_left_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image_file(tmp_path / "a.png")
    image = {"id": 1, "file_name": "a.png", "width": WIDTH + 9, "height": HEIGHT}
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 9, 9]}
    data = {"images": [image], "annotations": [box], "categories": [{"id": 1, "name": "round"}]}
    (tmp_path / "boxes.json").write_text(json.dumps(data))
    assert main(["check-boxes", str(tmp_path), "--skip-faulty"]) == ExitCode.CONFIG
    assert "no image is left" in capsys.readouterr().out


def test_what_is_faulty_can_be_left_out_and_is_told(tmp_path: Path) -> None:
    data = list_boxes(
        faulty_coco(tmp_path), BoxReading(classes=CLASSES, policy=policy_of({}, list(BoxFault)))
    )
    (first,) = data.entries
    assert first.id == "a", "an image with a box that cannot be used is left out with it"
    assert first.boxes.tolist() == [[10, 10, 30, 25], [10, 10, 30, 25.5], [10, 10, 30, 25], [40, 70, 50, 80]]
    assert first.classes == ("round", "round", "long", "round"), (
        "near duplicates are kept, the outer part is cut off"
    )
    assert not data.report.refused
    assert data.report.counts["outside"] == 2


def test_the_policy_of_each_kind_can_be_set(tmp_path: Path) -> None:
    some = {"near_duplicate": "skip", "two_classes": "skip", "outside": "keep", "zero_area": "skip"}
    data = check_boxes(faulty_coco(tmp_path), BoxReading(classes=CLASSES, policy=policy_of(some)))
    assert data.entries[0].boxes.tolist() == [[10, 10, 30, 25], [40, 70, 50, 95]]
    assert data.report.refused
    with pytest.raises(ConfigFault, match="faults: no kind 'zero_aera'; did you mean 'zero_area'"):
        policy_of({"zero_aera": "skip"})
    with pytest.raises(ConfigFault, match="zero_area: 'keep' is none of refuse, skip"):
        policy_of({"zero_area": "keep"})


def as_coco(folder: Path, **lists: object) -> Path:
    """GOOD as COCO, with some of its lists replaced."""
    write(folder, "coco", GOOD)
    data = json.loads((folder / "boxes.json").read_text())
    (folder / "boxes.json").write_text(json.dumps(data | lists))
    return folder


def image(number: object, name: object) -> dict[str, object]:
    return {"id": number, "file_name": name}


def drawn(number: object, category: object = 1, **more: object) -> dict[str, object]:
    return {"id": 5, "image_id": number, "category_id": category, "bbox": [1, 2, 30, 4], **more}


ALL_LEFT_OUT = policy_of({}, list(BoxFault))


@pytest.mark.parametrize(
    ("lists", "said", "left"),
    [
        ({"images": [image(1, "a.png"), image(1, "b.png"), image(2, "c.png")]}, "images a and b have one id (1)", ["c"]),
        ({"images": [image(1, "a.png"), image(2, "./a.png"), image(3, "c.png")]}, "a.png is listed 2 times", ["c"]),
        ({"categories": [{"id": 1, "name": "round"}, {"id": 1, "name": "long"}]}, "round and long have one id (1)", ["c"]),
        ({"annotations": [drawn(1, iscrowd=1)]}, "round with iscrowd: 1", ["b", "c"]),
        ({"annotations": [drawn(1, 9)]}, "category 9 is not in the list; known: '1', '2'", ["b", "c"]),
        ({"annotations": [drawn(1, [1])]}, "a category_id expected (got [1])", ["b", "c"]),
        ({"annotations": [{"image_id": 1, "category_id": 1}]}, "a bbox of four numbers expected (got None)", ["b", "c"]),
        ({"annotations": [drawn(1, bbox=[1, 2, 10**400, 4])]}, "a bbox of four numbers expected", ["b", "c"]),
        ({"annotations": [drawn([1])]}, "an image_id expected", ["a", "b", "c"]),
        ({"images": [image([1], "a.png"), image(2, "b.png")], "annotations": []}, "an image with id and file_name expected", ["b"]),
        ({"images": [image(1, ""), image(2, "b.png")], "annotations": []}, "an image with id and file_name expected", ["b"]),
        ({"images": [image(1, "x" * 5000), image(2, "b.png")], "annotations": []}, "no image of that name", ["b"]),
    ],
)  # fmt: skip
def test_coco_that_says_two_things_or_nothing_is_told_and_its_images_are_left_out(
    tmp_path: Path, lists: dict[str, object], said: str, left: list[str]
) -> None:
    report = check_boxes(as_coco(tmp_path, **lists)).report
    assert report.refused
    assert said in "\n".join(report.lines())
    data = check_boxes(tmp_path, BoxReading(policy=ALL_LEFT_OUT))
    assert [entry.id for entry in data.entries] == left


def test_coco_with_ids_as_text_a_byte_order_mark_and_paths_of_windows_is_read(tmp_path: Path) -> None:
    as_coco(
        tmp_path,
        images=[image(1, "C:\\lab\\a.png"), image(2, ".\\b.png"), image("3", "/home/lab/c.png")],
        annotations=[drawn("1", "2"), drawn(3.0)],
    )
    (tmp_path / "boxes.json").write_bytes(b"\xef\xbb\xbf" + (tmp_path / "boxes.json").read_bytes())
    data = list_boxes(tmp_path)
    assert data.report.faults == ()
    assert [(entry.id, entry.classes) for entry in data.entries] == [
        ("a", ("long",)),
        ("b", ()),
        ("c", ("round",)),
    ]


def test_json_that_is_nested_without_end_is_told(tmp_path: Path) -> None:
    (tmp_path / "boxes.json").write_text("[" * 200_000)
    assert "not JSON" in "\n".join(check_boxes(tmp_path).report.lines())


def test_a_crowd_can_be_taken_for_one_object_and_an_unknown_class_for_none(tmp_path: Path) -> None:
    as_coco(tmp_path, annotations=[drawn(1, iscrowd=1), drawn(2, 2)])
    keep = policy_of({"crowd": "keep", "unknown_class": "keep"})
    data = list_boxes(tmp_path, BoxReading(classes=("round",), policy=keep))
    assert [(entry.id, entry.classes) for entry in data.entries] == [("a", ("round",)), ("b", ()), ("c", ())]


def test_files_of_yolo_that_cannot_be_read_leave_their_images_out(tmp_path: Path) -> None:
    write(tmp_path, "yolo", GOOD)
    labels = tmp_path / "labels"
    (labels / "a.txt").write_bytes("0 0.5 0.5 0.2 0.2\n".encode("utf-16"))
    (labels / "b.txt").write_bytes(b"\xef\xbb\xbf0 0.5 0.5 0.2 0.2\n")
    data = check_boxes(tmp_path, BoxReading(policy=ALL_LEFT_OUT))
    assert data.report.counts == {"unreadable": 1}
    assert [(entry.id, entry.classes) for entry in data.entries] == [("b", ("round",)), ("c", ())]


def test_classes_of_yolo_keep_their_numbers(tmp_path: Path) -> None:
    write(tmp_path, "yolo", GOOD[:1])
    (tmp_path / "data.yaml").unlink()
    (tmp_path / "labels" / "a.txt").write_text("-1 0.5 0.5 0.2 0.2\n")
    assert check_boxes(tmp_path, BoxReading("yolo")).report.counts == {"unreadable": 1}
    (tmp_path / "labels" / "a.txt").write_text("2 0.5 0.5 0.2 0.2\n")
    (tmp_path / "classes.txt").write_bytes(b"\xef\xbb\xbfround\n\nlong\n\n")
    data = check_boxes(tmp_path)
    assert (data.classes, data.entries[0].classes) == (CLASSES, ("long",))
    assert "line 2 is empty: is it class 1" in "\n".join(data.report.lines())
    (tmp_path / "data.yaml").write_text("names: {0: round, 2: long}")
    data = list_boxes(tmp_path)
    assert (data.classes, data.entries[0].classes) == (CLASSES, ("long",))
    (tmp_path / "data.yaml").write_text("names: {round: 0}")
    assert "a name for each number from 0 on, expected" in "\n".join(check_boxes(tmp_path).report.lines())


@pytest.mark.parametrize("kind", ["voc", "yolo"])
def test_two_images_of_one_name_are_told_apart_or_told(tmp_path: Path, kind: str) -> None:
    write(tmp_path, kind, [boxed("a.tif", [[1, 2, 30, 40]], ["round"]), GOOD[1]])
    folder = tmp_path / {"voc": "JPEGImages", "yolo": "images"}[kind]
    image_file(folder / "a.png")
    data = check_boxes(tmp_path, BoxReading(policy=ALL_LEFT_OUT))
    if kind == "voc":
        assert [entry.file.name for entry in data.entries] == ["a.tif", "b.png"]
        assert data.report.counts == {"no_label": 1}
    else:
        assert [entry.file.name for entry in data.entries] == ["b.png"]
        assert "a.png and a.tif both have its name" in "\n".join(data.report.lines())


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_photo_that_viewers_turn_is_told(tmp_path: Path, order: str) -> None:
    write(tmp_path, "voc", [boxed("a.jpg", [[1, 2, 30, 40]], ["round"]), GOOD[1]])
    photo = tmp_path / "JPEGImages" / "a.jpg"
    plain = photo.read_bytes()
    for turn in (1, 6):
        tiff = {"<": b"II*\0", ">": b"MM\0*"}[order]
        tags = struct.pack(f"{order}IHHHIHHHHIHH", 8, 2, 0x0100, 3, 1, 80, 0, 0x0112, 3, 1, turn, 0)
        exif = b"Exif\0\0" + tiff + tags + b"\0" * 4
        photo.write_bytes(plain[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + plain[2:])
        report = check_boxes(tmp_path).report
        assert report.counts == ({} if turn == 1 else {"turned": 1})
    assert "viewers to turn or mirror it (Exif orientation)" in "\n".join(report.lines())
    assert [entry.id for entry in check_boxes(tmp_path, BoxReading(policy=ALL_LEFT_OUT)).entries] == ["b"]
    assert len(list_boxes(tmp_path, BoxReading(policy=policy_of({"turned": "keep"}))).entries) == 2


def test_lists_of_pascal_voc_may_have_endings_and_name_an_image_once(tmp_path: Path) -> None:
    write(tmp_path, "voc", GOOD)
    lists = tmp_path / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("a.png\nb\n")
    (lists / "val.txt").write_text("c.png\n")
    assert {entry.id: entry.split for entry in list_boxes(tmp_path).entries} == {
        "a": "train", "b": "train", "c": "val",
    }  # fmt: skip
    (lists / "val.txt").write_text("c.png\nb\n")
    assert "the lists train.txt and val.txt both name it" in "\n".join(check_boxes(tmp_path).report.lines())
    (lists / "val.txt").write_bytes(b"caf\xe9\n")
    assert "not a text in UTF-8" in "\n".join(check_boxes(tmp_path).report.lines())


@pytest.mark.parametrize(("kind", "folder"), [("voc", "Annotations"), ("yolo", "labels")])
def test_boxes_in_further_folders_are_told(tmp_path: Path, kind: str, folder: str) -> None:
    write(tmp_path, kind, GOOD)
    ending = {"voc": ".xml", "yolo": ".txt"}[kind]
    (tmp_path / folder / "monday").mkdir()
    (tmp_path / folder / f"a{ending}").rename(tmp_path / folder / "monday" / f"a{ending}")
    told = "\n".join(check_boxes(tmp_path).report.lines())
    assert f"1 {ending} files in a folder of {folder}/ are not read" in told


def test_pascal_voc_beside_its_images_and_in_parts(tmp_path: Path) -> None:
    flat, parts = tmp_path / "flat", tmp_path / "parts"
    for folder, name in ((flat, "a"), (parts / "train", "b"), (parts / "valid", "c")):
        image_file(folder / f"{name}.png")
        [(_, body)] = write_boxes("voc", [boxed(f"{name}.png", [[1, 2, 30, 40]], ["round"])], CLASSES)
        (folder / f"{name}.xml").write_bytes(body)
    assert [entry.id for entry in list_boxes(flat).entries] == ["a"]
    assert {entry.id: entry.split for entry in list_boxes(parts).entries} == {"b": "train", "c": "valid"}


def test_corners_of_pascal_voc_may_be_pixels(tmp_path: Path) -> None:
    write(tmp_path, "voc", GOOD[:1])
    countings: tuple[Counting, ...] = ("edges", "from_0", "from_1")
    edges, from_0, from_1 = (
        check_boxes(tmp_path, BoxReading(counting=counting)).entries[0].boxes[0].tolist()
        for counting in countings
    )
    assert (edges, from_0, from_1) == ([10, 10, 30, 25], [10, 10, 31, 26], [9, 9, 30, 25])


def test_yolo_in_parts_with_names_in_a_text_file(tmp_path: Path) -> None:
    for split in ("train", "val"):
        image_file(tmp_path / "images" / split / f"{split}1.png")
        (tmp_path / "labels" / split).mkdir(parents=True)
        (tmp_path / "labels" / split / f"{split}1.txt").write_text(
            "1 0.5 0.5 0.25 0.5\n0 0.1 0.1 0.3 0.1 0.3 0.4\n"
        )
    (tmp_path / "classes.txt").write_text("round\nlong\n")
    data = list_boxes(tmp_path)
    assert data.classes == CLASSES
    assert {entry.id: entry.split for entry in data.entries} == {"train1": "train", "val1": "val"}
    assert data.entries[0].boxes[0].tolist() == [15, 30, 45, 50]
    assert data.entries[0].boxes[1] == pytest.approx([6, 8, 24, 24])
    assert data.entries[0].classes == ("long", "round")


def test_yolo_tells_classes_that_have_no_name_and_lines_that_are_none(tmp_path: Path) -> None:
    write(tmp_path, "yolo", GOOD)
    (tmp_path / "labels" / "a.txt").write_text(
        "7 0.5 0.5 0.2 0.2\n0 0.5 0.5\nround 0.5 0.5 0.1 0.1\n1 0.5 0.5 nan 0.1\n"
    )
    counts = check_boxes(tmp_path).report.counts
    assert counts == {"unreadable": 3, "unknown_class": 1}


def test_damaged_files_and_lonely_images_are_told(tmp_path: Path) -> None:
    write(tmp_path, "voc", GOOD)
    (tmp_path / "Annotations" / "a.xml").write_text("<annotation><object>")
    (tmp_path / "Annotations" / "b.xml").write_text("<!DOCTYPE x [<!ENTITY y 'z'>]><annotation/>")
    image_file(tmp_path / "JPEGImages" / "lonely.png")
    (tmp_path / "JPEGImages" / "c.png").write_bytes(b"\x89PNG nothing")
    report = check_boxes(tmp_path).report
    assert report.counts == {"unreadable": 3, "no_label": 1}
    assert [fault.action for fault in report.faults] == ["refuse", "refuse", "refuse", "skip"]
    assert any("document type" in fault.what for fault in report.faults)


@pytest.mark.parametrize(
    ("kind", "file", "before", "after"),
    [
        ("coco", "boxes.json", '"image_id": 1', '"image_id": [1]'),
        ("coco", "boxes.json", '"category_id": 1', '"category_id": {}'),
        ("coco", "boxes.json", '"file_name": "b.png"', '"name": "b.png"'),
        ("coco", "boxes.json", '"images"', '"pictures"'),
        ("voc", "Annotations/a.xml", "<annotation>", "<annotations>"),
        ("voc", "Annotations/a.xml", "<xmin>10</xmin>", "<xmin>ten</xmin>"),
        ("voc", "Annotations/a.xml", "<object>", "</object>"),
        ("yolo", "data.yaml", "names:", "names: ]"),
        ("yolo", "labels/a.txt", " ", "\udcff"),
    ],
)
def test_what_is_not_what_it_should_be_is_told_and_nothing_else_happens(
    tmp_path: Path, kind: str, file: str, before: str, after: str
) -> None:
    path = write(tmp_path, kind, GOOD) / file
    text = path.read_text()
    assert before in text
    path.write_bytes(text.replace(before, after, 1).encode("utf-8", "surrogateescape"))
    report = check_boxes(tmp_path, BoxReading(kind)).report
    assert report.counts.get("unreadable", 0) >= 1
    assert report.refused


def test_a_table_gives_splits_and_groups(tmp_path: Path) -> None:
    data, table = write(tmp_path / "data", "voc", GOOD), tmp_path / "splits.csv"
    table.write_text("image,group,split\na.png,first,train\nb,first,val\n")
    found = list_boxes(data, BoxReading(table=table))
    assert [(e.id, e.split, e.group) for e in found.entries] == [
        ("a", "train", "first"),
        ("b", "val", "first"),
        ("c", "", ""),
    ]
    assert [entry.id for entry in found.chosen("val")] == ["b"]
    with pytest.raises(ConfigFault, match="no image of split 'test'"):
        found.chosen("test")


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("aa.png,one", "1 of 2 rows name no image of the data: 'aa.png'; did you mean 'a.png'"),
        ("b.png,two\nb.png,one", "two rows of 'b.png' differ"),
    ],
)
def test_a_table_that_names_no_image_or_one_twice_is_refused(tmp_path: Path, rows: str, said: str) -> None:
    data, table = write(tmp_path / "data", "voc", GOOD), tmp_path / "groups.csv"
    table.write_text(f"image,group\nc.png,one\n{rows}\n")
    with pytest.raises(ConfigFault, match=said):
        check_boxes(data, BoxReading(table=table))


def test_the_check_takes_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, table = write(tmp_path / "data", "voc", GOOD), tmp_path / "splits.csv"
    table.write_text("image,split\na.png,train\nb.png,val\nc.png,val\n")
    assert main(["check-boxes", str(data), "--table", str(table)]) == 0
    assert "splits: train 1, val 2" in capsys.readouterr().out


def test_a_table_may_name_an_image_that_is_left_out_or_by_its_path(tmp_path: Path) -> None:
    data, table = write(tmp_path / "data", "voc", GOOD), tmp_path / "groups.csv"
    (data / "Annotations" / "a.xml").unlink()
    table.write_text("image,group\nphotos\\b.png,one\na.png,one\n")
    assert [entry.group for entry in list_boxes(data, BoxReading(table=table)).entries] == ["one", ""]


def test_data_of_no_known_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigFault, match="looks like no boxes"):
        list_boxes(tmp_path)
    with pytest.raises(ConfigFault, match="boxes of kind 'yolo8' are unknown; did you mean 'yolo'"):
        list_boxes(tmp_path, BoxReading("yolo8"))
    with pytest.raises(ConfigFault, match="not there"):
        list_boxes(tmp_path / "nowhere")


@pytest.mark.parametrize("kind", ["voc", "yolo", "coco"])
def test_boxes_one_folder_down_are_pointed_at(tmp_path: Path, kind: str) -> None:
    for name in ("x", "y"):
        write(tmp_path / "all" / name, kind, GOOD)
    with pytest.raises(
        ConfigFault, match=r"looks like no boxes.*one folder down, in x/, y/: name one of these.*train"
    ):
        list_boxes(tmp_path / "all")


def coco(folder: Path, **changed: object) -> Path:
    """A data set of COCO in which the annotations of GOOD are changed."""
    write(folder, "coco", GOOD)
    [file] = folder.glob("*.json")
    data = json.loads(file.read_text())
    data["annotations"] = [{**annotation, **changed} for annotation in data["annotations"]]
    file.write_text(json.dumps(data))
    return folder


@pytest.mark.parametrize("turned", [45, "30.5", -90.0])
def test_boxes_that_are_turned_are_not_read_as_upright_ones(tmp_path: Path, turned: object) -> None:
    report = check_boxes(coco(tmp_path, attributes={"rotation": turned})).report
    assert report.counts == {"unreadable": 3}
    assert f"a box turned by {float(str(turned)):g} degrees" in report.faults[0].what


def test_boxes_with_other_attributes_or_turned_by_nothing_are_read(tmp_path: Path) -> None:
    for number, attributes in enumerate(({"rotation": 0.0}, {"occluded": True}, {"rotation": 180}, None)):
        assert check_boxes(coco(tmp_path / str(number), attributes=attributes)).report.faults == ()


def test_boxes_in_parts_of_the_image_are_told(tmp_path: Path) -> None:
    report = check_boxes(coco(tmp_path, bbox=[0.1, 0.1, 0.2, 0.2])).report
    told = [fault.what for fault in report.faults if fault.kind is BoxFault.UNREADABLE]
    assert len(told) == 2
    assert "parts of the image's sides would (0.1, 0.1, 0.2, 0.2); px expected" in told[0]
    assert report.refused


def test_images_of_one_name_are_written_as_coco_alone(tmp_path: Path) -> None:
    twins = [boxed("x/a.png", [], []), boxed("y/a.png", [], [])]
    assert len(list(write_boxes("coco", twins, CLASSES))) == 1
    with pytest.raises(ConfigFault, match=r"x/a\.png and y/a\.png would both be written to a\.xml"):
        list(write_boxes("voc", twins, CLASSES))
    with pytest.raises(ConfigFault, match="cannot be written as 'coc'; did you mean 'coco'"):
        list(write_boxes("coc", twins, CLASSES))


@pytest.mark.slow
@needs_data("bccd_blood")
def test_the_faults_of_the_blood_smears_are_found_exactly() -> None:
    """As its README counts them: 2 boxes without area, 7 near duplicates, nothing else that a program can see."""
    folder = data_dir()
    assert folder is not None
    with pytest.raises(ConfigFault, match="2 x zero_area"):
        list_boxes(folder / "bccd_blood")
    data = list_boxes(folder / "bccd_blood", BoxReading(policy=policy_of({"zero_area": "skip"})))
    assert data.report.counts == {"zero_area": 2, "near_duplicate": 7}
    places = {
        fault.where.partition(":")[0] for fault in data.report.faults if fault.kind is BoxFault.ZERO_AREA
    }
    assert places == {"BloodImage_00338", "BloodImage_00343"}
    assert dict(data.report.boxes) == {"Platelets": 361, "RBC": 4153, "WBC": 372}
    assert dict(data.report.splits) == {"test": 72, "train": 205, "val": 87}


@needs_data("microalgae/labeled")
def test_the_photos_of_microalgae_have_no_faults() -> None:
    folder = data_dir()
    assert folder is not None
    data = list_boxes(folder / "microalgae" / "labeled")
    assert data.report.faults == ()
    assert (data.report.images, dict(data.report.boxes)) == (17, {"Microalgae": 1224})
