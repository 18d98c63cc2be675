"""Made-up images for examples and first tries: with them nothing has to be downloaded, and the true counts are known."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cellcount_core.demo.optics import Stain, build_instrument, expose
from cellcount_core.demo.plate import render_plate
from cellcount_core.demo.scene import plant

_PX = (512, 512)


def made_up_image(
    objects: int = 100, *, shape: tuple[int, int] = _PX, seed: int = 0
) -> tuple[NDArray[np.uint16], int]:
    """A made-up fluorescence field (H, W) uint16 of nuclei about 18 px wide, and how many there are.

    Where they do not fit beside each other there are fewer than `objects`. Equal arguments give equal pixels.

    >>> image, planted = made_up_image(objects=25)
    >>> image.shape, image.dtype.name, planted
    ((512, 512), 'uint16', 25)
    """
    rng = np.random.default_rng(seed)
    scene = plant(rng, shape, objects)
    return expose(rng, build_instrument(rng, shape), scene)[Stain.NUCLEI], scene.count


def made_up_plate(folder: str | os.PathLike[str], *, wells: int = 6, seed: int = 0) -> Path:
    """Write a made-up plate as an ImageXpress would, two sites a well and two channels (w1 nuclei, w2 cytoplasm).

    Gives the folder of the images; the true counts stand in `truth.csv` beside it.

    >>> images = made_up_plate("made-up plate", wells=2)
    >>> len(list(images.rglob("*.TIF")))
    8
    """
    return render_plate(Path(folder), seed, wells=wells).images


def made_up_labelled(file: str | os.PathLike[str], *, images: int = 4, seed: int = 0) -> Path:
    """Write made-up images with their true label images to an `.npz` file: `X` and `y`, both (N, H, W). Gives its path.

    >>> import numpy
    >>> stored = numpy.load(made_up_labelled("labelled.npz", images=2))
    >>> stored["X"].shape == stored["y"].shape
    True
    """
    rng = np.random.default_rng(seed)
    instrument = build_instrument(rng, _PX)
    scenes = [plant(rng, _PX, 60) for _ in range(images)]
    pixels = np.stack([expose(rng, instrument, scene)[Stain.NUCLEI] for scene in scenes])
    path = Path(file)
    with path.open("wb") as stream:
        np.savez_compressed(stream, X=pixels, y=np.stack([scene.owners for scene in scenes]))
    return path
