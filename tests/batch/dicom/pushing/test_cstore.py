"""C-STORE to nodes that are no friends: what becomes of each object is known, or said."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pydicom
import pytest

pytest.importorskip("highdicom", reason="the extra `dicom` is not installed")
pytest.importorskip("pynetdicom", reason="the extra `dicom` is not installed")

from pydicom.dataset import Dataset
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind as Find

from sonode.console import UserError
from tests.batch.dicom import pacs, ultrasound
from tests.batch.dicom.conftest import BY_DIMSE, NAMES, Objects, objects_of, put_record
from tests.batch.dicom.pushing.test_push import NONE, ledgers, messages, pushed_to
from tests.processes import listening

pytestmark = [pytest.mark.live, *BY_DIMSE]


class FaultyNode:
    """A node that has the images; `answer` gives the status of what is stored, or breaks off."""

    def __init__(self) -> None:
        images = [pydicom.dcmread(ultrasound.FILES / name) for name in NAMES]
        self.uids = {it.SOPInstanceUID for it in images}
        self.studies = {it.StudyInstanceUID: it for it in images}
        self.stored: list[str] = []
        self.answer: Callable[[evt.Event, str], int] = lambda event, uid: 0
        self.status_of_find = 0

    def on_store(self, event: evt.Event) -> int:
        uid = str(event.request.AffectedSOPInstanceUID)
        status = self.answer(event, uid)
        if status in (0, 0xB000):
            self.uids.add(uid)
            self.stored.append(uid)
        return status

    def on_find(self, event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        asked = event.identifier
        if self.status_of_find:
            yield self.status_of_find, None
        elif asked.QueryRetrieveLevel == "STUDY":
            if image := self.studies.get(asked.StudyInstanceUID):
                for element in asked:
                    if element.keyword in image:
                        asked[element.tag] = image[element.tag]
                yield 0xFF00, asked
        else:
            some = asked.SOPInstanceUID
            for uid in self.uids.intersection([some] if isinstance(some, str) else some):
                asked.SOPInstanceUID = uid
                yield 0xFF00, asked


@contextmanager
def started(*queries: str) -> Iterator[FaultyNode]:
    it = FaultyNode()
    entity = AE("FAULTY")
    for context in AllStoragePresentationContexts:
        entity.add_supported_context(context.abstract_syntax)
    for query in queries:
        entity.add_supported_context(query)
    entity.require_called_aet = True
    handlers = [(evt.EVT_C_STORE, it.on_store), (evt.EVT_C_FIND, it.on_find)]
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    it.address = f"FAULTY@127.0.0.1:{server.server_address[1]}"
    try:
        yield it
    finally:
        server.shutdown()


@pytest.fixture
def node() -> Iterator[FaultyNode]:
    with started(Find) as it:
        yield it


def test_one_that_is_refused_is_named_with_its_status(out: Path, node: FaultyNode) -> None:
    refused: list[str] = []

    def answer(event: evt.Event, uid: str) -> int:
        refused.append(uid)
        return 0xA700 if uid == refused[0] else 0xB000 if uid == refused[1] else 0

    node.answer = answer
    assert pushed_to(str(out), node.address).by_status == {**NONE, "accepted": 5, "refused": 1}
    assert messages(out, "refused") == ["status 0xa700"]
    assert "stored with warning 0xb000" in messages(out, "accepted")
    node.answer = lambda event, uid: 0
    done = pushed_to(str(out), node.address)
    assert (done.by_status, done.sent) == ({**NONE, "accepted": 6}, 1)


def test_a_node_that_breaks_off_at_one_object_gets_the_others(out: Path, node: FaultyNode) -> None:
    tried: list[str] = []

    def answer(event: evt.Event, uid: str) -> int:
        tried.append(uid)
        if uid == tried[0]:
            event.assoc.abort()
        return 0xC000

    node.answer = lambda event, uid: answer(event, uid) if not tried or uid == tried[0] else 0
    assert pushed_to(str(out), node.address).by_status == {**NONE, "accepted": 5, "refused": 1}
    assert tried.count(tried[0]) == 2


def test_a_node_that_releases_after_each_object_gets_all(out: Path, node: FaultyNode) -> None:
    def answer(event: evt.Event, uid: str) -> int:
        event.assoc.abort()  # behind the object
        return 0

    node.answer = answer
    assert pushed_to(str(out), node.address).by_status == {**NONE, "accepted": 6}
    assert len(node.stored) == len(set(node.stored)) == 6


def test_an_answer_that_comes_twice_is_not_that_of_the_next(out: Path) -> None:
    """The third is refused; a late second "stored" of the second comes before that answer."""
    asked: list[C_STORE] = []

    def answer(event: evt.Event, uid: str) -> int:
        asked.append(event.request)
        if len(asked) == 3:
            again = C_STORE()
            again.MessageIDBeingRespondedTo = asked[1].MessageID
            again.AffectedSOPClassUID = asked[1].AffectedSOPClassUID
            again.AffectedSOPInstanceUID = asked[1].AffectedSOPInstanceUID
            again.Status = 0
            event.assoc.dimse.send_msg(again, event.context.context_id)
        third = asked[2].AffectedSOPInstanceUID if len(asked) > 2 else None
        return 0xA700 if uid == third else 0

    with started() as node:  # nothing is asked between two objects
        node.answer = answer
        done = pushed_to(str(out), node.address, unknown=True)
    assert done.by_status == {**NONE, "accepted": 5, "refused": 1}
    assert asked[2].AffectedSOPInstanceUID not in node.stored


def test_a_node_that_does_not_know_sonode_is_one_error(out: Path, node: FaultyNode) -> None:
    with pytest.raises(UserError, match=r"SONODE calling OTHER .*--title"):
        pushed_to(str(out), node.address.replace("FAULTY", "OTHER"))
    assert ledgers(out) == []


def test_a_node_that_cannot_find_now_is_no_answer(out: Path, node: FaultyNode) -> None:
    node.status_of_find = 0xA700
    done = pushed_to(str(out), node.address)
    assert (done.stopped, done.sent) == ("C-FIND status 0xa700", 0)


@contextmanager
def storescp(folder: Path) -> Iterator[str]:
    """DCMTK's, which answers no C-FIND."""
    program = shutil.which("storescp")
    if program is None:
        pytest.skip("storescp is not installed: apt-get install dcmtk")
    folder.mkdir()
    port = pacs.free_port()
    with listening([program, "-od", str(folder), str(port)], port):
        yield f"ANY@127.0.0.1:{port}"


