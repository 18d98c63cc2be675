"""Metrics of a run for people who watch the cluster: the driver records them with Ray's own Prometheus exporter."""

from __future__ import annotations

import time

from ray.util.metrics import Counter, Gauge

from cellcount_core.domain.fields import Receipt
from cellcount_core.runners.events import Events, PassedOn, Progress
from cellcount_core.runners.pool import Death, ShardTask

_RUN_DIGITS = 12
_TAGS = ("run",)


class Metrics(PassedOn):
    """Passes events on and records them as metrics, tagged with the first digits of the run's fingerprint.

    These grow with the run and are exported with the ending `_total`: `cellcount_fields` by status,
    `cellcount_shards`, `cellcount_objects`, `cellcount_pixels`, `cellcount_deaths` by reason,
    `cellcount_stage_seconds` by stage, `cellcount_bytes_read`, `cellcount_store_retries` and
    `cellcount_device_seconds` by state. These hold the present value: `cellcount_fields_per_second` in
    this session, `cellcount_device_busy_share` (the part of their time that the devices worked) and
    `cellcount_fields_left`. Ray puts `ray_` before each name.
    """

    def __init__(self, events: Events, fingerprint: str) -> None:
        super().__init__(events)
        run = {"run": fingerprint[:_RUN_DIGITS]}
        self._fields = Counter("cellcount_fields", "Fields committed, by status.", (*_TAGS, "status"))
        self._shards = Counter("cellcount_shards", "Shards committed.", _TAGS)
        self._objects = Counter("cellcount_objects", "Objects counted.", _TAGS)
        self._pixels = Counter("cellcount_pixels", "Pixels decoded of counted channels.", _TAGS)
        self._deaths = Counter(
            "cellcount_deaths", "Attempts that gave no result, by reason.", (*_TAGS, "reason")
        )
        self._stages = Counter(
            "cellcount_stage_seconds", "Busy seconds by stage, summed over threads.", (*_TAGS, "stage")
        )
        self._bytes = Counter("cellcount_bytes_read", "Bytes of image files read.", _TAGS)
        self._retries = Counter(
            "cellcount_store_retries", "Requests to a store that were asked again.", _TAGS
        )
        self._device = Counter(
            "cellcount_device_seconds", "Seconds of the devices, by state: busy or idle.", (*_TAGS, "state")
        )
        self._share = Gauge(
            "cellcount_device_busy_share", "Part of their time that the devices worked.", _TAGS
        )
        self._rate = Gauge("cellcount_fields_per_second", "Fields a second in this session.", _TAGS)
        self._left = Gauge("cellcount_fields_left", "Fields not committed yet.", _TAGS)
        for metric in (
            self._fields, self._shards, self._objects, self._pixels, self._deaths, self._stages, self._bytes, self._retries,
            self._device, self._share, self._rate, self._left,
        ):  # fmt: skip
            metric.set_default_tags(run)
        self._busy_s = self._idle_s = 0.0
        self._to_do = 0
        self._since = time.monotonic()

    def begin(self, fields: int, already: int, run: str) -> None:
        """Passed on; the rate is measured from here."""
        super().begin(fields, already, run)
        self._to_do = fields - already
        self._since = time.monotonic()
        self._left.set(self._to_do)

    def receipt(self, receipt: Receipt, progress: Progress) -> None:
        """Recorded and passed on."""
        self._shards.inc()
        for status, fields in receipt.statuses.items():
            _grow(self._fields, fields, {"status": status})
        _grow(self._objects, receipt.objects)
        _grow(self._pixels, receipt.pixels)
        for stage, seconds in receipt.stage_seconds.items():
            _grow(self._stages, seconds, {"stage": stage})
        _grow(self._bytes, receipt.bytes_read)
        _grow(self._retries, receipt.retries)
        self._of_device(receipt)
        done = progress.statuses.total()
        self._left.set(self._to_do - done)
        self._rate.set(done / max(1e-9, time.monotonic() - self._since))
        super().receipt(receipt, progress)

    def _of_device(self, receipt: Receipt) -> None:
        _grow(self._device, receipt.device_busy_s, {"state": "busy"})
        _grow(self._device, receipt.device_idle_s, {"state": "idle"})
        self._busy_s += receipt.device_busy_s
        self._idle_s += receipt.device_idle_s
        if both := self._busy_s + self._idle_s:
            self._share.set(self._busy_s / both)

    def death(self, task: ShardTask, death: Death) -> None:
        """Recorded and passed on."""
        self._deaths.inc(tags={"reason": death.reason.value})
        super().death(task, death)


def _grow(counter: Counter, by: float, tags: dict[str, str] | None = None) -> None:
    """Increase a counter. Ray does not accept an increase by 0."""
    if by > 0:
        counter.inc(by, tags or {})
