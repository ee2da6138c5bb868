"""The table of `make rollouts`: what can go wrong in a rollout or at a gateway, a row each.

`python -m tests.archives.rollout_table [--server asgi] [--out FILE]` runs the tests that show it
and no others, two files at a time as `make test` does: the rollouts between two nodes, and beside
them those with kills, between two others, and all the rest. They wait far more than they work. The
exit code is 1 where a row is judged wrong; it is judged right when each of its tests passed. What
they measured is in `figures.py`.
"""

from __future__ import annotations

import argparse
import datetime
import os
import sys
import time
import traceback
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.archives import figures
from tests.archives.figures import Figures
from tests.servers import OPTION

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Line:
    """One row; a test counts with all its parameters, or with those in brackets."""

    name: str
    what: str
    tests: tuple[str, ...]


LIVE = "test_a_rollout"
LINES = (
    Line("A1", "a version that hangs, at 100 % and in keep", (
        f"{LIVE}[hangs once it answers all]", "test_what_clients_gave_up_on_is_unanswered",
        "test_an_answer_that_breaks_off_is_logged_as_none",
    )),
    Line("A2", "broken clients and studies; bursts; identical versions, and bad ones", (
        f"{LIVE}[v1 to v2 beside a client that sends broken bodies]",
        f"{LIVE}[v1 to v2]", f"{LIVE}[fails 5 % of the time]", f"{LIVE}[slow]",
        f"{LIVE}[wrong scores]", f"{LIVE}[its worker dies 5 % of the time]",
        f"{LIVE}[turns bad in the canary, failing 10 %]",
        "test_one_that_turns_bad_is_found_within_the_requests_that_the_docs_state",
        "test_identical_versions_with_broken_studies",
        "test_what_fails_with_either_version_is_not_held_against_the_new_one",
        "test_one_client_that_sends_what_no_version_can_read_stops_no_release",
        "test_what_it_fails_is_asked_of_the_old_one_whose_answer_is_dropped",
        "test_a_web_form_is_refused_before_a_node_is_asked",
        "test_what_is_too_much_at_once_is_load_and_gets_retry_after",
        "test_what_is_refused_for_load_says_nothing",
    )),
    Line("A3", "one study is one, however many its pictures", (
        "test_one_study_is_one_however_many_pictures_it_has", "test_a_studys_value_is_its_share",
        "test_too_few_studies_hold",
    )),
    Line("A4", "as many as the old version", (
        "test_as_many_is_fishers_exact_test",
        "test_share_of_failing_studies_that_excuse",
    )),
    Line("A5", "the clock is set back by 600 s", (
        "test_what_was_answered_under_an_earlier_entry_is_not_judged_whatever_the_clock_says",
        "test_both_logs_are_read_by_time_also_where_the_clock_was_set_back",
        "test_within_a_boot_the_wall_clock_may_be_set",
        "test_report_counts_all_also_where_the_clock_was_set_back",
        "test_what_comes_after_keep_is_not_counted_in_it",
    )),
    Line("A6", "faults of the machine: slow management, full disks, archives that do not load", (
        f"{LIVE}[fails its goldens]", f"{LIVE}[does not load]", f"{LIVE}[does not load on a node]",
        f"{LIVE}[kill -9 of a worker at each step]",
        "test_a_disk_that_is_full_stops_the_new_version_and_not_the_old_one",
        "test_on_a_full_disk_the_new_version_gets_no_traffic_and_the_old_one_goes_on",
        "test_where_the_disk_is_full_the_new_version_answers_no_client_until_there_is_space",
        "test_an_abort_needs_no_disk_space",
        "test_a_full_temporary_folder_or_a_kill_is_no_verdict_on_the_archive",
        "test_a_node_that_answers_slowly_about_itself_is_no_bad_version",
        "test_torchserve_is_not_asked_to_unpack_what_its_disk_cannot_hold",
        "test_what_a_nodes_machine_lacks_is_no_verdict_on_the_archive",
        "test_what_a_nodes_machine_lacks_halts_it_and_the_same_command_resumes",
        "test_verify_that_does_not_end_is_ended_and_is_no_verdict_on_the_archive",
        "test_while_a_version_loads_the_others_are_asked_as_ever",
        "test_a_worker_that_is_killed_during_its_golden_examples_is_no_bad_version",
    )),
    Line("A7", "a client that leaves its socket open", (
        "test_a_socket_that_is_left_open_is_no_latency",
    )),
    Line("A8", "studies with bytes of Latin-1", ("test_studies_are_known_by_their_bytes",)),
    Line("A9", "what a shadow costs clients", (
        f"{LIVE}[v1 to v2]", "test_what_is_mirrored_has_a_budget_and_what_is_dropped_is_counted",
        "test_a_shadow_is_not_waited_for",
    )),
    Line("B1", "a node that answers something else, hangs, or comes back", (
        f"{LIVE}[kill -9 of a node at four steps]",
        "test_no_answer_of_a_node_ends_the_gateway", "test_a_node_that_hangs_is_taken_out",
        "test_a_node_comes_back_with_exactly_what_the_journal_says",
        "test_what_one_node_cannot_the_other_does",
        "test_a_node_that_is_away_is_not_asked_for_a_version_that_nobody_is_known_to_have",
        "test_a_node_sends_clients_nowhere_and_asks_them_for_nothing",
        "test_of_an_answers_head_goes_on_what_is_named",
        "test_what_does_not_say_how_long_it_is_is_no_answer",
    )),
    Line("B2", "2,200 requests of a stranger that never end", (
        "test_many_half_requests_without_a_token_keep_no_client_out",
        "test_requests_that_strangers_never_end_hold_no_change_up",
        "test_one_client_does_not_hold_all_of_the_memory",
    )),
    Line("B3", "a flood of strangers in the logs; tokens on a full disk", (
        "test_a_flood_of_strangers_is_refused_and_seldom_logged",
        "test_a_log_that_somebody_moves_is_begun_again_and_old_ones_go",
        "test_a_disk_that_is_full_stops_the_new_version_and_not_the_old_one",
    )),
    Line("B4", "gateway and nginx killed, and started on the same state", (
        f"{LIVE}[kill -9 of the supervisor at each step]",
        f"{LIVE}[kill -9 of nginx's master at each step]",
        "test_a_number_that_another_process_has_by_now_is_not_nginxs",
        "test_supervisor_and_master_killed_together", "test_the_master_of_nginx_is_killed",
        "test_a_worker_of_nginx_is_killed",
        "test_killed_and_started_again_it_adopts_the_nginx_that_went_on",
    )),
    Line("B5", "SIGTERM to the gateway under load", (
        "test_stopping_answers_what_is_under_way_on_kept_connections",
        "test_no_connection_from_hop_to_hop_is_kept_until_the_other_end_may_close_it",
        "test_what_an_nginx_that_ends_still_holds_is_waited_for",
    )),
    Line("B6", "two gateways, logs that move, certificates, ciphers, headers", (
        "test_two_gateways_on_one_address_of_this_machine_are_refused",
        "test_a_new_log_with_the_number_of_a_deleted_one_is_read_from_its_start",
        "test_a_log_that_somebody_moves_is_begun_again_and_old_ones_go",
        "test_an_expired_certificate_is_refused",
        "test_a_certificate_that_ends_soon_is_reported_once_a_day",
        "test_tls_1_2_without_forward_secrecy_is_refused", "test_nothing_else_is_reachable",
        "test_what_the_handler_refuses_is_not_asked_elsewhere",
    )),
    Line("B7", "key files that are away, Java left behind, starts that fail", (
        "test_what_a_killed_command_has_left_is_ended_by_the_next_one",
        "test_in_the_foreground_until_sigterm",
        "test_a_start_that_fails_leaves_no_nginx",
        "test_without_a_good_key_no_study_changes_sides",
        "test_without_the_list_of_clients_nobody_is_let_in_or_called_unknown",
    )),
    Line("B8", "root's files, commands at once, kill -9 of the command at each step", (
        f"{LIVE}[kill -9 of the command at each step, tokens voided every six seconds]",
        "test_what_root_writes_is_the_owners", "test_what_root_writes_is_the_gateways",
        "test_a_command_is_judged_by_what_is_so_once_nobody_else_writes",
        "test_repair_cuts_off_what_cannot_be_read_on_and_keeps_a_copy",
    )),
    Line("B9", "archives that unpack to gigabytes, odd names, two packs at once", (
        "test_what_unpacks_to_more_than_the_file_is_refused_before_it_is_read",
        "test_a_name_that_another_folder_would_come_of_is_refused",
        "test_two_that_pack_one_version_at_once_do_not_share_a_file",
    )),
    Line("B10", "other bytes in a worker, tokens that end, stores, copies, waits without an end", (
        "test_an_answer_of_other_bytes_or_without_a_result",
        "test_what_was_loaded_from_other_bytes",
        "test_a_node_with_other_bytes_is_not_asked_even_if_no_other_can_answer",
        "test_without_the_supervisor_nodes_own_renewals_are_found",
        "test_the_gateway_renews_a_token_that_is_running_out",
        "test_a_store_that_cannot_be_written_to_is_named",
        "test_a_copy_is_on_the_disk_before_it_has_its_name",
        "test_what_a_killed_copy_has_left_is_no_archive_and_goes_with_a_later_one",
        "test_old_archives_are_removed_but_for_the_served_one_and_the_one_before",
        "test_what_does_not_come_about_is_a_fault_that_says_what_to_do",
        "test_started_by_root_its_workers_are_the_state_folders_owner",
        "test_a_journal_of_a_newer_sonode_does_not_end_the_gateway",
        "test_a_state_folder_that_nginx_cannot_work_in",
    )),
    Line("C", "why a guard decided; an archive allowed again; two gateways for one set of nodes", (
        "test_each_judged_step_with_its_counts",
        "test_a_rollback_is_reported_as_the_journal_has_it",
        "test_a_failure_is_reported_with_what_the_other_version_did",
        "test_what_went_back_is_not_repeated_by_the_same_command",
        "test_a_node_has_one_gateway_until_that_is_gone",
        "test_a_second_gateway_leaves_the_nodes_of_the_first_alone",
    )),
)  # fmt: skip
HEADER = (
    "| | what goes wrong | tests | judged right | requests | unanswered | seconds to recover | "
    "tests took, s | measured |\n|---|---|---|---|---|---|---|---|---|"
)
FIRST = ("test_rollout_live.py", "test_rollout_kills.py")
"""The files that take longest."""
FIGURES = "figures"
SERVER = "SONODE_TEST_SERVER"
"""In the environment: the server whose tests run, where a test is one for each."""


