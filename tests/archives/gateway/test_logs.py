"""archives/gateway/logs.py: lines as they come, whole or torn."""

import json
import logging
from pathlib import Path

import pytest

from archives.gateway.logs import Logs, LogTail


def test_a_line_without_its_end_waits_and_one_that_is_torn_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = tmp_path / "attempts.jsonl"
    tail = LogTail(log)
    assert list(tail.rows()) == []
    log.write_text('{"t": 1}\n{"t": 2, "co{"t": 3}\n{"t": 4')
    with caplog.at_level(logging.WARNING):
        assert list(tail.rows()) == [{"t": 1}]
    assert caplog.messages == ["attempts.jsonl: skipped a line that is not JSON"]
    with log.open("a") as file:
        file.write("}\n")
    assert list(tail.rows()) == [{"t": 4}]


def test_a_log_that_was_moved_aside_is_read_to_its_end(tmp_path: Path) -> None:
    log = tmp_path / "requests.jsonl"
    tail = LogTail(log)
    log.write_text(json.dumps({"t": 1}) + "\n")
    assert [row["t"] for row in tail.rows()] == [1]
    with log.open("a") as file:
        file.write(json.dumps({"t": 2}) + "\n")
    log.rename(tmp_path / "requests-20261122T000000Z.jsonl")
    log.write_text(json.dumps({"t": 3}) + "\n")
    assert [row["t"] for row in tail.rows()] == [2, 3]


def test_a_log_that_ends_with_a_row_of_an_earlier_entry_is_read(tmp_path: Path) -> None:
    # An nginx process that is ending has answered the last one under the entry before.
    moved = [json.dumps({"t": t, "seq": seq}) + "\n" for t, seq in ((1, 4), (2, 5), (3, 4))]
    (tmp_path / "requests-20261122T000000Z.jsonl").write_text("".join(moved))
    (tmp_path / "requests.jsonl").write_text(json.dumps({"t": 4, "seq": 5}) + "\n")
    assert [row["t"] for row in LogTail(tmp_path / "requests.jsonl", 5).rows()] == [1, 2, 3, 4]
    assert [row["t"] for row in LogTail(tmp_path / "requests.jsonl", 6).rows()] == [4]


def test_both_logs_are_read_by_time_also_where_the_clock_was_set_back(tmp_path: Path) -> None:
    logs = Logs(tmp_path)
    (tmp_path / "gateway").mkdir()
    # Set back by 600 s after 1020; an attempt comes a moment before its request.
    times = {"attempts": [999.9, 1009.9, 1019.9, 429.9, 439.9], "requests": [1000, 1010, 1020, 430]}
    for name, found in times.items():
        lines = "".join(json.dumps({"t": t}) + "\n" for t in found)
        (tmp_path / "gateway" / f"{name}.jsonl").write_text(lines)
    assert [(is_attempt, row["t"]) for is_attempt, row in logs.rows()] == [
        (True, 999.9), (False, 1000), (True, 1009.9), (False, 1010), (True, 1019.9), (True, 429.9),
        (False, 1020), (False, 430), (True, 439.9),
    ]  # fmt: skip
    assert list(logs.rows()) == []
