"""Where the schemas of KubeRay's resource definitions are, and what in a manifest they do not know."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from jsonschema.validators import validator_for

ROOT = Path(__file__).parents[3]


def kuberay_schema(kind: str) -> dict[str, object]:
    """The schema of `kind` (v1); skips the test where the schemas are not on this machine."""
    folder = Path(os.environ.get("CELLCOUNT_SCHEMAS") or ROOT.parent / "shared" / "schemas")
    path = folder / "kuberay" / f"{kind.lower()}_v1.json"
    if not path.is_file():
        pytest.skip(f"no KubeRay schemas at {path}; set CELLCOUNT_SCHEMAS to the folder that holds kuberay/")
    schema = json.loads(path.read_text())
    assert isinstance(schema, dict)
    return schema


def fulfils(document: object, schema: dict[str, object]) -> None:
    """Raises jsonschema.ValidationError if the document does not fulfil the schema, which is KubeRay's own and not checked itself."""
    validator_for(schema)(schema).validate(document)


def unknown_keys(value: object, schema: dict[str, object], where: str = "") -> Iterator[str]:
    """Keys of `value` that an API server would prune: the schema names its properties and not these."""
    if isinstance(value, list):
        items = schema.get("items")
        for index, item in enumerate(value):
            if isinstance(items, dict):
                yield from unknown_keys(item, items, f"{where}[{index}]")
        return
    if not isinstance(value, dict) or schema.get("x-kubernetes-preserve-unknown-fields"):
        return
    properties, others = schema.get("properties"), schema.get("additionalProperties")
    for key, inner in value.items():
        place = f"{where}.{key}" if where else key
        if isinstance(properties, dict) and key in properties:
            yield from unknown_keys(inner, properties[key], place)
        elif isinstance(others, dict):
            yield from unknown_keys(inner, others, place)
        elif isinstance(properties, dict):
            yield place
