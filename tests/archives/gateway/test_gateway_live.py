"""The gateway before a real server: tokens, a restart with nothing registered, one command."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from archives.nodes.nodes import Node
from archives.nodes.nodes_file import NodeSettings, read_nodes
from archives.packing.members import file_sha256
from archives.state.journal import Release
from archives.state.tokens_and_keys import add_client
from archives.torchserve.java import claim_ports
from archives.torchserve.server_node import ServerNode
from tests.archives.behind import Behind, behind, load
from tests.archives.serving.test_serve import ECHO, ROOT, write_archive
from tests.loopback import LOOPBACK
from tests.processes import assert_no_process_about
from tests.servers import ONE_WORKER, OPTION, SERVERS

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    for version in ("1.0", "2.0"):
        write_archive(folder / f"m-{version}.mar", "m", ECHO, version)
    return folder


def release(store: Path, version: str) -> dict[str, str]:
    file = f"m-{version}.mar"
    return vars(Release(version, file, file_sha256(store / file)))


class Machine:
    """A server on ports of its own that can go away and come back."""

    def __init__(self, kind: type[ServerNode], store: Path, run_dir: Path) -> None:
        self._kind = kind
        apis = ("inference", "management", "metrics")
        ports = claim_ports(dict.fromkeys(apis))
        self._ports = {f"{api}_port": port for api, port in ports.items()}
        self._where = store, run_dir
        self.settings = NodeSettings(
            name="a",
            inference=f"http://127.0.0.1:{ports['inference']}",
            management=f"http://127.0.0.1:{ports['management']}",
            run_dir=run_dir,
            store=store,
            workers=1,
        )

    def start(self, models: dict[str, str]) -> None:
        store, run_dir = self._where
        self.server = self._kind(store, models, run_dir, settings=ONE_WORKER, **self._ports)
        self.server.__enter__()

    def stop(self) -> None:
        self.server.stop()


@pytest.fixture(scope="module", params=SERVERS)
def kind(request: pytest.FixtureRequest) -> type[ServerNode]:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def machine(
    kind: type[ServerNode], store: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Machine]:
    made = Machine(kind, store, tmp_path_factory.mktemp("a"))
    made.start({"m": "m-1.0.mar"})
    yield made
    made.stop()


@pytest.fixture(scope="module")
def gateway(
    machine: Machine, store: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Behind]:
    first = release(store, "1.0")
    state = tmp_path_factory.mktemp("g")
    with behind([machine.settings], state, stable=first, serves=[first]) as running:
        yield running


def test_tokens_are_renewed_under_load_and_no_request_is_lost(
    gateway: Behind, machine: Machine
) -> None:
    keys = machine.server._keys
    with load(gateway) as told:
        for _ in range(5):
            before = keys.token()
            # As whoever holds the API key may; the server voids the token before at once.
            url = f"{machine.settings.management}/token?type=inference"
            bearer = {"Authorization": f"Bearer {keys.token('api')}"}
            LOOPBACK.get(url, headers=bearer).raise_for_status()
            assert keys.token() != before
            time.sleep(0.7)
    assert told["200"] == sum(told.values()) > 20


def test_what_the_server_takes_and_answers(gateway: Behind) -> None:
    answer = gateway.ask(content=bytes(33_554_432 - 4096))
    assert (answer.status_code, answer.json()) == (200, {"bytes": 33_554_432 - 4096})
    assert len(gateway.of(answer, "attempts")[0]["node_id"]) == 36  # of its own logs


def test_what_a_server_does_not_speak_is_refused_before_it_is_asked(
    gateway: Behind, kind: type[ServerNode]
) -> None:
    answer = gateway.ask(path="/v2/models/m/infer")  # with a body that is none
    (row,) = gateway.of(answer, "requests")
    told = answer.status_code, row["tries"]
    assert told == {"torchserve": (404, 0), "asgi": (400, 1)}[OPTION[kind]]


def test_the_server_comes_back_with_nothing_registered(
    gateway: Behind, machine: Machine, store: Path
) -> None:
    first, second = release(store, "1.0"), release(store, "2.0")
    gateway.journal(candidate=second, percent=100.0, serves=[first, second])
    gateway.wait(lambda: gateway.ask("study").headers["X-Model-Version"] == "2.0")
    gateway.wait(lambda: gateway.ask("study").status_code == 200)
    machine.stop()
    gateway.wait(lambda: gateway.applied()["nodes"]["a"] == "does not answer")
    assert gateway.ask().status_code == 502
    assert gateway.client.get(f"http://127.0.0.1:{gateway.port}/health").status_code == 503
    machine.start({})
    gateway.wait(lambda: gateway.applied()["nodes"]["a"] == "up", 120)
    node = Node(machine.settings, store)
    assert node.versions("m") == {"1.0": 1, "2.0": 1}
    assert node.default_version("m") == "1.0"
    assert [gateway.ask(study).status_code for study in (None, "study")] == [200, 200]


def test_the_server_comes_back_with_other_bytes_of_the_version(
    gateway: Behind, machine: Machine, store: Path
) -> None:
    first = release(store, "1.0")
    gateway.journal(candidate=None, percent=0.0, stable=first, serves=[first])
    archive, own = store / first["file"], store / "own.mar"
    good = archive.read_bytes()

    def restart(file: str) -> None:
        machine.stop()
        gateway.wait(lambda: gateway.applied()["nodes"]["a"] == "does not answer")
        machine.start({"m": file})

    try:
        for path in (archive, own):
            write_archive(path, "m", f"{ECHO}\n# replaced\n", "1.0")
            restart(path.name)
            refused = f"{path.name} in its store, from which it serves 1.0, is not the release's"
            gateway.wait(lambda text=refused: text in gateway.applied()["nodes"]["a"], 120)
    finally:
        archive.write_bytes(good)
        own.unlink(missing_ok=True)
    restart(archive.name)
    gateway.wait(lambda: gateway.applied()["nodes"]["a"] == "up", 120)


def test_one_command_for_one_machine(kind: type[ServerNode], store: Path, tmp_path: Path) -> None:
    state, run_dir = tmp_path / "g", tmp_path / "run"
    token = add_client(state, "clinic")
    apis = ("inference", "management", "metrics", "gateway")
    ports = claim_ports(dict.fromkeys(apis))
    command = [sys.executable, "-m", "sonode", "serve", "--store", str(store)]
    command += [*(f"--{api}-port={port}" for api, port in ports.items())]
    command += ["--run-dir", str(run_dir), "--state", str(state), "--server", OPTION[kind]]
    first = [*command, "--models", "m=m-2.0.mar"]
    with subprocess.Popen(first, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            said = []
            for line in process.stdout:
                said.append(line)
                if line.startswith("Ctrl-C"):
                    break
            gateway = Behind(state, ports["gateway"], token)
            answer = gateway.ask("a study")
            gateway.client.close()
            (node,) = read_nodes(state / "nodes.yaml")
        finally:
            os.kill(process.pid, signal.SIGTERM)
            process.wait(60)
            process.stdout.close()
    assert (answer.status_code, answer.headers["X-Model-Version"]) == (200, "2.0")
    assert f":{ports['gateway']}/predictions/m" in "".join(said)
    assert node.inference == f"http://127.0.0.1:{ports['inference']}"
    assert process.returncode == 0
    assert_no_process_about(tmp_path)
    # From now on the journal says what is served.
    again = subprocess.run(first, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (again.returncode, again.stderr.count("\n")) == (2, 1)
    assert "the journal in" in again.stderr
