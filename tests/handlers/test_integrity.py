import hashlib
import io
import zipfile
from pathlib import Path

from handlers.integrity import archive_sha256, write_canonical_zip


def test_an_unpacked_archive_has_the_digest_of_its_file(archive_path: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(archive_path) as archive:
        archive.extractall(tmp_path)
    expected = hashlib.sha256(archive_path.read_bytes()).hexdigest()
    assert archive_sha256(tmp_path) == expected
    compiled = tmp_path / "handlers" / "__pycache__"
    compiled.mkdir()
    (compiled / "x.pyc").write_bytes(b"")
    assert archive_sha256(tmp_path) == expected  # Python's own leavings do not count
    (tmp_path / "extra").write_bytes(b"")
    assert archive_sha256(tmp_path) != expected


def test_the_form_does_not_depend_on_dates_or_order(tmp_path: Path) -> None:
    made = []
    for names in (["b", "a"], ["a", "b"]):
        folder = tmp_path / "".join(names)
        folder.mkdir()
        for name in names:
            (folder / name).write_text(name)
        stream = io.BytesIO()
        write_canonical_zip(folder, stream)
        made.append(stream.getvalue())
    assert made[0] == made[1]
    assert zipfile.ZipFile(io.BytesIO(made[0])).namelist() == ["a", "b"]
