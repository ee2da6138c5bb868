"""/metrics of the second server."""

import socket

from archives.asgi.metrics import Metrics

HOST = socket.gethostname()


def lines(metrics: Metrics, name: str) -> list[str]:
    return [line for line in metrics.text().splitlines() if line.startswith(name)]


def test_counters_add_up_and_gauges_are_set() -> None:
    metrics = Metrics()
    for value in (1, 2):
        metrics.add("sonode_warned_total", value, "m", "1.0")
        metrics.add("sonode_model_info", value, "m", "1.0", "abc", "eager")
    labels = 'model_name="m",model_version="1.0"'
    assert lines(metrics, "sonode_warned_total") == [
        f'sonode_warned_total{{{labels},Hostname="{HOST}"}} 3.0'
    ]
    assert lines(metrics, "sonode_model_info") == [
        f'sonode_model_info{{{labels},sha256="abc",engine="eager",Hostname="{HOST}"}} 2.0'
    ]
    assert "# TYPE sonode_warned_total counter" in metrics.text()
    assert "# TYPE Requests5XX counter" in metrics.text()  # as long as there is none


def test_a_histogram_counts_up_to_each_bound() -> None:
    metrics = Metrics()
    for seconds in (0.005, 0.006, 0.2, 11):
        metrics.add("sonode_stage_seconds", seconds, "m", "1.0", "handle")
    counts = {
        line.partition('le="')[2].partition('"')[0]: int(line.rpartition(" ")[2])
        for line in lines(metrics, "sonode_stage_seconds_bucket")
    }
    assert [counts[it] for it in ("0.005", "0.01", "0.1", "0.25", "10.0", "+Inf")] == [
        *(1, 2, 2, 3, 3, 4)
    ]
    assert lines(metrics, "sonode_stage_seconds_count")[0].endswith(" 4")
    assert lines(metrics, "sonode_stage_seconds_sum")[0].endswith(" 11.211")


def test_a_label_breaks_no_line() -> None:
    metrics = Metrics()
    metrics.add("sonode_warned_total", 1, 'a"b\\c\nd', "1.0")
    assert 'model_name="a\\"b\\\\c\\nd"' in lines(metrics, "sonode_warned_total")[0]


def test_what_an_archive_labels_differently_does_not_spoil_the_page() -> None:
    metrics = Metrics()
    metrics.update([("sonode_warned_total", 1, ["m"]), ("sonode_warned_total", 1, ["m", "1.0"])])
    assert len(lines(metrics, "sonode_warned_total")) == 1
