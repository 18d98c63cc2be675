"""Images that show the same: copies, turned or mirrored ones, and other cuts, scales and tilts of one photo.

Where two such images lie on both sides of a split, what is measured is how well a network remembers. Three looks, each finding more than the
one before:

- the pixels themselves, in all eight orientations;
- a perceptual hash of 63 bits in all eight orientations (signs of the lowest frequencies, after pHash), confirmed by correlation;
- points: SIFT descriptors of each image, and of its mirror image, are looked up among those of all others; two images show one scene if an
  affine map within bounds takes at least ten points of the one to points of the other (RANSAC).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from cellcount_core.images.imagefile import Plane
from cellcount_core.labelled.whole import WholeImage

Grey = NDArray[np.uint8]
Kind = Literal["identical", "turned", "alike", "scene"]

IN_WORDS: Mapping[Kind, str] = {
    "identical": "the same pixels",
    "turned": "the same pixels, turned or mirrored",
    "alike": "hardly to be told apart",
    "scene": "the same scene",
}

MOST_SCENES = 5000
"""Of more images than this the points are not compared."""

_ORIENTATIONS = 8
_SIDE, _HASH = 32, 8
_MOST_BITS, _LEAST_CORRELATION = 8, 0.95

_SCENE_PX = 256
_POINTS = 150
_NEIGHBOURS, _CANDIDATES = 6, 12
_LEAST_POINTS = 10
_LEAST_SCALE, _MOST_SCALE, _MOST_STRETCH = 0.4, 2.5, 2.2
_SAME_PLACE_PX = 8
"""Points of one image nearer than this are of one thing, whatever their descriptors."""

_CLEARLY = 0.85
"""A match counts if it is so much nearer than the nearest other point of the same image."""

_APART_PX = 3
"""Points nearer to each other than this are one."""

_LEAST_COVERED, _LEAST_AGREEMENT = 0.1, 0.6
"""Of the second image at least this part is covered by the first one moved onto it, and there their grey levels correlate so far."""

_BRIGHT = 100
_FILL, _LEAST_FILL, _FILL_RIM = 14, 50, 9


@dataclass(frozen=True, slots=True)
class ImageLook:
    """One image as the three looks see it: digests of its pixels in all orientations, and its grey levels (h, w)."""

    id: str
    digests: tuple[bytes, ...]
    grey: Grey


@dataclass(frozen=True, slots=True, order=True)
class Pair:
    """Two images, by their ids, that show the same, and how they were found."""

    first: str
    second: str
    kind: Kind

    def __str__(self) -> str:
        return f"{self.first} and {self.second} ({IN_WORDS[self.kind]})"


def look_at(name: str, planes: Sequence[Plane]) -> ImageLook:
    """Look at an image of raw planes (H, W)."""
    digests = []
    for turned in _orientations(np.stack(planes)):
        whole = hashlib.sha256(repr((turned.shape, turned.dtype.str)).encode())
        whole.update(np.ascontiguousarray(turned).data)
        digests.append(whole.digest())
    return ImageLook(name, tuple(digests), _grey(planes))


def _orientations(stack: NDArray[np.generic]) -> list[NDArray[np.generic]]:
    """An image (C, H, W) in its eight orientations, as it is first."""
    turns = [np.rot90(stack, turn, axes=(1, 2)) for turn in range(4)]
    return [*turns, *(turned[:, :, ::-1] for turned in turns)]


def _grey(planes: Sequence[Plane]) -> Grey:
    """The mean of the planes, each stretched from its darkest to its brightest thousandth unless it has 8 bits."""
    shown = []
    for plane in planes:
        values = plane.astype(np.float32)
        if plane.dtype != np.uint8:
            low, high = np.quantile(
                values[:: max(1, plane.shape[0] // 512), :: max(1, plane.shape[1] // 512)], (0.001, 0.999)
            )
            values = (values - low) * np.float32(255 / max(1e-6, float(high - low)))
        shown.append(np.clip(values, 0, 255))
    grey = np.mean(shown, axis=0)
    scale = _SCENE_PX / max(grey.shape)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(
        np.clip(cv2.resize(grey.astype(np.float32), None, fx=scale, fy=scale, interpolation=method), 0, 255),
        np.uint8,
    )


def find_pairs(
    looks: Sequence[ImageLook],
    report: Callable[[str], None] = lambda _: None,
    scenes: Literal["look", "skip"] = "look",
) -> list[Pair]:
    """All pairs of images that show the same, each once, sorted. The same images always give the same pairs.

    With `scenes` "skip" copies are found, and cuts of one scene are not.
    """
    found: dict[tuple[int, int], Kind] = {}
    for first, second, kind in _same_pixels(looks):
        found.setdefault((first, second), kind)
    for first, second in _alike(looks):
        found.setdefault((first, second), "alike")
    if scenes == "look" and len(looks) <= MOST_SCENES:
        for first, second in _same_scene(looks):
            found.setdefault((first, second), "scene")
    elif scenes == "look":
        report(
            f"{len(looks)} images: copies were looked for, cuts of one scene were not (at most {MOST_SCENES} images)"
        )
    return sorted(Pair(looks[first].id, looks[second].id, kind) for (first, second), kind in found.items())


def _ordered(first: int, second: int) -> tuple[int, int]:
    return (first, second) if first < second else (second, first)


def _same_pixels(looks: Sequence[ImageLook]) -> Iterable[tuple[int, int, Kind]]:
    holders: dict[bytes, list[int]] = defaultdict(list)
    for number, look in enumerate(looks):
        own: dict[int, Kind] = {}
        for turn, digest in enumerate(look.digests):
            for other in holders[digest]:
                own.setdefault(other, "identical" if turn == 0 else "turned")
        for other, kind in own.items():
            yield other, number, kind
        holders[look.digests[0]].append(number)


def _alike(looks: Sequence[ImageLook]) -> Iterable[tuple[int, int]]:
    small = [_small(look.grey) for look in looks]
    flat = np.stack(
        [(image - image.mean()).ravel() / max(1e-6, float(image.std()) * _SIDE) for image in small]
    )
    plain = np.array([_hash(image) for image in small], np.uint64)
    for number, image in enumerate(small[:-1]):
        turns = [np.ascontiguousarray(turned[0]) for turned in _orientations(image[None])]
        for turned in turns:
            bits = np.bitwise_count(plain[number + 1 :] ^ np.uint64(_hash(turned)))
            for later in np.flatnonzero(bits <= _MOST_BITS):
                own = (turned - turned.mean()).ravel() / max(1e-6, float(turned.std()) * _SIDE)
                if float(own @ flat[number + 1 + later]) >= _LEAST_CORRELATION:
                    yield number, number + 1 + int(later)


def _small(grey: Grey) -> NDArray[np.float32]:
    """An image as (32, 32). Black corners of a turned copy, which would look alike in all images, become its median level."""
    plain = np.where(_shown(grey) == 255, grey, np.uint8(np.median(grey)))
    return np.asarray(cv2.resize(plain, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA), np.float32)


def _hash(image: NDArray[np.float32]) -> int:
    low = cv2.dct(image)[:_HASH, :_HASH].ravel()[1:]
    return int("".join("1" if value > 0 else "0" for value in low), 2)


@dataclass(frozen=True, slots=True, eq=False)
class _Points:
    """Points of an image: `places` (n, 2) in px, `described` (n, 128), and `alone` (n,), how far each is from the nearest other one of the same image,
    as descriptors go: pattern that repeats has points that are hardly apart, and they say nothing."""

    places: NDArray[np.float32]
    described: NDArray[np.float32]
    alone: NDArray[np.float32]


def _same_scene(looks: Sequence[ImageLook]) -> Iterable[tuple[int, int]]:
    sift = cv2.SIFT_create(nfeatures=_POINTS, contrastThreshold=0.02)  # type: ignore[attr-defined]
    plain = [_points(sift, look.grey) for look in looks]
    owners = np.concatenate([np.full(len(points.places), number) for number, points in enumerate(plain)])
    if owners.size <= _NEIGHBOURS:
        return
    numbers = np.concatenate([np.arange(len(points.places)) for points in plain])
    alone = np.concatenate([points.alone for points in plain])
    # Both the trees and RANSAC draw from OpenCV's generator.
    cv2.setRNGSeed(0)
    index = cv2.FlannBasedMatcher({"algorithm": 1, "trees": 4}, {"checks": 48})
    index.add([np.concatenate([points.described for points in plain])])
    index.train()
    told: set[tuple[int, int]] = set()
    for number, look in enumerate(looks):
        mirrored = _points(sift, _mirror(look.grey))
        for points, grey in ((plain[number], look.grey), (mirrored, _mirror(look.grey))):
            for other, matches in _candidates(index, points, owners, alone, number):
                pair = _ordered(number, other)
                if pair not in told:
                    own = points.places[[at for at, _ in matches]]
                    theirs = plain[other].places[[numbers[at] for _, at in matches]]
                    if _maps_on(own, theirs, grey, looks[other].grey):
                        told.add(pair)
                        yield pair


def _mirror(grey: Grey) -> Grey:
    return np.ascontiguousarray(grey[:, ::-1])


def _points(sift: cv2.SIFT, grey: Grey) -> _Points:
    found, described = sift.detectAndCompute(grey, _shown(grey))
    if described is None or not len(found):
        return _Points(np.zeros((0, 2), np.float32), np.zeros((0, 128), np.float32), np.zeros(0, np.float32))
    # The square root of a descriptor's shares compares better (Arandjelovic and Zisserman 2012).
    shares = described / np.maximum(1e-6, described.sum(axis=1, keepdims=True))
    places, roots = np.array([point.pt for point in found], np.float32), np.sqrt(shares).astype(np.float32)
    apart = np.sqrt(np.maximum(0, 2 - 2 * roots @ roots.T))
    near = np.hypot(*(places[:, None] - places[None]).transpose(2, 0, 1)) < _SAME_PLACE_PX
    return _Points(places, roots, np.where(near, np.inf, apart).min(axis=1).astype(np.float32))


def _shown(grey: Grey) -> Grey:
    """Where (255) a bright image shows something: not the black that fills its corners where a copy was turned."""
    shown = np.full(grey.shape, 255, np.uint8)
    if np.median(grey) < _BRIGHT:
        return shown
    count, labels, stats, _ = cv2.connectedComponentsWithStats((grey <= _FILL).astype(np.uint8))
    height, width = grey.shape
    for label in range(1, count):
        x, y, across, down, area = stats[label]
        if area >= _LEAST_FILL and (x == 0 or y == 0 or x + across == width or y + down == height):
            shown[labels == label] = 0
    return np.asarray(cv2.erode(shown, np.ones((_FILL_RIM, _FILL_RIM), np.uint8)), np.uint8)


def _candidates(
    index: cv2.FlannBasedMatcher,
    points: _Points,
    owners: NDArray[np.intp],
    alone: NDArray[np.float32],
    own: int,
) -> list[tuple[int, list[tuple[int, int]]]]:
    """The images that hold most of the nearest neighbours of an image's points, with the pairs (own point, point of all)."""
    if len(points.described) < _LEAST_POINTS:
        return []
    votes: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for at, near in enumerate(index.knnMatch(points.described, k=_NEIGHBOURS)):
        for one in near:
            far = min(points.alone[at], alone[one.trainIdx])
            if owners[one.trainIdx] != own and one.distance < _CLEARLY * far:
                votes[int(owners[one.trainIdx])].append((at, one.trainIdx))
    best = sorted(votes.items(), key=lambda pair: (-len(pair[1]), pair[0]))[:_CANDIDATES]
    return [(other, matches) for other, matches in best if len(matches) >= _LEAST_POINTS]


