"""What a local folder does beyond the store contract: crashes, full and read-only disks, links, odd files."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cellcount_core.domain.errors import OutputFault, StorageFault
from cellcount_core.stores import local
from cellcount_core.stores.base import Absent, Created, Denied
from cellcount_core.stores.local import LocalStore, open_local, remove_abandoned


@pytest.fixture
def bound_by_permissions(tmp_path: Path) -> None:
    """Skips where this user may read what nobody may read (root, as a rule)."""
    shut = tmp_path / "shut"
    shut.touch(mode=0)
    if os.access(shut, os.R_OK):
        pytest.skip("this user may read and write everything")


def listed_keys(store: LocalStore, prefix: str = "") -> list[str]:
    return sorted(found.key for batch in store.list(prefix) for found in batch)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return open_local(tmp_path / "root")


def test_a_relative_path_is_made_absolute_and_home_is_expanded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert open_local("here").url == str(tmp_path / "here")
    assert open_local("~/there").url == str(tmp_path / "home" / "there")


def test_the_tag_is_size_and_time_of_the_file(store: LocalStore) -> None:
    store.put("a", b"12345")
    found = Path(store.root, "a").stat()
    ((listed,),) = store.list()
    assert listed.etag == f"5-{found.st_mtime_ns:x}"


def test_files_are_readable_as_the_umask_says(store: LocalStore) -> None:
    before = os.umask(0o027)
    try:
        store.put("put", b"x")
        store.put_new("new", b"x")
    finally:
        os.umask(before)
    for key in ("put", "new"):
        assert Path(store.root, key).stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("write", ["_put_new_unnamed", "_put_new_named"])
def test_both_ways_of_creating_write_all_and_never_replace(tmp_path: Path, write: str) -> None:
    put_new = getattr(local, write)
    target = tmp_path / "part"
    body = os.urandom(3_000_000)
    try:
        assert put_new(tmp_path, target, body) is Created.NEW
    except OSError as fault:
        if write == "_put_new_unnamed" and fault.errno in local._NO_UNNAMED_FILES:
            pytest.skip(f"this file system has no files without a name ({fault})")
        raise
    assert put_new(tmp_path, target, b"other") is Created.EXISTS
    assert target.read_bytes() == body
    assert [path.name for path in tmp_path.iterdir()] == ["part"]


@pytest.mark.parametrize("write", ["put", "put_new"])
def test_a_writer_killed_at_any_moment_leaves_all_of_the_object_or_nothing(
    tmp_path: Path, write: str
) -> None:
    code = (
        "import sys\n"
        "from cellcount_core.stores.local import open_local\n"
        "store = open_local(sys.argv[1])\n"
        "body = b'x' * 4_000_000\n"
        "print('ready', flush=True)\n"
        f"for number in range(100000): store.{write}(f'fields/part-{{number:06d}}', body)\n"
    )
    store = open_local(tmp_path)
    for moment in (0.0, 0.013, 0.03, 0.047, 0.08, 0.11):
        writer = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        with writer.stdout:
            assert writer.stdout.readline() == b"ready\n"
            time.sleep(moment)
            writer.send_signal(signal.SIGKILL)
            writer.wait(120)
        assert {found.size for batch in store.list() for found in batch} <= {4_000_000}
        for key in listed_keys(store):
            store.delete(key)


def test_what_a_crash_left_of_a_put_is_not_listed(store: LocalStore) -> None:
    store.put("fields/part-0", b"x")
    Path(store.root, "fields", f"{local.STAGED_PREFIX}0{local.STAGED_SUFFIX}").write_bytes(b"half")
    assert listed_keys(store) == ["fields/part-0"]


def test_what_a_killed_process_left_of_a_put_is_removed_and_that_of_a_living_one_is_not(
    store: LocalStore,
) -> None:
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from cellcount_core.stores import local\n"
        "with local._staged(Path(sys.argv[1]), b'whole'):\n"
        "    print('staged', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    store.put("labels/a/one", b"x")
    folder = Path(store.root, "labels", "a")
    Path(store.root, f"{local.STAGED_PREFIX}0{local.STAGED_SUFFIX}").write_bytes(b"half")
    putter = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert putter.stdin is not None
    assert putter.stdout is not None
    with putter.stdin, putter.stdout:
        assert putter.stdout.readline() == b"staged\n"
        remove_abandoned(store, ["labels", "not-there"])
        assert sorted(local.is_staged(path.name) for path in folder.iterdir()) == [False, True]
        assert not any(local.is_staged(path.name) for path in Path(store.root).iterdir())
        putter.kill()
        putter.wait(120)
    remove_abandoned(store, ["labels"])
    assert [path.name for path in folder.iterdir()] == ["one"]


def test_a_failed_put_leaves_the_old_object_and_nothing_else(store: LocalStore) -> None:
    store.put("a/b", b"old")
    with pytest.raises(OutputFault, match=r"a/b/c.*cannot be written"):
        store.put("a/b/c", b"below a file")
    with pytest.raises(OutputFault, match="cannot be written"):
        store.put("a", b"in the place of a folder")
    assert store.get("a/b") == b"old"
    assert sorted(path.name for path in Path(store.root).rglob("*")) == ["a", "b"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_stops_the_run_and_says_what_to_do() -> None:
    # /dev/full answers each write with ENOSPC.
    descriptor = os.open("/dev/full", os.O_WRONLY)
    try:
        with (
            pytest.raises(StorageFault, match=r"fields/part-0: .*full; free some space"),
            local._write_faults(Path("fields/part-0")),
        ):
            local._write_all(descriptor, b"x")
    finally:
        os.close(descriptor)


@pytest.mark.parametrize(
    ("code", "fault", "words"),
    [
        (errno.EDQUOT, StorageFault, "quota is full"),
        (errno.EROFS, OutputFault, r"read-only; mount it .*a run that is there already goes on in a copy"),
        (
            errno.EACCES,
            OutputFault,
            r"no permission; change its .*a run that is there already goes on in a copy",
        ),
        (errno.EIO, StorageFault, "check the disk or the mount"),
        (errno.ESTALE, StorageFault, "check the disk or the mount"),
    ],
)
def test_each_error_of_a_write_names_the_path_and_the_way_out(
    code: int, fault: type[Exception], words: str
) -> None:
    with (
        pytest.raises(fault, match=rf"out/a\.parquet: .*{words}"),
        local._write_faults(Path("out/a.parquet")),
    ):
        raise OSError(code, os.strerror(code))


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (errno.ENOENT, Absent),
        (errno.ENOTDIR, Absent),
        (errno.ELOOP, Absent),
        (errno.EACCES, Denied),
        (errno.EIO, StorageFault),
        (errno.ESTALE, StorageFault),
        (errno.ETIMEDOUT, StorageFault),
    ],
)
def test_only_a_missing_name_is_absent_and_only_a_refusal_is_denied(code: int, kind: type[Exception]) -> None:
    assert type(local._read_fault(OSError(code, os.strerror(code)), "k", Path("root/k"))) is kind


@pytest.mark.usefixtures("bound_by_permissions")
def test_a_file_without_permission_is_denied_and_the_others_are_read(store: LocalStore) -> None:
    store.put("shut", b"x")
    store.put("open", b"y")
    Path(store.root, "shut").chmod(0)
    (_, shut), (_, opened) = store.get_many(["shut", "open"], ahead=2)
    assert isinstance(shut, Denied)
    assert opened == b"y"


@pytest.mark.usefixtures("bound_by_permissions")
def test_a_folder_without_permission_stops_listing_and_writing(store: LocalStore) -> None:
    store.put("folder/a", b"x")
    folder = Path(store.root, "folder")
    folder.chmod(0)
    try:
        with pytest.raises(StorageFault, match="folder: the folder cannot be listed"):
            listed_keys(store)
        with pytest.raises(OutputFault, match="no permission"):
            store.put("folder/b", b"x")
    finally:
        folder.chmod(0o755)


def test_a_listing_ends_where_links_lead_back(store: LocalStore) -> None:
    store.put("plate/well/a.tif", b"x")
    Path(store.root, "plate/well/up").symlink_to(Path(store.root))
    Path(store.root, "plate/well/self").symlink_to("self")
    Path(store.root, "also").symlink_to("plate", target_is_directory=True)
    assert listed_keys(store) == [
        "also/well/a.tif",
        "also/well/self",
        "plate/well/a.tif",
        "plate/well/self",
    ]


def test_a_linked_folder_outside_the_root_is_followed(store: LocalStore, tmp_path: Path) -> None:
    elsewhere = open_local(tmp_path / "elsewhere")
    elsewhere.put("a.tif", b"far")
    Path(store.root).mkdir()
    Path(store.root, "plate").symlink_to(elsewhere.root)
    assert listed_keys(store) == ["plate/a.tif"]
    assert store.get("plate/a.tif") == b"far"


def test_a_dangling_link_is_listed_without_a_tag_and_absent_when_read(store: LocalStore) -> None:
    Path(store.root).mkdir()
    Path(store.root, "gone.tif").symlink_to("nowhere.tif")
    ((listed,),) = store.list()
    assert (listed.key, listed.etag) == ("gone.tif", "")
    with pytest.raises(Absent):
        store.get("gone.tif")


def test_a_named_pipe_is_neither_listed_nor_waited_for(store: LocalStore) -> None:
    Path(store.root).mkdir()
    os.mkfifo(Path(store.root, "pipe.tif"))
    assert listed_keys(store) == []
    with pytest.raises(Absent):
        store.get("pipe.tif")


def test_a_name_that_is_too_long_is_absent_to_read_and_refused_to_write(store: LocalStore) -> None:
    with pytest.raises(Absent):
        store.get("x" * 300)
    with pytest.raises(OutputFault, match=r"[Nn]ame too long"):
        store.put("x" * 300, b"x")


def test_a_listing_survives_files_that_go_away_meanwhile(store: LocalStore) -> None:
    Path(store.root).mkdir()
    for number in range(2000):
        Path(store.root, f"{number:04d}").touch()
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            Path(store.root, "coming").touch()
            Path(store.root, "coming").unlink()

    worker = threading.Thread(target=churn)
    worker.start()
    try:
        for _ in range(10):
            assert {f"{number:04d}" for number in range(2000)} <= set(listed_keys(store))
    finally:
        stop.set()
        worker.join()
