"""archives/rollout/steps.py with a real nginx and nodes that misbehave at will (`standin.py`)."""

from __future__ import annotations

import json
import random
import re
import shutil
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from archives.gateway.configuration.settings import GatewaySettings
from archives.gateway.supervisor import Supervisor
from archives.judging.journal_facts import step_entry, went_back
from archives.judging.rollout_policy import Policy
from archives.nodes.nodes_file import read_nodes
from archives.packing.members import file_sha256
from archives.rollout import host_shortage, traffic_permit
from archives.rollout.start import Halted, go_on, start
from archives.rollout.status import status
from archives.rollout.steps import Rollout
from archives.state import control
from archives.state.journal import Desired, Entry, Journal, Release, fold
from sonode import command_line
from sonode.console import UserError
from tests.archives.rolling import QUICK, Load, Site, repacked
from tests.archives.standin import Call, Handler, StandIn

IMAGES = [bytes([number]) * 64 for number in range(64)]
SHORT = QUICK | {"canary": [50, 100], "min_step_s": 0.2, "keep_warm_s": 0.2}
LABELS = "malignancy={};alnm=no ALNM"
Answers = Callable[[Handler, Call], bool]


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory, archive_path: Path) -> dict[str, Path]:
    """Without weights, which nobody loads here and each test would copy several times."""
    store = tmp_path_factory.mktemp("packed")

    def small(folder: Path) -> None:
        (folder / "weights.safetensors").unlink()

    return {
        version: repacked(
            archive_path, store / f"{version}.mar", name="m", version=version, change=small
        )
        for version in ("1.0", "2.0", "3.0")
    }


class SiteHere(Site):
    """With its gateway in this process."""

    def start_gateway(self) -> None:
        settings = GatewaySettings(port=self.port, rate=10_000)
        self.supervisor = Supervisor(read_nodes(self.nodes_file), self.state, settings)
        self.supervisor.__enter__()

    def __exit__(self, *_: object) -> None:
        self.supervisor.__exit__()


class Nodes:
    """Two stand-ins that score like an archive, unless `worse` does something to version 2.0."""

    def __init__(self, folder: Path, archive: Path) -> None:
        with zipfile.ZipFile(archive) as packed:
            examples = json.loads(packed.read("golden/golden.json"))
            self.goldens = {
                packed.read(f"golden/{it['image']}"): it["probabilities"] for it in examples
            }
        self.worse: Answers | None = None
        self.nodes = [StandIn(folder, name, behave=self.score) for name in "ab"]
        for node in self.nodes:
            node.start()
            (node.store / "m-1.0.mar").write_bytes(archive.read_bytes())

    def score(self, node: StandIn, handler: Handler, call: Call) -> bool:
        if call.version == "2.0" and self.worse and self.worse(handler, call):
            return True
        answer(handler, self.goldens.get(call.body) or probabilities(call.body))
        return True

    def versions(self) -> list[dict[str, int]]:
        return [dict(node.versions) for node in self.nodes]


def probabilities(body: bytes) -> dict[str, float]:
    p = random.Random(body).betavariate(2, 2)
    return {"malignancy": p, "alnm": p / 3}


def answer(handler: Handler, heads: dict[str, float]) -> None:
    label = "malignant" if heads["malignancy"] > 0.5 else "benign"
    told = {
        "X-Sonode-Code": "ok",
        "X-Sonode-Scores": ";".join(f"{head}={p:.6f}" for head, p in heads.items()),
        "X-Sonode-Labels": LABELS.format(label),
    }
    loaded = {"sha256": handler.node.digests.get(handler.path.split("/")[3], "")}
    scored = {head: {"probability": p} for head, p in heads.items()}
    handler.answer(200, {"model": loaded, "heads": scored}, told)


def is_image(call: Call) -> bool:
    return call.body in IMAGES  # else a golden one


def broken(handler: Handler, call: Call) -> bool:
    if is_image(call) and random.random() < 0.2:
        handler.answer(500, {"code": "inference_failed"}, {"X-Sonode-Code": "inference_failed"})
        return True
    return False


def wrong(handler: Handler, call: Call) -> bool:
    if is_image(call):
        answer(handler, {head: 1 - p for head, p in probabilities(call.body).items()})
    return is_image(call)


