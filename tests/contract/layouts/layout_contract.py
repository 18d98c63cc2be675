"""What every layout that reads names must do; a test class for a layout inherits from `LayoutContract`."""

from __future__ import annotations

import pickle
from typing import ClassVar

from cellcount_core.config import LayoutConfig
from cellcount_core.domain.fields import Parsed
from cellcount_core.layouts.base import Ignored, Layout
from cellcount_core.layouts.registry import build_layout


class LayoutContract:
    """`config` builds the layout; `example` is a key it reads."""

    config: ClassVar[LayoutConfig]
    example: ClassVar[str]

    def layout(self) -> Layout:
        return build_layout(self.config, "PX")

    def test_it_reads_its_example(self) -> None:
        parsed = self.layout().parse(self.example)
        assert isinstance(parsed, Parsed)
        assert parsed.field.well

    def test_hidden_files_are_ignored_wherever_they_lie(self) -> None:
        folder, slash, name = self.example.rpartition("/")
        for hidden in (f"{folder}{slash}._{name}", f".cache/{self.example}", f"__MACOSX/{self.example}"):
            assert self.layout().parse(hidden) == Ignored("hidden")

    def test_files_of_other_kinds_are_ignored_with_their_extension(self) -> None:
        assert self.layout().parse("plate/9987.HTD") == Ignored("not an image (.htd)")
        assert self.layout().parse("plate/README") == Ignored("not an image (no extension)")

    def test_label_images_that_cellcount_wrote_are_ignored(self) -> None:
        stem = self.example.rpartition(".")[0]
        assert self.layout().parse(f"{stem}.labels.tif") == Ignored("label image")

    def test_it_survives_pickling(self) -> None:
        assert pickle.loads(pickle.dumps(self.layout())).parse(self.example) == self.layout().parse(
            self.example
        )
