"""XML in the header of an image can neither grow without bound nor read another file."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from cellcount_core.domain.errors import Reason
from tests.hostile.tiffs import ome_xml
from tests.unit.images.encoded import noise, refusal, tiff


def bomb(levels: int) -> str:
    """A document type with entities that would expand to 10^levels characters."""
    lines = ['<!ENTITY e0 "x">']
    lines += [f'<!ENTITY e{level} "{f"&e{level - 1};" * 10}">' for level in range(1, levels + 1)]
    return f"<!DOCTYPE OME [{''.join(lines)}]>"


HEADERS = {
    "ome": lambda entity: ome_xml(name=f"&{entity};"),
    "metaseries": lambda entity: (
        f"<MetaData><prop id='Description' type='string' value='&{entity};'/></MetaData>"
    ),
    "nothing known": lambda entity: f"<a>&{entity};</a>",
}


@pytest.mark.parametrize("kind", HEADERS)
@pytest.mark.parametrize("levels", [1, 9, 12])
def test_entities_are_refused_before_anything_is_made_of_them(kind: str, levels: int) -> None:
    body = tiff(noise(8, 8), description=(bomb(levels) + HEADERS[kind](f"e{levels}")).encode(), metadata=None)
    began = time.monotonic()

    fault = refusal(body)

    assert fault.reason is Reason.UNREADABLE
    assert "document type" in fault.detail
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("kind", HEADERS)
def test_an_entity_that_names_a_file_does_not_bring_its_content(kind: str, tmp_path: Path) -> None:
    secret = tmp_path / "size"
    secret.write_text("0.325")
    for where in (secret.as_uri(), str(secret)):
        xml = f'<!DOCTYPE OME [<!ENTITY e SYSTEM "{where}">]>' + HEADERS[kind]("e")

        assert "document type" in refusal(tiff(noise(8, 8), description=xml.encode(), metadata=None)).detail
