"""The spool: durable before it is acknowledged, shared flushes, nothing half written, torn and damaged lines told apart."""

import errno
import os
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from warehouse import spool

AT = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
SOURCE = "letters"


@pytest.fixture(autouse=True)
def a_slow_machine_seals_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "_SEAL_AFTER", 3600.0)


def kept() -> list[bytes]:
    return [record.body for segment in spool.segments(SOURCE) for record in spool.read(segment).records]


def only() -> spool.Segment:
    (segment,) = spool.segments(SOURCE)
    return segment


@pytest.mark.parametrize("body", [b"", b"{}", b'{\n  "a": "\\n"\n}\n', "ä€😀".encode(), bytes(range(256)), b"x" * 300_000], ids=lambda body: repr(body[:12]))
def test_a_body_comes_back_as_it_was_with_when_it_was_received(home: Path, body: bytes) -> None:
    writer = spool.Writer(SOURCE)
    writer.append(body, AT).result(5)
    writer.close()
    (record,) = spool.read(only()).records
    assert record == spool.Record(AT, body)
    assert only().began_at == AT


def test_what_is_acknowledged_can_be_read_at_once_and_its_file_is_complete_only_when_its_writer_has_let_go(home: Path) -> None:
    writer = spool.Writer(SOURCE)
    writer.append(b"one", AT).result(5)
    assert kept() == [b"one"]
    assert not only().is_sealed
    assert not spool.has_sealed(SOURCE)
    spool.remove(only())
    assert kept() == [b"one"]
    writer.close()
    assert only().is_sealed
    spool.remove(only())
    assert kept() == []


def test_a_segment_is_sealed_by_age_without_another_record(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "_SEAL_AFTER", 0.1)
    writer = spool.Writer(SOURCE)
    writer.append(b"one", AT).result(5)
    deadline = datetime.now(UTC) + timedelta(seconds=5)
    while not spool.has_sealed(SOURCE):
        assert datetime.now(UTC) < deadline
    writer.append(b"two", AT + timedelta(seconds=1)).result(5)
    assert len(list(spool.segments(SOURCE))) == 2
    writer.close()


def test_a_segment_is_sealed_by_size(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "_FULL_BYTES", 10_000)
    writer = spool.Writer(SOURCE)
    for number in range(10):
        writer.append(bytes(3000), AT + timedelta(seconds=number)).result(5)
    writer.close()
    assert len(list(spool.segments(SOURCE))) > 4
    assert len(kept()) == 10


def test_only_the_owner_can_read_it(home: Path) -> None:
    writer = spool.Writer(SOURCE)
    writer.append(b"personal", AT).result(5)
    assert only().path.stat().st_mode & 0o777 == 0o600
    assert spool.folder(SOURCE).stat().st_mode & 0o777 == 0o700
    writer.close()
    assert spool.put_aside(SOURCE, only(), [b"personal"]).stat().st_mode & 0o777 == 0o600