def off_the_goldens(handler: Handler, call: Call) -> bool:
    answer(handler, {"malignancy": 0.123, "alnm": 0.1})
    return True


def dies_of_goldens(handler: Handler, call: Call) -> bool:
    if not is_image(call):
        handler.answer(507, {"code": 507})
    return not is_image(call)


@pytest.fixture
def nodes(tmp_path: Path, archives: dict[str, Path]) -> Iterator[Nodes]:
    made = Nodes(tmp_path, archives["1.0"])
    yield made
    for node in made.nodes:
        node.stop()


@pytest.fixture
def site(
    short_path: Path, nodes: Nodes, archives: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Site]:
    """1.0 is served; the archive's own verification is left to test_loader.py."""
    monkeypatch.setattr("archives.rollout.nodes.verify", lambda archive: None)
    settings = [node.settings() for node in nodes.nodes]
    made = SiteHere(short_path / "state", settings, "m")
    (made.state / "archives").mkdir()
    old = Release("1.0", "m-1.0.mar", file_sha256(archives["1.0"]))
    (made.state / "archives" / old.file).write_bytes(archives["1.0"].read_bytes())
    journal = Journal(made.state)
    with journal.lock():
        journal.append("deployed", rollout=None, model="m", stable=old, serves=[old])
    with made:
        yield made


def load(site: Site) -> Load:
    return Load(site.url, site.token, IMAGES, rate=50)


def roll_out(site: Site, archive: Path, **policy: object) -> bool:
    chosen = Policy(**(SHORT | policy))
    return start(archive, site.nodes_file, chosen, site.state, step_by_step=False)


@contextmanager
def running(site: Site, archive: Path, **policy: object) -> Iterator[list[bool]]:
    """The command in the background; its result is there after the block."""
    result: list[bool] = []

    def run() -> None:
        with suppress(KeyboardInterrupt):
            result.append(roll_out(site, archive, **policy))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield result
    finally:
        thread.join(60)
    assert not thread.is_alive()


@contextmanager
def killed_after(
    monkeypatch: pytest.MonkeyPatch, last: Callable[[Entry], bool]
) -> Iterator[list[str]]:
    """Nothing of the command comes after an entry that is a `last` one; yields their events."""
    append = Journal.append
    dead: list[str] = []

    def dying(journal: Journal, event: str, **facts: object) -> Entry:
        entry = append(journal, event, **facts)
        if last(entry):
            dead.append(event)
            raise KeyboardInterrupt
        return entry

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", dying)
        yield dead


def ask(site: Site, word: control.Word) -> None:
    control.ask(site.state, word, step_entry(site.entries()).seq)


def desired(site: Site) -> Desired:
    return fold(site.entries())


def test_from_one_version_to_the_next(site, nodes, archives):
    with load(site) as clients:
        assert roll_out(site, archives["2.0"])
        time.sleep(0.3)
    assert clients.statuses().keys() == {200}
    events = [entry.event for entry in site.entries()]
    assert events == [
        *("deployed", "start", "register", "shadow", "canary", "canary", "default", "drain"),
        *("keep", "retire", "done"),
    ]
    after = desired(site)
    assert (after.stable.version, after.candidate, after.rollout) == ("2.0", None, None)
    assert [release.version for release in after.serves] == ["2.0"]
    assert nodes.versions() == [{"2.0": 1}] * 2
    assert [node.default for node in nodes.nodes] == ["2.0"] * 2
    since = site.wait_for("default", taken=True).time
    assert set(clients.versions(since + 1)) <= {"2.0"}
    shadow = next(entry for entry in site.entries() if entry.event == "shadow")
    assert shadow.facts["golden_difference"] == {"a": pytest.approx(0), "b": pytest.approx(0)}


def test_killed_after_each_entry_and_started_again(site, nodes, archives, monkeypatch):
    with (
        load(site) as clients,
        killed_after(monkeypatch, lambda entry: entry.event != "restart") as dead,
    ):
        while desired(site).rollout or not dead:
            with pytest.raises(KeyboardInterrupt):
                roll_out(site, archives["2.0"])
    assert dead == [
        *("start", "register", "shadow", "canary", "canary", "default", "drain", "keep"),
        *("retire", "done"),
    ]
    assert clients.statuses().keys() == {200}
    assert nodes.versions() == [{"2.0": 1}] * 2