def _maps_on(own: NDArray[np.float32], theirs: NDArray[np.float32], first: Grey, second: Grey) -> bool:
    """Whether an affine map within bounds takes at least ten different points to ten different ones, and makes the images agree."""
    matrix, inside = cv2.estimateAffine2D(
        own, theirs, method=cv2.RANSAC, ransacReprojThreshold=4, maxIters=300, confidence=0.99
    )
    if np.size(matrix) != 6:
        return False
    large, small = (float(one) for one in np.linalg.svd(matrix[:, :2], compute_uv=False))
    if small < _LEAST_SCALE or large > _MOST_SCALE or large / small > _MOST_STRETCH:
        return False
    kept = inside.ravel() > 0
    if any(
        len(np.unique(np.round(some[kept] / _APART_PX), axis=0)) < _LEAST_POINTS for some in (own, theirs)
    ):
        return False
    size = (second.shape[1], second.shape[0])
    covered = (cv2.warpAffine(_shown(first), matrix, size) == 255) & (_shown(second) == 255)
    if covered.mean() < _LEAST_COVERED:
        return False
    both = np.corrcoef(cv2.warpAffine(first, matrix, size)[covered], second[covered])
    return bool(both[0, 1] >= _LEAST_AGREEMENT)


def across(pairs: Iterable[Pair], part: Mapping[str, str]) -> list[Pair]:
    """The pairs whose images are in different parts; images that are in none do not count."""
    return [
        pair
        for pair in pairs
        if part.get(pair.first, "") and part.get(pair.second, "") and part[pair.first] != part[pair.second]
    ]


