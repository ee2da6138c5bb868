"""`nodes.yaml`, and what is asked of a node (a stand-in: what TorchServe does is tested live)."""

import hashlib
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from archives.nodes import nodes
from archives.nodes.nodes import Node
from archives.nodes.nodes_file import read_nodes
from archives.state.journal import Release
from sonode.console import UserError
from tests.archives.standin import StandIn

ONE = """
nodes:
- name: left
  inference: http://127.0.0.1:8080
  management: http://127.0.0.1:8081
  run_dir: runs/left
  store: /srv/store
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "nodes.yaml"
    path.write_text(text)
    return path


def test_folders_are_relative_to_the_file(tmp_path: Path) -> None:
    (node,) = read_nodes(written(tmp_path, ONE))
    assert (node.name, node.workers) == ("left", None)
    assert node.run_dir == tmp_path / "runs" / "left"
    assert node.store == Path("/srv/store")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nodes: [", "is not valid YAML"),
        ("", "nodes: Field required"),
        ("nodes: []", "nodes: Tuple should have at least 1"),
        (ONE + "  colour: red\n", r"nodes\.0\.colour: Extra inputs"),
        (ONE.replace("left\n", "'a b'\n", 1), r"nodes\.0\.name: String should match"),
        (ONE.replace("http://127.0.0.1:8080", "https://x:1"), r"nodes\.0\.inference: String"),
        (ONE.replace("http://127.0.0.1:8080", "http://x:1/a"), r"nodes\.0\.inference: String"),
        (ONE + "  workers: 0\n", r"nodes\.0\.workers: Input should be greater"),
        (ONE + ONE.partition("nodes:")[2], "name left is given twice"),
        (
            ONE + ONE.partition("nodes:")[2].replace("left", "right", 1),
            "inference http://127.0.0.1:8080 is given twice",
        ),
        (
            ONE + re.sub("left\\n", "right\\n", ONE.replace("808", "909"), count=1)[8:],
            "run_dir .*runs/left is given twice",
        ),
        (ONE.replace("8080", "65536"), "there is no port 65536"),
        (ONE.replace("8081", "0"), "there is no port 0"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UserError) as refused:
        read_nodes(written(tmp_path, text))
    told = "\n".join([str(refused.value), *refused.value.details])
    assert str(tmp_path / "nodes.yaml") in told
    assert re.search(said, told), told


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--nodes .*No such file"):
        read_nodes(tmp_path / "nodes.yaml")


# --- a node


@pytest.fixture
def standin(tmp_path: Path) -> Iterator[StandIn]:
    node = StandIn(tmp_path, "a")
    node.start()
    yield node
    node.stop()


def release(version: str, data: bytes = b"archive") -> Release:
    return Release(version, f"m-{version}.mar", hashlib.sha256(data).hexdigest())


@pytest.fixture
def node(standin: StandIn, tmp_path: Path) -> Node:
    archives = tmp_path / "archives"
    archives.mkdir()
    for version in ("1.0", "2.0"):
        (archives / f"m-{version}.mar").write_bytes(b"archive")
    return Node(standin.settings(), archives)


def test_a_version_is_registered_with_its_archive(standin: StandIn, node: Node) -> None:
    assert node.healthy()
    assert node.versions("m") == {"1.0": 1}
    node.register("m", release("2.0"))
    assert node.versions("m") == {"1.0": 1, "2.0": 1}
    assert [path.name for path in standin.store.iterdir()] == ["m-2.0.mar"]
    node.register("m", release("2.0"))  # again: it stays
    node.set_default("m", "2.0")
    assert node.default_version("m") == "2.0"
    node.unregister("m", "1.0")
    node.unregister("m", "1.0")  # again: it is gone
    assert node.versions("m") == {"2.0": 1}


def test_what_does_not_load_is_taken_off_again(standin: StandIn, node: Node) -> None:
    standin.loads = False
    with pytest.raises(httpx.HTTPStatusError):
        node.register("m", release("2.0"))
    assert standin.versions == {"1.0": 1}


def test_torchserve_is_not_asked_to_unpack_what_its_disk_cannot_hold(
    standin: StandIn, node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would leave on the disk what it could unpack, at each try."""
    archive = tmp_path / "archives" / "m-2.0.mar"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("weights", bytes(3_000_000))
    two = release("2.0", archive.read_bytes())
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=34_900_000))
    with pytest.raises(UserError, match=r"^node a: .* has 35 MB free, but 2\.0 needs 35 MB: free"):
        node.register("m", two)
    assert not [it for it in standin.asked if it.startswith("POST")]
    standin.versions["2.0"] = 1
    node.register("m", two)  # it has been unpacked


