"""An archive's bytes: every one counts."""

import random
import re
import tracemalloc
import warnings
import zipfile
from pathlib import Path

import pytest

from archives.packing.inspect import inspect_archive
from archives.packing.members import ArchiveError, read_member, read_members
from handlers.integrity import write_canonical_zip
from tests.archives.rolling import repacked


def altered(source: Path, target: Path, position: int) -> Path:
    data = bytearray(source.read_bytes())
    data[position] ^= 0x01
    target.write_bytes(data)
    return target


def positions(path: Path) -> list[tuple[str, int]]:
    """A place of each kind: headers, names, contents, the directory and its end."""
    data = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        weights = archive.getinfo("weights.safetensors")
        service = archive.getinfo("service.py")
        directory = archive.start_dir
    places = {
        "signature of the first entry": 0,
        "date of an entry": weights.header_offset + 10,
        "checksum of an entry": weights.header_offset + 14,
        "name of an entry": weights.header_offset + 30,
        "a weight": weights.header_offset + 30 + len(weights.filename) + weights.file_size // 2,
        "code": service.header_offset + 30 + len(service.filename) + 100,
        "directory: mode": directory + 38,
        "directory: date": directory + 12,
        "directory: offset": directory + 42,
        "directory: name": directory + 46,
        "end: number of entries": len(data) - 12,
        "end: length of the comment": len(data) - 2,
    }
    chance = random.Random(0)
    return [*places.items(), *(("anywhere", chance.randrange(len(data))) for _ in range(8))]


def test_one_altered_byte_is_refused(archive_path: Path, tmp_path: Path) -> None:
    def cut(folder: Path) -> None:
        weights = folder / "weights.safetensors"
        weights.write_bytes(weights.read_bytes()[:100_000])

    small = repacked(archive_path, tmp_path / "m.mar", name="m", version="1", change=cut)
    read_members(small)
    for where, position in positions(small):
        path = altered(small, tmp_path / "altered.mar", position)
        for look in (read_members, lambda path: inspect_archive(path, verify=True)):
            with pytest.raises(ArchiveError, match=r"ARCHIVE altered\.mar: ") as caught:
                look(path)
            assert re.search("pack", str(caught.value)), where


def zipped(path: Path, *members: tuple[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    """An archive in canonical form (see `handlers.integrity`) but for its names or compression."""
    both = (("MAR-INF/MANIFEST.json", b"{}"), ("model.json", b"{}"), *members)
    with zipfile.ZipFile(path, "w", compression) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a name that is there twice
        for name, content in sorted(both):
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system, entry.external_attr = 3, 0o644 << 16
            entry.compress_type = compression
            archive.writestr(entry, content)
    return path


@pytest.mark.parametrize(
    "name", ["x//y", "./z", "model.json", "dir/", "/x", "../x", "a\\b", "model.json/x"]
)
def test_a_name_that_another_folder_would_come_of_is_refused(tmp_path: Path, name: str) -> None:
    read_members(zipped(tmp_path / "plain.mar", ("x/y", b"1")))
    path = zipped(tmp_path / "odd.mar", (name, b"" if name.endswith("/") else b"1"))
    with pytest.raises(ArchiveError, match="damaged or altered"):
        read_members(path)


def test_a_file_that_an_older_archive_lacks_is_named(tmp_path: Path) -> None:
    old = zipped(tmp_path / "old.mar", ("MODEL_CARD.md", b"card"))
    assert read_member(old, "MODEL_CARD.md") == b"card"
    with pytest.raises(
        ArchiveError, match=r"old\.mar: has no tested_on\.json; pack its checkpoint"
    ):
        read_member(old, "tested_on.json")


def test_what_unpacks_to_more_than_the_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    bomb = zipped(tmp_path / "bomb.mar", ("x", bytes(50_000_000)), compression=zipfile.ZIP_DEFLATED)
    tracemalloc.start()
    with pytest.raises(ArchiveError, match="damaged or altered"):
        read_members(bomb)
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


def test_every_altered_bit_of_a_directory_is_refused(archive_path: Path, tmp_path: Path) -> None:
    small = tmp_path / "small.mar"
    (tmp_path / "MAR-INF").mkdir()
    for name in ("MAR-INF/MANIFEST.json", "model.json"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "in").mkdir()
    for name in ("MAR-INF", "model.json"):
        (tmp_path / name).rename(tmp_path / "in" / name)
    with small.open("wb") as file:
        write_canonical_zip(tmp_path / "in", file)
    read_members(small)
    data = small.read_bytes()
    for position in range(len(data)):
        for bit in range(8):
            flipped = bytearray(data)
            flipped[position] ^= 1 << bit
            small.write_bytes(flipped)
            with pytest.raises(ArchiveError):
                read_members(small)


def test_compiled_code_is_not_smuggled_in(archive_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "more.mar"
    path.write_bytes(archive_path.read_bytes())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("handlers/__pycache__/images.cpython-311.pyc", b"")
    with pytest.raises(ArchiveError, match=r"more\.mar: damaged or altered"):
        read_members(path)


@pytest.mark.parametrize("added", [b"x", b"\0" * 100])
def test_bytes_added_at_an_end_are_refused(
    archive_path: Path, tmp_path: Path, added: bytes
) -> None:
    path = tmp_path / "longer.mar"
    for data in (archive_path.read_bytes() + added, added + archive_path.read_bytes()):
        path.write_bytes(data)
        with pytest.raises(ArchiveError, match=r"longer\.mar: .*altered"):
            inspect_archive(path, verify=True)


def test_a_shortened_archive_is_refused(archive_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "short.mar"
    data = archive_path.read_bytes()
    for length in (0, 4, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(ArchiveError, match=r"short\.mar: "):
            read_members(path)


def test_no_such_archive(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match=r"no-such\.mar: no such file; .*sonode pack"):
        read_members(tmp_path / "no-such.mar")


def test_a_zip_of_something_else(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "photos.mar", "w") as archive:
        archive.writestr("a.txt", "a")
    with pytest.raises(ArchiveError, match=r"photos\.mar: not an archive of sonode"):
        read_members(tmp_path / "photos.mar")
