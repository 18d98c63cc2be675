"""What every store promises, as a class: a test module inherits it and gives the fixture `open_root`."""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from cellcount_core.domain.errors import ConfigFault
from cellcount_core.stores.base import LIST_BATCH, Absent, Created, Store

OpenRoot = Callable[[str], Store]

ODD_NAMES = [
    "plain.tif",
    "with space.tif",
    "100%.tif",
    "a%20b.tif",
    "well#1.tif",
    "what?.tif",
    "a+b&c=d.tif",
    "star*[1].tif",
    "tilde~(2)'.tif",
    "Zürich µm 細胞.tif",
    ".hidden",
    "._resource",
    "Thumbs.db",
]


def keys_of(store: Store, prefix: str = "") -> set[str]:
    return {listed.key for batch in store.list(prefix) for listed in batch}


class StoreContract:
    """Inherit as `TestX(StoreContract)` beside a fixture `open_root(name) -> Store` with an empty root each."""

    many = 2500
    races = 3

    @pytest.fixture
    def store(self, open_root: OpenRoot, request: pytest.FixtureRequest) -> Store:
        return open_root(f"root-{abs(hash(request.node.nodeid)):x}")

    def test_what_was_put_is_read_back(self, store: Store) -> None:
        store.put("deep/er/a.bin", b"\x00\x01\xff" * 1000)
        assert store.get("deep/er/a.bin") == b"\x00\x01\xff" * 1000
        assert store.size_of("deep/er/a.bin") == 3000

    def test_an_object_without_bytes_is_an_object(self, store: Store) -> None:
        assert store.put_new("empty.tif", b"") is Created.NEW
        assert store.get("empty.tif") == b""
        assert store.size_of("empty.tif") == 0
        assert keys_of(store) == {"empty.tif"}

    def test_a_large_object_is_read_back_whole(self, store: Store) -> None:
        body = bytes(range(256)) * (20 * 2**20 // 256)
        store.put("large.bin", body)
        assert store.get("large.bin") == body

    def test_put_replaces_and_changes_the_tag(self, store: Store) -> None:
        store.put("a", b"first")
        (before,) = next(store.list())
        store.put("a", b"second, longer")
        (after,) = next(store.list())
        assert store.get("a") == b"second, longer"
        assert after.size == 14
        assert before.etag != after.etag

    def test_an_unchanged_object_keeps_its_tag(self, store: Store) -> None:
        store.put("a", b"same")
        assert list(store.list()) == list(store.list())

    def test_put_new_never_replaces(self, store: Store) -> None:
        assert store.put_new("part", b"mine") is Created.NEW
        assert store.put_new("part", b"theirs") is Created.EXISTS
        assert store.get("part") == b"mine"

    def test_of_sixteen_writers_exactly_one_creates(self, store: Store) -> None:
        start = threading.Barrier(16)

        def write(number: int) -> Created:
            start.wait()
            return store.put_new("raced", b"%d" % number * 1000)

        for _ in range(self.races):
            with ThreadPoolExecutor(16) as pool:
                outcomes = list(pool.map(write, range(16)))
            assert outcomes.count(Created.NEW) == 1
            assert store.get("raced") == b"%d" % outcomes.index(Created.NEW) * 1000
            store.delete("raced")

    def test_what_is_not_there_is_absent(self, store: Store) -> None:
        store.put("folder/there", b"x")
        for key in ("nothing", "folder/nothing", "folder", "no/such/folder/x"):
            with pytest.raises(Absent, match=key):
                store.get(key)
            assert store.size_of(key) is None

    def test_delete_removes_and_forgives_what_is_gone(self, store: Store) -> None:
        store.put("a/b", b"x")
        store.delete("a/b")
        store.delete("a/b")
        store.delete("never/was")
        assert store.size_of("a/b") is None
        assert keys_of(store) == set()

    def test_odd_names_survive_the_round_trip(self, store: Store) -> None:
        keys = [f"pl ate/{name}" for name in ODD_NAMES]
        for number, key in enumerate(keys):
            store.put(key, b"%d" % number)
        assert keys_of(store) == set(keys)
        assert [store.get(key) for key in keys] == [b"%d" % number for number in range(len(keys))]

    def test_a_prefix_is_matched_by_whole_segments(self, store: Store) -> None:
        for key in ("plate1/a", "plate1/deep/b", "plate10/c", "plate1.txt"):
            store.put(key, b"x")
        assert keys_of(store, "plate1") == keys_of(store, "plate1/") == {"plate1/a", "plate1/deep/b"}
        assert keys_of(store, "plate1/deep") == {"plate1/deep/b"}

    def test_a_root_or_prefix_that_is_not_there_lists_nothing(self, store: Store) -> None:
        assert list(store.list()) == []
        store.put("a", b"x")
        assert list(store.list("nowhere/at/all")) == []

    def test_a_long_listing_comes_whole_in_bounded_batches(self, store: Store) -> None:
        keys = {f"well{number % 50:02d}/f{number:05d}.tif" for number in range(self.many)}
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda key: store.put(key, b"12345"), keys))
        batches = list(store.list())
        assert max(len(batch) for batch in batches) <= LIST_BATCH
        listed = [found for batch in batches for found in batch]
        assert len(listed) == self.many
        assert {found.key for found in listed} == keys
        assert {found.size for found in listed} == {5}
        assert all(found.etag for found in listed)

    def test_a_pickled_store_is_the_same_store(self, store: Store) -> None:
        store.put("a", b"x")
        again: Store = pickle.loads(pickle.dumps(store))
        assert again.url == store.url
        assert again.get("a") == b"x"
        again.put("b", b"y")
        assert store.get("b") == b"y"

    def test_get_many_keeps_the_order_and_gives_absent_as_a_value(self, store: Store) -> None:
        for number in range(0, 40, 2):
            store.put(f"k{number}", b"%d" % number)
        keys = [f"k{number}" for number in reversed(range(40))]
        pairs = list(store.get_many(keys, ahead=7))
        assert [key for key, _ in pairs] == keys
        for key, body in pairs:
            if int(key[1:]) % 2:
                assert isinstance(body, Absent)
                assert body.key == key
            else:
                assert body == key[1:].encode()

    def test_get_many_of_nothing_is_nothing_and_a_key_may_come_twice(self, store: Store) -> None:
        store.put("a", b"x")
        assert list(store.get_many([], ahead=4)) == []
        assert list(store.get_many(["a", "a", "a"], ahead=2)) == [("a", b"x")] * 3

    def test_get_many_may_be_given_up_early(self, store: Store) -> None:
        for number in range(30):
            store.put(f"k{number}", b"x")
        reading = store.get_many([f"k{number}" for number in range(30)], ahead=4)
        assert next(reading) == ("k0", b"x")
        reading.close()  # type: ignore[attr-defined]
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and _readers():
            time.sleep(0.01)
        assert _readers() == []

    def test_a_range_gives_those_bytes_and_says_what_they_are_of(self, store: Store) -> None:
        body = bytes(range(256)) * 1000
        store.put("pages.tif", body)
        for start, stop in ((0, 1), (0, 256_000), (100, 70_000), (255_999, 256_000)):
            piece = store.get_range("pages.tif", start, stop)
            assert piece.body == body[start:stop]
            assert piece.size == len(body)

    def test_a_range_ends_with_its_object(self, store: Store) -> None:
        store.put("short", b"12345")
        assert store.get_range("short", 3, 100).body == b"45"
        for start in (5, 6, 1000):
            beyond = store.get_range("short", start, start + 10)
            assert (beyond.body, beyond.size) == (b"", 5)
        store.put("empty", b"")
        assert store.get_range("empty", 0, 10).body == b""

    def test_ranges_of_a_replaced_object_have_another_tag(self, store: Store) -> None:
        store.put("a", b"first body")
        first, again = store.get_range("a", 0, 3), store.get_range("a", 4, 8)
        assert first.etag == again.etag != ""
        store.put("a", b"another body")
        assert store.get_range("a", 4, 8).etag != first.etag

    def test_ranges_come_in_their_order(self, store: Store) -> None:
        body = bytes(range(200))
        store.put("a", body)
        spans = [(at, at + 7) for at in reversed(range(0, 190, 5))]
        pieces = list(store.get_ranges("a", spans, ahead=5))
        assert [piece.body for piece in pieces] == [body[start:stop] for start, stop in spans]
        assert list(store.get_ranges("a", [], ahead=5)) == []

    def test_a_range_of_what_is_not_there_is_absent(self, store: Store) -> None:
        store.put("folder/there", b"x")
        for key in ("nothing", "folder/nothing", "folder"):
            with pytest.raises(Absent, match=key):
                store.get_range(key, 0, 4)
            with pytest.raises(Absent, match=key):
                list(store.get_ranges(key, [(0, 4), (4, 8)], ahead=2))

    @pytest.mark.parametrize("span", [(-1, 4), (4, 4), (5, 4)])
    def test_a_range_of_no_bytes_is_a_mistake(self, store: Store, span: tuple[int, int]) -> None:
        store.put("a", b"12345678")
        with pytest.raises(ValueError, match="at least one byte"):
            store.get_range("a", *span)

    @pytest.mark.parametrize("key", ["", "/etc/x", "../x", "a/../../x", "a//b", "a/./b", "a/", "nul\0"])
    def test_a_key_that_climbs_out_or_is_none_is_refused(self, store: Store, key: str) -> None:
        for operation in (store.get, store.delete, store.size_of):
            with pytest.raises(ConfigFault, match="below the store's root"):
                operation(key)
        with pytest.raises(ConfigFault, match="below the store's root"):
            store.get_range(key, 0, 1)
        for write in (store.put, store.put_new):
            with pytest.raises(ConfigFault, match="below the store's root"):
                write(key, b"x")


def _readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("read-ahead")]