def test_an_archive_that_is_another_one(standin: StandIn, node: Node) -> None:
    (standin.store / "m-2.0.mar").write_bytes(b"something else")
    with pytest.raises(UserError, match=r"node a: m-2.0.mar in its store is not the release's"):
        node.register("m", release("2.0"))
    with pytest.raises(UserError, match=r"is not the release's archive .*put it back"):
        node.register("m", release("1.0", b"yet another"))
    assert [path.name for path in standin.store.iterdir()] == ["m-2.0.mar"]
    assert standin.versions == {"1.0": 1}


def test_exactly_these_versions(standin: StandIn, node: Node) -> None:
    standin.versions = {"0.8": 1, "0.9": 1, "2.0": 1}
    standin.default = "0.9"
    node.ensure("m", release("1.0"), [release("1.0"), release("2.0")])
    assert (standin.versions, standin.default) == ({"2.0": 1, "1.0": 1}, "1.0")
    standin.asked = []
    node.ensure("m", release("1.0"), [release("1.0"), release("2.0")])
    assert {asked.split()[0] for asked in standin.asked} == {"GET"}


@pytest.mark.parametrize("file", ["m-1.0.mar", "own.mar"])
def test_what_was_loaded_from_other_bytes(standin: StandIn, node: Node, file: str) -> None:
    standin.versions["2.0"] = 1
    (standin.store / file).write_bytes(b"replaced")
    (standin.store / "m-2.0.mar").write_bytes(b"archive")
    standin.files["1.0"] = file
    serves = [release("1.0"), release("2.0")]
    node.ensure("m", serves[0], serves)  # a node that goes on with what it has loaded
    with pytest.raises(UserError, match=rf"node a: {file} in its store, from .* 1.0, is not the"):
        node.ensure("m", serves[0], serves, prove=True)
    (standin.store / file).write_bytes(b"archive")
    node.ensure("m", serves[0], serves, prove=True)
    assert standin.versions == {"1.0": 1, "2.0": 1}


def test_the_default_version_is_taken_off_too(standin: StandIn, node: Node) -> None:
    standin.versions = {"0.9": 1, "1.0": 1, "2.0": 1}
    with pytest.raises(httpx.HTTPStatusError):  # as TorchServe does
        node.unregister("m", "1.0")
    node.take_off("m", "1.0", standin.versions, instead="2.0")
    assert (standin.versions, standin.default) == ({"0.9": 1, "2.0": 1}, "2.0")
    node.take_off("m", "2.0", standin.versions, instead="1.0")  # which is not there
    assert (standin.versions, standin.default) == ({"0.9": 1}, "0.9")
    node.take_off("m", "0.9", standin.versions, instead=None)
    assert standin.versions == {}


def test_a_token_that_somebody_else_renews(standin: StandIn, node: Node) -> None:
    keys = (standin.run_dir / "key_file.json").read_bytes()
    reads = iter([keys])
    original = Path.read_bytes

    def old_once(path: Path) -> bytes:
        if path.name == "key_file.json" and (held := next(reads, None)):
            return held
        return original(path)

    standin.renew("management")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "read_bytes", old_once)
        assert node.versions("m") == {"1.0": 1}
    assert next(reads, None) is None


@pytest.mark.parametrize(
    "ask",
    [
        Node.healthy,
        lambda node: node.versions("m"),
        lambda node: node.predict("m", "1.0", b"", {}, 3.0).is_success,
    ],
)
def test_a_token_that_has_expired_by_the_nodes_clock(
    standin: StandIn, node: Node, ask: Callable[[Node], object]
) -> None:
    """By the gateway's it has an hour left: that of the node is ahead."""
    standin.tokens = dict.fromkeys(standin.tokens, "another")
    assert ask(node)


def test_a_node_that_is_not_there(standin: StandIn, node: Node) -> None:
    standin.stop()
    with pytest.raises(httpx.ConnectError):
        node.healthy()
    (standin.run_dir / "key_file.json").unlink()
    with pytest.raises(FileNotFoundError):
        node.versions("m")


@pytest.mark.parametrize(
    ("code", "speaks"),
    [
        *((200, True), (404, False), (405, False), (501, False)),
        *((code, None) for code in (302, 400, 401, 403, 500, 503)),
    ],
)
def test_whether_its_server_speaks_the_open_inference_protocol(
    node: Node, monkeypatch: pytest.MonkeyPatch, code: int, speaks: bool | None
) -> None:
    answer = httpx.Response(code, request=httpx.Request("GET", "http://node"))
    monkeypatch.setattr(nodes, "ask", lambda *_, **__: answer)
    assert node.speaks_open_inference() is speaks