@pytest.mark.parametrize(
    ("worse", "guard", "at"),
    [(broken, "errors", "shadow"), (wrong, "flips of malignancy", "shadow"),
     (off_the_goldens, "golden", "register"), (dies_of_goldens, "golden", "register")],
)  # fmt: skip
def test_a_bad_version_goes_back_before_a_client_meets_it(site, nodes, archives, worse, guard, at):
    nodes.worse = worse
    with load(site) as clients:
        assert not roll_out(site, archives["2.0"])
    assert clients.statuses().keys() == {200}
    assert set(clients.versions()) == {"1.0"}
    back = next(entry for entry in site.entries() if entry.event == "rollback")
    assert (back.facts["guard"], back.facts["at"]) == (guard, at)
    last = site.entries()[-1]
    assert (last.event, last.facts["exposed"]) == ("rolled_back", 0)
    assert nodes.versions() == [{"1.0": 1}] * 2
    after = desired(site)
    assert (after.stable.version, after.candidate, after.percent) == ("1.0", None, 0)


def test_a_worker_that_is_killed_during_its_golden_examples_is_no_bad_version(
    site, nodes, archives
):
    met: set[bytes] = set()

    def killed(handler: Handler, call: Call) -> bool:
        new = not is_image(call) and call.body not in met
        met.add(call.body)
        return new and dies_of_goldens(handler, call)

    nodes.worse = killed
    with load(site) as clients:
        assert roll_out(site, archives["2.0"])
    assert clients.statuses().keys() == {200}
    assert met.issuperset(nodes.goldens)


def test_one_that_does_not_load(site, nodes, archives):
    nodes.nodes[1].loads = False
    assert not roll_out(site, archives["2.0"])
    back = next(entry for entry in site.entries() if entry.event == "rollback")
    assert back.facts["guard"] == "register"
    assert "node b does not start 2.0" in back.facts["said"]
    assert nodes.versions() == [{"1.0": 1}] * 2


def test_one_that_turns_bad_in_the_canary_goes_back_and_killing_that_does_not_stop_it(
    site, nodes, archives, monkeypatch
):
    with (
        load(site) as clients,
        killed_after(monkeypatch, lambda it: it.event in ("rollback", "withdraw")) as dead,
    ):
        with running(site, archives["2.0"], min_requests=100):
            site.wait_for("canary 50 %", taken=True)
            nodes.worse = broken
            while "rollback" not in dead:
                time.sleep(0.1)
        with pytest.raises(KeyboardInterrupt):
            roll_out(site, archives["2.0"])
        assert dead == ["rollback", "withdraw"]
        assert not roll_out(site, archives["2.0"])
        since = time.time()
        time.sleep(0.3)
    assert set(clients.versions(since)) == {"1.0"}
    assert site.entries()[-1].facts["exposed"] > 0
    assert nodes.versions() == [{"1.0": 1}] * 2


def test_what_went_back_is_not_repeated_by_the_same_command(site, nodes, archives, monkeypatch):
    nodes.worse = off_the_goldens
    back = killed_after(monkeypatch, lambda entry: entry.event == "rolled_back")
    with back, pytest.raises(KeyboardInterrupt):
        roll_out(site, archives["2.0"])
    before = len(site.entries())
    with pytest.raises(UserError) as refused:
        roll_out(site, archives["2.0"])
    assert re.match(
        r"NEW 2\.0\.mar: was rolled back here \(golden: node a, .*\); .* `sonode rollout allow`",
        str(refused.value),
    )
    assert len(site.entries()) == before
    nodes.worse = None
    with load(site):
        words = ["rollout", "allow", str(archives["2.0"]), "--state", str(site.state), "--reason"]
        with pytest.raises(UserError, match=r"^--reason: is empty"):
            command_line.app([*words, " "], standalone_mode=False)
        command_line.app([*words, "node a had another torch"], standalone_mode=False)
        assert site.entries()[-1].facts["reason"] == "node a had another torch"
        assert site.entries()[-1].facts["by"] == control.operator()
        with pytest.raises(UserError, match="was not rolled back here"):
            command_line.app([*words, "twice"], standalone_mode=False)
        words = site.start_words(archives["2.0"], SHORT | {"canary": [100]})
        assert command_line.app(words, standalone_mode=False) == 0
    assert went_back(site.entries(), desired(site).stable) == ""  # it has served since


