"""archives/gateway_logs.py: lines as they come, whole or torn."""

import json
import logging
from pathlib import Path

import pytest

from archives.gateway_logs import LogTail


def test_a_line_without_its_end_waits_and_one_that_is_torn_is_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = tmp_path / "attempts.jsonl"
    tail = LogTail(log)
    assert list(tail.rows()) == []
    log.write_text('{"t": 1}\n{"t": 2, "co{"t": 3}\n{"t": 4')
    with caplog.at_level(logging.WARNING):
        assert list(tail.rows()) == [{"t": 1}]
    assert caplog.messages == ["attempts.jsonl: a line that is no JSON is passed over"]
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