def test_whoever_comes_while_it_flushes_shares_the_next_flush(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on, flushes = threading.Semaphore(0), []

    def flush(handle: int) -> None:
        flushes.append(os.fstat(handle).st_size)
        assert go_on.acquire(timeout=10)

    monkeypatch.setattr(spool, "_flush", flush)
    writer = spool.Writer(SOURCE)
    first = writer.append(b"first", AT)
    while not flushes:
        threading.Event().wait(0.001)
    others = [writer.append(b"other", AT) for _ in range(50)]
    assert not first.done()
    go_on.release()
    first.result(5)
    assert not any(other.done() for other in others)
    go_on.release()
    for other in others:
        other.result(5)
    assert len(flushes) == 2
    assert writer.tally.records == 51
    assert sum(writer.tally.flushes) == 2
    writer.close()


def test_a_flush_that_fails_acknowledges_nothing_and_leaves_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = spool.Writer(SOURCE)
    writer.append(b"before", AT).result(5)

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(spool, "_flush", full)
        for _ in range(2):
            with pytest.raises(spool.SpoolFailed, match="No space left"):
                writer.append(b"refused", AT + timedelta(seconds=1)).result(5)
        with pytest.raises(spool.SpoolFailed, match="No space left"):
            writer.check()
    assert kept() == [b"before"]
    assert only().is_sealed
    writer.check()
    writer.append(b"after", AT + timedelta(seconds=2)).result(5)
    writer.close()
    assert kept() == [b"before", b"after"]
    assert (writer.tally.records, writer.tally.failures) == (2, 2)
    with pytest.raises(spool.SpoolFailed, match="closing"):
        writer.append(b"late", AT)


def test_a_line_cut_off_is_torn_and_any_other_wrong_line_is_damaged(home: Path) -> None:
    writer = spool.Writer(SOURCE)
    for number in range(4):
        writer.append(b"%d" % number, AT).result(5)
    writer.close()
    segment = only()
    lines = segment.path.read_bytes().split(b"\n")
    lines[1] = lines[1].replace(b"1", b"7", 1) if lines[1].startswith(b"1") else b"1" + lines[1][1:]
    segment.path.write_bytes(b"\n".join(lines)[:-9])
    content = spool.read(segment)
    assert [record.body for record in content.records] == [b"0", b"2"]
    assert content.is_torn
    assert content.damaged == [lines[1]]
    file = spool.put_aside(SOURCE, segment, content.damaged)
    spool.put_aside(SOURCE, segment, content.damaged)
    assert file.read_bytes() == lines[1] + b"\n"
    assert spool.put_aside_files(SOURCE) == 1
    assert len(list(spool.segments(SOURCE))) == 1


@pytest.mark.parametrize("cut", [1, 20, 40])
def test_a_last_line_that_is_cut_anywhere_loses_nothing_else(home: Path, cut: int) -> None:
    writer = spool.Writer(SOURCE)
    for body in (b"one", b"two"):
        writer.append(body, AT).result(5)
    writer.close()
    content = only().path.read_bytes()
    only().path.write_bytes(content[:-cut])
    found = spool.read(only())
    assert ([record.body for record in found.records], found.is_torn, found.damaged) == ([b"one"], True, [])


KILLED = """
import os, signal
from datetime import UTC, datetime
from warehouse import spool
writer = spool.Writer("letters")
for number in range(5):
    writer.append(b"%d" % number, datetime(2026, 3, 1, tzinfo=UTC)).result(5)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_writer_acknowledged_is_complete_and_two_writers_do_not_meet(home: Path) -> None:
    living = spool.Writer(SOURCE)
    living.append(b"mine", AT).result(5)
    killed = subprocess.run([sys.executable, "-c", KILLED], env=os.environ, capture_output=True)
    assert killed.returncode == -9, killed.stderr
    states: dict[bool, list[bytes]] = {segment.is_sealed: [one.body for one in spool.read(segment).records] for segment in spool.segments(SOURCE)}
    assert states == {True: [b"0", b"1", b"2", b"3", b"4"], False: [b"mine"]}
    living.close()


def test_a_file_made_in_the_instant_of_a_kill_is_never_read_and_goes_with_the_next_start(home: Path) -> None:
    spool.Writer(SOURCE).close()
    unfinished = spool.folder(SOURCE) / ".20260301T120000000000-00000000.spool"
    unfinished.touch()
    spool.Writer(SOURCE).close()
    assert unfinished.exists()
    os.utime(unfinished, (0, 0))
    assert list(spool.segments(SOURCE)) == []
    spool.Writer(SOURCE).close()
    assert not unfinished.exists()


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_a_spool_of_another_user_is_said_and_not_taken_for_empty(home: Path) -> None:
    spool.Writer(SOURCE).close()
    spool.folder(SOURCE).chmod(0)
    try:
        with pytest.raises(spool.SpoolFailed, match="may not be read"):
            list(spool.segments(SOURCE))
    finally:
        spool.folder(SOURCE).chmod(0o700)


def test_a_folder_that_cannot_be_made_is_said(home: Path) -> None:
    home.mkdir()
    (home / "spool").write_text("a file")
    with pytest.raises(spool.SpoolFailed, match="cannot be made"):
        spool.Writer(SOURCE)


def test_a_writer_lives_on_after_what_nobody_foresaw(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = spool.Writer(SOURCE)

    def broken(*given: Any) -> None:
        raise RuntimeError("unforeseen")

    with monkeypatch.context() as patch:
        patch.setattr(spool, "_flush", broken)
        with pytest.raises(spool.SpoolFailed, match="RuntimeError"):
            writer.append(b"one", AT).result(5)
    writer.append(b"two", AT).result(5)
    writer.close()
    assert kept() == [b"two"]