# --- what operators ask, and what is missing


@pytest.mark.parametrize(("step", "word"), [("register", "abort"), ("default", "promote")])
def test_a_pause_holds_where_nobody_judges_too(site, nodes, archives, monkeypatch, step, word):
    original = getattr(Rollout, f"_{step}")

    def paused_in(rollout: Rollout) -> object:
        ask(site, "pause")
        return original(rollout)

    monkeypatch.setattr(Rollout, f"_{step}", paused_in)
    with load(site), running(site, archives["2.0"], canary=[100]) as result:
        site.wait_for("pause")
        time.sleep(1)
        assert (desired(site).step, desired(site).paused) == (step, True)
        ask(site, word)
    assert result == [word != "abort"]
    assert not desired(site).paused


def test_too_few_requests_hold_and_then_pause_but_never_promote(site, nodes, archives):
    with running(site, archives["2.0"], step_timeout_s=1.5) as result:
        paused = site.wait_for("pause")  # no load at all
        assert paused.facts["why"].startswith("too few requests to judge")
        time.sleep(1)
        assert desired(site).step == "shadow"
        assert desired(site).paused
        ask(site, "abort")
    assert result == [False]
    back = next(entry for entry in site.entries() if entry.event == "rollback")
    assert (back.facts["guard"], back.facts["said"]) == ("abort", "by the operator")
    assert back.facts["by"] == control.operator()


def test_pause_resume_promote_within_a_second(site, nodes, archives):
    with load(site), running(site, archives["2.0"], min_step_s=60) as result:
        site.wait_for("shadow", taken=True)
        ask(site, "pause")
        site.wait_for("pause", seconds=1)
        found = status(site.state)
        assert found.running
        assert found.desired.paused
        assert found.desired.shadow_percent == 100
        ask(site, "resume")
        site.wait_for("resume", seconds=1)
        ask(site, "promote")
        canary = site.wait_for("canary 50 %", seconds=1)
        assert canary.facts["why"].startswith("by hand")
        # Promoted twice in a row: the second word was for a step that is over.
        control.ask(site.state, "promote", canary.seq - 1)
        time.sleep(1)
        assert desired(site).step == "canary 50 %"
        assert not (site.state / "control").exists()
        ask(site, "abort")
        site.wait_for("rollback", seconds=1)
    assert result == [False]


def test_a_pause_outlives_the_command_and_a_command_to_a_dead_one_does_not_reach_the_next(
    site, nodes, archives, monkeypatch
):
    control.ask(site.state, "abort", 1)  # of a rollout that was
    paused = killed_after(monkeypatch, lambda entry: entry.event == "pause")
    with paused, load(site), running(site, archives["2.0"]):
        site.wait_for("shadow")
        ask(site, "pause")
    with load(site), running(site, archives["2.0"]) as result:
        site.wait_for("restart")
        time.sleep(1.5)
        assert desired(site).step == "shadow"
        ask(site, "resume")
    assert result == [True]


def test_an_abort_while_no_command_runs_is_heeded_though_nothing_is_waited_for(
    site, nodes, archives, monkeypatch
):
    drained = killed_after(monkeypatch, lambda entry: entry.event == "drain")
    with drained, load(site), pytest.raises(KeyboardInterrupt):
        roll_out(site, archives["2.0"])
    site.wait_for("drain", taken=True)
    command_line.app(["rollout", "abort", "--state", str(site.state)], standalone_mode=False)
    assert desired(site).stable.version == "1.0"
    assert site.entries()[-1].event == "rolled_back"
    # Whatever starts the command again does not take the operator's word back.
    with pytest.raises(UserError, match=r"rolled back here \(abort: "):
        roll_out(site, archives["2.0"])