def test_a_node_that_finds_by_hierarchy_alone_gets_each_once(
    tmp_path: Path, made: list[Objects]
) -> None:
    """Two boxes of one image: lists of two in each series."""
    put_record(tmp_path / "out", 0, [made[0], objects_of(NAMES[0], (10, 20, 50, 46))])
    with pacs.dcmqrscp(tmp_path / "pacs") as node:
        done = pushed_to(str(tmp_path / "out"), node)
        assert (done.by_status, done.stopped) == ({**NONE, "image_unknown": 6}, None)
        pacs.store(node, pydicom.dcmread(ultrasound.FILES / NAMES[0]))
        assert pushed_to(str(tmp_path / "out"), node).by_status == {**NONE, "accepted": 6}
        for ledger in ledgers(tmp_path / "out"):
            ledger.unlink()
        done = pushed_to(str(tmp_path / "out"), node)
        assert (done.by_status, done.sent) == ({**NONE, "present": 6}, 0)


def test_a_node_without_find_gets_what_it_is_told_to_get(out: Path, tmp_path: Path) -> None:
    with storescp(tmp_path / "there") as address:
        with pytest.raises(UserError, match="--unknown-images"):
            pushed_to(str(out), address)
        assert pushed_to(str(out), address, unknown=True).by_status == {**NONE, "accepted": 6}
        assert pushed_to(str(out), address, unknown=True).sent == 0
    there = {pydicom.dcmread(path).SOPInstanceUID for path in (tmp_path / "there").iterdir()}
    sent = {pydicom.dcmread(path).SOPInstanceUID for path in out.rglob("*.dcm")}
    assert there == sent
    dump = shutil.which("dcmdump")
    for path in (tmp_path / "there").iterdir():
        subprocess.run([dump, "-q", str(path)], check=True, stdout=subprocess.DEVNULL)
