"""Metrics of the gateway: what they tell, and when."""

from pathlib import Path
from types import SimpleNamespace

from archives.gateway.configuration.settings import GatewaySettings
from archives.gateway.health import Health
from archives.gateway.supervisor import Supervisor
from tests.archives.behind import start_journal


def test_metrics_show_a_renewed_certificate_and_a_fault_at_once_and_the_entry_when_applied(
    tmp_path: Path,
) -> None:
    start_journal(tmp_path)
    supervisor = Supervisor([], tmp_path, GatewaySettings())
    pair = SimpleNamespace(expires=1000.0)
    health = supervisor._health = Health(tmp_path, pair)
    finishing: list[str] = []
    supervisor.nginx.finishing = lambda: bool(finishing)

    def told() -> list[str]:
        supervisor._write_applied()
        lines = (tmp_path / "gateway" / "metrics.prom").read_text().splitlines()
        wanted = ("disk_full", "applied", "expires")
        return [line.rpartition(" ")[2] for line in lines if any(it in line for it in wanted)]

    assert told() == ["0", "0", "1000"]
    pair.expires = 9000.0
    assert told() == ["0", "0", "9000"]
    # An nginx process before this configuration still answers its last requests.
    finishing.append("one")
    supervisor._read_journal()
    health.faults = ("disk_full",)
    assert told() == ["1", "0", "9000"]
    finishing.clear()
    assert told() == ["1", "1", "9000"]