def test_it_goes_on_with_its_policy_and_with_no_other_steps(site, nodes, archives, monkeypatch):
    with load(site):
        with (
            killed_after(monkeypatch, lambda entry: entry.facts.get("step") == "canary 30 %"),
            pytest.raises(KeyboardInterrupt),
        ):
            roll_out(site, archives["2.0"], canary=[30, 100])
        with pytest.raises(UserError, match=r"^--policy: canary has no step 'canary 30 %'"):
            roll_out(site, archives["2.0"], canary=[20, 100])
        assert start(archives["2.0"], site.nodes_file, None, site.state, step_by_step=False)


def test_a_store_that_cannot_be_written_to_is_named(site, nodes, archives):
    shutil.rmtree(nodes.nodes[1].store)
    with pytest.raises(Halted, match=r"node b: its store cannot be written to \(No "):
        roll_out(site, archives["2.0"])
    assert desired(site).step == "register"
    nodes.nodes[1].store.mkdir()
    with load(site):  # it is no fault of the archive's: the same words go on
        assert roll_out(site, archives["2.0"], canary=[100])


def test_where_the_disk_is_full_the_new_version_answers_no_client_until_there_is_space(
    site, nodes, archives, monkeypatch
):
    full: list[str] = []
    monkeypatch.setattr(traffic_permit, "disk_fault", lambda state: full[0] if full else "")
    with load(site) as clients, running(site, archives["2.0"]) as result:
        site.wait_for("canary 50 %", taken=True)
        full.append("no room")
        until = time.monotonic() + 20
        while traffic_permit.granted(site.state) and time.monotonic() < until:
            time.sleep(0.01)
        since = time.time() + 0.2
        time.sleep(0.6)
        assert set(clients.versions(since)) == {"1.0"}
        full.clear()
    assert result == [True]
    assert [entry.event for entry in site.entries()].count("disk_space") == 1


def test_what_was_killed_while_the_disk_was_full_goes_on(site, nodes, archives, monkeypatch):
    canary = killed_after(monkeypatch, lambda entry: entry.facts.get("step") == "canary 100 %")
    with load(site) as clients:
        with canary, pytest.raises(KeyboardInterrupt):
            roll_out(site, archives["2.0"], canary=[100])
        site.wait_for("canary 100 %", taken=True)
        traffic_permit.take_back(site.state)  # as where there is no room
        since = time.time()
        time.sleep(0.3)
        assert set(clients.versions(since)) == {"1.0"}
        assert roll_out(site, archives["2.0"], canary=[100])


def test_an_abort_is_heeded_after_a_kill_while_the_disk_was_full(
    site, nodes, archives, monkeypatch
):
    canary = killed_after(monkeypatch, lambda entry: entry.facts.get("step") == "canary 100 %")
    with load(site):
        with canary, pytest.raises(KeyboardInterrupt):
            roll_out(site, archives["2.0"], canary=[100])
        (site.state / control.UNDER_WAY).unlink()  # all that `abort` could do
        assert not roll_out(site, archives["2.0"], canary=[100])


def test_what_does_not_come_about_is_a_fault_that_says_what_to_do(
    site, nodes, archives, monkeypatch
):
    monkeypatch.setattr("archives.rollout.waiting.GIVE_UP_S", 0.5)
    site.__exit__()
    with pytest.raises(Halted, match=r"^waited 0\.5 s for the gateway to apply entry 4"):
        roll_out(site, archives["2.0"], canary=[100])
    assert desired(site).step == "shadow"
    for node in nodes.nodes:
        node.stop()
    with pytest.raises(Halted, match=r"^waited 0\.5 s for the gateway of --state "):
        sonode_abort(site)
    site.start_gateway()


def sonode_abort(site: Site) -> bool:
    journal = Journal(site.state)
    control.ask(site.state, "abort", 0)
    with journal.lock():
        return go_on(journal)


def test_old_archives_are_removed_but_for_the_served_one_and_the_one_before(
    site, nodes, archives, capsys
):
    folder = site.state / "archives"
    (folder / "somebody-elses.mar").touch()
    with load(site):
        assert roll_out(site, archives["2.0"], canary=[100])
        assert {it.name for it in folder.iterdir()} == {
            "m-1.0.mar", "m-2.0.mar", "somebody-elses.mar",
        }  # fmt: skip
        assert roll_out(site, archives["3.0"], canary=[100])
    assert {it.name for it in folder.iterdir()} == {
        "m-2.0.mar", "m-3.0.mar", "somebody-elses.mar",
    }  # fmt: skip
    assert capsys.readouterr().out.splitlines()[-1].endswith(f"removed from {folder}: m-1.0.mar")


