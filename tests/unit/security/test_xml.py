"""XML in the header of an image can neither grow without bound nor read another file."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from cellcount_core.images import tiff_metadata

_OME = '<OME><Image><Pixels PhysicalSizeX="&{entity};" SizeX="4" SizeC="2" SizeZ="1"/></Image></OME>'


def bomb(levels: int) -> str:
    """Entities that would expand to 10^levels characters."""
    lines = ['<!ENTITY e0 "x">']
    lines += [f'<!ENTITY e{level} "{f"&e{level - 1};" * 10}">' for level in range(1, levels + 1)]
    return f"<!DOCTYPE OME [{''.join(lines)}]>{_OME.replace('{entity}', f'e{levels}')}"


@pytest.mark.parametrize("levels", [9, 12])
def test_entities_that_grow_without_bound_are_given_up_at_once(levels: int) -> None:
    began = time.monotonic()

    described = tiff_metadata._ome(bomb(levels))

    assert described == tiff_metadata.Described()
    assert time.monotonic() - began < 10


def test_an_entity_that_names_a_file_does_not_bring_its_content(tmp_path: Path) -> None:
    secret = tmp_path / "size"
    secret.write_text("0.325")
    for where in (secret.as_uri(), str(secret)):
        xml = f'<!DOCTYPE OME [<!ENTITY e SYSTEM "{where}">]>' + _OME.replace("{entity}", "e")

        assert tiff_metadata._ome(xml) == tiff_metadata.Described()