# --- in each process that runs tests


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    others = set(OPTION.values()) - {os.environ[SERVER]}
    kept = [
        it
        for it in items
        if any(belongs(it.name, test) for test in wanted())
        and not any(it.name.partition("[")[2].startswith(other) for other in others)
    ]
    config.hook.pytest_deselected(items=[it for it in items if it not in kept])
    items[:] = sorted(kept, key=lambda it: it.path.name not in FIRST)


def pytest_runtest_setup() -> None:
    figures.begin()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    report: Any = yield
    report.user_properties.append((FIGURES, asdict(figures.running())))
    return report


# --- where the table is made


@dataclass
class Table:
    """The plugin of pytest that keeps what the lines need, and makes the rows."""

    outcomes: dict[str, list[tuple[str, str, Figures]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    """By test: its id, its outcome and its figures, of each parameter."""
    took: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Seconds, by test."""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name = report.nodeid.rpartition("::")[2]
        self.took[name] += report.duration
        if report.when == "call" or report.outcome != "passed":
            found = Figures(**dict(report.user_properties)[FIGURES])  # type: ignore[arg-type]
            self.outcomes[name].append((report.nodeid, report.outcome, found))

    def row(self, line: Line) -> tuple[str, bool]:
        """The row, and whether it is judged right."""
        total, said, ran, took = Figures(), [], 0, 0.0
        for test in line.tests:
            found = [it for name, its in self.outcomes.items() if belongs(name, test) for it in its]
            if not found:
                said.append(f"{test} was not found")
            for nodeid, outcome, measured in found:
                name = nodeid.rpartition("::")[2]
                if outcome == "skipped":
                    total.notes.append(f"not run here: {name}")
                    continue
                ran += 1
                took += self.took[name]
                total.add(measured)
                if outcome == "failed":
                    said.append(f"{name} failed")
        judged = "NO: " + "; ".join(said) if said else "yes" if ran else "not run here"
        sent, unanswered = (total.sent, total.unanswered) if total.sent else ("", "")
        seconds = "" if total.seconds is None else f"{total.seconds:.1f}"
        notes = "; ".join(total.notes)
        cells = (
            *(line.name, line.what, ran, judged, sent, unanswered, seconds, f"{took:.0f}", notes),
        )
        return "| " + " | ".join(map(str, cells)) + " |", not said


def wanted() -> list[str]:
    return [test for line in LINES for test in line.tests]


def belongs(name: str, test: str) -> bool:
    """Whether a test is meant; the server that it ran on says nothing."""
    for server in OPTION.values():
        name = name.replace(f"[{server}-", "[")
    return name == test or name.partition("[")[0] == test


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("rollouts.md"))
    parser.add_argument("--server", choices=sorted(OPTION.values()), default="torchserve")
    given = parser.parse_args()
    os.environ |= {"SONODE_TEST_ROLLOUTS": "all", SERVER: given.server}
    table, began = Table(), time.monotonic()
    words = ["--numprocesses=2", "--dist=loadfile", "--no-loadscope-reorder"]
    words += ["--max-worker-restart=0", "-p", "tests.archives.rollout_table"]
    try:
        pytest.main([str(HERE), "-q", *words], plugins=[table])
    except Exception:  # what ran is told all the same; what did not is judged wrong
        traceback.print_exc()
    rows, right = zip(*map(table.row, LINES), strict=True)
    minutes = (time.monotonic() - began) / 60
    told = f"{given.server}, {datetime.date.today()}, {os.cpu_count()} cores, {minutes:.1f} minutes"
    text = "\n".join([f"`make rollouts`, {told}", "", HEADER, *rows, ""])
    for it, outcomes in table.outcomes.items():
        if it.startswith(f"{LIVE}["):
            text += f"\n- {it.removeprefix(LIVE)}: {outcomes[-1][1]}, {table.took[it]:.0f} s"
    given.out.write_text(text)
    print(f"\n{text}")
    return 0 if all(right) else 1


if __name__ == "__main__":
    sys.exit(main())