def test_an_abort_needs_no_disk_space(site, nodes, archives, monkeypatch):
    with load(site) as clients, running(site, archives["2.0"], canary=[100], min_step_s=60):
        site.wait_for("shadow", taken=True)
        ask(site, "promote")
        site.wait_for("canary 100 %", taken=True)

        append, failed = Journal.append, []

        def full(*words: object, **facts: object) -> Entry:
            if len(failed) < 2:
                failed.append(0)
                raise OSError(28, "No space left on device")
            return append(*words, **facts)

        def fail(*_: object) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(Path, "write_text", fail)
            patch.setattr(Journal, "append", full)
            patch.setattr(traffic_permit, "RETRY_S", 0.1)
            command_line.app(
                ["rollout", "abort", "--state", str(site.state)], standalone_mode=False
            )
            site.wait_for("rolled_back")
        assert len(failed) == 2
        since = time.time()
        time.sleep(0.3)
    assert set(clients.versions(since)) == {"1.0"}


def test_an_abort_is_not_taken_back(tmp_path):
    control.begin(tmp_path)
    assert control.asked(tmp_path, 3) is None
    control.ask(tmp_path, "abort", 3)
    control.ask(tmp_path, "promote", 3)
    assert control.asked(tmp_path, 3) == control.Asked("abort", control.operator(), 3)


@pytest.mark.parametrize(
    ("first", "second"), [(("resume", 3), ("promote", 3)), (("promote", 3), ("promote", 5))]
)
def test_a_command_that_comes_while_another_is_recorded_is_kept(tmp_path, first, second):
    control.begin(tmp_path)
    control.ask(tmp_path, *first)
    read = control.asked(tmp_path, 3)
    control.ask(tmp_path, *second)
    control.done(tmp_path, read)
    assert control.asked(tmp_path, second[1]) == control.Asked(
        second[0], control.operator(), second[1]
    )
    control.done(tmp_path, control.asked(tmp_path, second[1]))
    assert control.asked(tmp_path, second[1]) is None


def test_step_by_step_waits_for_promote(site, nodes, archives, monkeypatch):
    chosen = Policy(**(SHORT | {"canary": [100]}))
    result = []
    words = (archives["2.0"], site.nodes_file, chosen, site.state)
    thread = threading.Thread(target=lambda: result.append(start(*words, step_by_step=True)))
    with load(site):
        thread.start()
        for step in ("shadow", "canary 100 %", "keep"):
            site.wait_for(step, taken=True)
            time.sleep(1)  # four looks at what it waits for
            assert desired(site).step == step
            ask(site, "promote")
        thread.join(30)
    assert result == [True]


def test_the_old_version_comes_back_while_it_is_kept_warm(site, nodes, archives):
    with load(site) as clients, running(site, archives["2.0"], keep_warm_s=60) as result:
        site.wait_for("keep", taken=True)
        assert [node.default for node in nodes.nodes] == ["2.0"] * 2
        ask(site, "abort")
        site.wait_for("rolled_back")
        since = time.time()
        time.sleep(0.3)
    assert result == [False]
    assert set(clients.versions(since)) == {"1.0"}
    assert clients.statuses().keys() == {200}
    assert nodes.versions() == [{"1.0": 1}] * 2
    assert [node.default for node in nodes.nodes] == ["1.0"] * 2


def test_a_node_that_is_down_gets_it_when_it_comes_back(site, nodes, archives):
    nodes.nodes[1].stop()
    with load(site) as clients:
        assert roll_out(site, archives["2.0"])
        assert nodes.versions() == [{"2.0": 1}, {"1.0": 1}]
        shadow = next(entry for entry in site.entries() if entry.event == "shadow")
        assert shadow.facts["absent"] == ["b"]
        nodes.nodes[1].start()
        until = time.monotonic() + 20
        while nodes.versions() != [{"2.0": 1}] * 2 and time.monotonic() < until:
            time.sleep(0.1)
    assert nodes.versions() == [{"2.0": 1}] * 2
    assert nodes.nodes[1].default == "2.0"
    assert clients.statuses().keys() == {200}