def of_two_classes(
    pairs: Iterable[Pair], classes: Mapping[str, str], kinds: Sequence[Kind] = ("identical", "turned")
) -> list[Pair]:
    """The pairs of the same pixels whose two images have different classes: one of the two must be wrong. `classes` are by the images' ids."""
    return [pair for pair in pairs if pair.kind in kinds and classes[pair.first] != classes[pair.second]]


def found_groups(ids: Sequence[str], pairs: Iterable[Pair]) -> dict[str, str]:
    """The group of each image if images that show the same belong together: the id of the first image of the group."""
    root = {name: name for name in ids}

    def top(name: str) -> str:
        while root[name] != name:
            root[name] = root[root[name]]
            name = root[name]
        return name

    place = {name: number for number, name in enumerate(ids)}
    for pair in pairs:
        first, second = sorted((top(pair.first), top(pair.second)), key=place.__getitem__)
        root[second] = first
    return {name: top(name) for name in ids}


def pairs_of(
    images: Sequence[WholeImage],
    folder: Path,
    report: Callable[[str], None] = lambda _: None,
    scenes: Literal["look", "skip"] = "look",
) -> list[Pair]:
    """The pairs of images that show the same. They are kept in `folder`, so that the same images are looked through once.

    Raises ConfigFault naming a file that cannot be read.
    """
    whole = hashlib.sha256(
        json.dumps([(image.id, image.content.hex()) for image in images]).encode()
    ).hexdigest()
    kept = folder / f"{'leaks' if scenes == 'look' else 'copies'}-{whole[:16]}.json"
    try:
        return [Pair(*each) for each in json.loads(kept.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError):
        pass
    report(f"looking for images that show the same among {len(images)}")
    looks = [look_at(image.id, list(image.planes.values())) for image in images]
    pairs = find_pairs(looks, report, scenes)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = kept.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(
        json.dumps([[pair.first, pair.second, pair.kind] for pair in pairs]), encoding="utf-8"
    )
    temporary.replace(kept)
    return pairs


def kinds(pairs: Iterable[Pair]) -> str:
    """How many pairs were found in which way, in words."""
    numbers = Counter(pair.kind for pair in pairs)
    return ", ".join(f"{numbers[kind]} {words}" for kind, words in IN_WORDS.items() if numbers[kind])