def test_a_node_that_does_not_do_it_is_reported_and_brought_in_line_at_last(site, nodes, archives):
    stuck = nodes.nodes[1]
    stuck.refuses = ("PUT", "DELETE")
    with load(site) as clients:
        assert roll_out(site, archives["2.0"], canary=[100])
        assert stuck.versions == {"1.0": 1, "2.0": 1}
        said = [entry.facts["not_done"] for entry in site.entries() if "not_done" in entry.facts]
        assert said == [
            "not done by b: default 2.0; the gateway will do it later",
            "not done by b: unregister 1.0; the gateway will do it later",
        ]
        stuck.refuses = ()
        until = time.monotonic() + 20
        while nodes.versions() != [{"2.0": 1}] * 2 and time.monotonic() < until:
            time.sleep(0.1)
    assert nodes.versions() == [{"2.0": 1}] * 2
    assert stuck.default == "2.0"
    assert clients.statuses().keys() == {200}


def test_what_a_nodes_machine_lacks_halts_it_and_the_same_command_resumes(
    site, nodes, archives, monkeypatch
):
    stuck = nodes.nodes[1]
    stuck.refuses = ("POST",)
    with load(site) as clients:
        with monkeypatch.context() as patch:
            patch.setattr(host_shortage.NodeLogs, "lack", lambda _: "No space left on device")
            with pytest.raises(
                Halted,
                match=r"^node b does not start 2\.0 .*space left on device\)",
            ):
                roll_out(site, archives["2.0"])
        assert site.entries()[-1].event == "register"
        stuck.refuses = ()
        assert roll_out(site, archives["2.0"], canary=[100])
    assert nodes.versions() == [{"2.0": 1}] * 2
    assert clients.statuses().keys() == {200}


def test_two_at_once_are_refused(site, nodes, archives):
    with load(site), running(site, archives["2.0"], min_step_s=60):
        site.wait_for("shadow")
        with pytest.raises(UserError, match=r"a rollout is running \(process \d+\)") as caught:
            roll_out(site, archives["3.0"])
        assert "\n" not in str(caught.value)
        ask(site, "abort")
    # Nor after a kill: the one that has not ended is gone on with, or ended.
    journal = Journal(site.state)
    with journal.lock():
        journal.append("start", rollout="x", model="m", stable=OLD, candidate=NEW, step="shadow",
                       heads=[], nodes="", policy={})  # fmt: skip
    with pytest.raises(UserError, match=r"the rollout of 9.0 has not ended \(step shadow\)"):
        roll_out(site, archives["3.0"])


OLD = Release("1.0", "m-1.0.mar", "0" * 64)
NEW = Release("9.0", "m-9.0.mar", "1" * 64)


def test_what_cannot_be_rolled_out_here_is_refused_before_anything_is_written(
    tmp_path, archives, archive_path
):
    journal = Journal(tmp_path / "state")
    with journal.lock():
        journal.append("deployed", rollout=None, model="m", stable=OLD, serves=[OLD])
    nodes = tmp_path / "nodes.yaml"
    words = (nodes, Policy(), tmp_path / "state")
    with pytest.raises(UserError, match=r"--nodes .*No such file"):
        start(archives["2.0"], *words, step_by_step=False)
    nodes.write_text(
        "nodes: [{name: a, inference: 'http://127.0.0.1:1', management: 'http://127.0.0.1:2',"
        " run_dir: a, store: a}]"
    )
    for archive, message in [
        (archive_path, "its model is tiny, but m is served here"),
        (archives["1.0"], "version 1.0 is served with other content"),
        (tmp_path / "none.mar", "no such file"),
    ]:
        with pytest.raises(UserError, match=message):
            start(archive, *words, step_by_step=False)
    kept = tmp_path / "state" / "archives" / "m-2.0.mar"
    kept.parent.mkdir()
    kept.write_bytes(b"another")
    with pytest.raises(UserError, match="is another archive of that version"):
        start(archives["2.0"], *words, step_by_step=False)
    assert [entry.event for entry in journal.entries()] == ["deployed"]
