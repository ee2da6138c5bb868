"""The gateway's certificate with its key: nginx gets a copy of the last good pair.

A renewal may leave half a pair, a pair that does not match, or none. nginx would then refuse every
configuration, and with it each step of a rollout, a rollback included.
"""

from __future__ import annotations

import hashlib
import logging
import ssl
import time
from collections.abc import Callable
from pathlib import Path

from archives.state.files import write_private
from sonode.console import UserError

logger = logging.getLogger(__name__)

WARN_BEFORE_S = 30 * 86400.0

# Both are in one file, so that the copy is replaced in one step.
TEST = """
daemon off;
error_log stderr;
pid {folder}/test.pid;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/tmp;
    proxy_temp_path {folder}/tmp;
    fastcgi_temp_path {folder}/tmp;
    uwsgi_temp_path {folder}/tmp;
    scgi_temp_path {folder}/tmp;
    server {{
        listen unix:{folder}/test.sock ssl;
        ssl_certificate {pair};
        ssl_certificate_key {pair};
    }}
}}
"""


class Pair:
    """What `--certificate` and `--certificate-key` name, as far as nginx takes it.

    `refusal` gives nginx's reason to refuse a configuration (see `archives.gateway.nginx.nginx`).
    """

    def __init__(
        self, certificate: Path, key: Path, state: Path, refusal: Callable[[str], str]
    ) -> None:
        self.path = state.resolve() / "gateway" / "certificate.pem"
        self.digest = ""
        self.expires: float | None = None
        """Unix time at which the pair in use ends."""
        self._certificate, self._key = certificate, key
        self._state = state
        self._refusal = refusal
        self._looked_at: object = None
        self._reported = ""

    def look(self) -> None:
        """Take the pair over where it has changed; `path` and `digest` are those of the last good.

        A bad one is logged. Raises UserError where there was never a good one.
        """
        if (now := self._stamp()) == self._looked_at and self.path.exists():
            return
        try:
            fault = self._take()
        except OSError as error:  # may pass without a change of the pair: a full disk
            now, fault = None, f"{error.filename or self.path}: {error.strerror}"
        if self.path.exists():
            self.digest = hashlib.sha256(self.path.read_bytes()).hexdigest()
            self.expires = _expires(self.path)
        pair = f"--certificate {self._certificate}, --certificate-key {self._key}"
        if not self.digest:
            raise UserError(f"{pair}: cannot be used ({fault}): give a matching pair")
        self._looked_at = now
        if fault and fault != self._reported:
            logger.error("%s: cannot be used (%s): the previous pair stays in use", pair, fault)
        self._reported = fault

    def refuse_expired(self) -> None:
        """Raise UserError where the pair in use has expired: clients would refuse it."""
        if self.expires is not None and self.expires <= time.time():
            raise UserError(f"--certificate {self._certificate}: has expired; renew it")

    def _stamp(self) -> object:
        try:
            both = [path.stat() for path in (self._certificate, self._key)]
        except OSError as error:
            return str(error)
        # The time of the last change of the inode: what may be read is a change, too.
        return [(it.st_ino, it.st_ctime_ns, it.st_mtime_ns, it.st_size) for it in both]

    def _take(self) -> str:
        """Copy the pair if it is good; else return what is wrong with it."""
        key, chain = self._key.read_bytes(), self._certificate.read_bytes()
        new = self.path.with_suffix(".new")
        write_private(self._state, new, chain if key == chain else key + b"\n" + chain)
        fault = _misfit(new) or self._refusal(TEST.format(folder=self.path.parent, pair=new))
        if not fault and self.digest and _expires(new) <= time.time():
            fault = "it has expired"
        if fault:
            new.unlink()
        else:
            new.replace(self.path)
        return fault


def _expires(pair: Path) -> float:
    """Unix time at which the first certificate of the file ends."""
    from cryptography import x509

    return x509.load_pem_x509_certificates(pair.read_bytes())[0].not_valid_after_utc.timestamp()


def _misfit(pair: Path) -> str:
    """Why the two do not fit; nginx takes those of two kinds, RSA and ECDSA, and answers nobody."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")  # how strong is strong enough nginx says
    try:
        context.load_cert_chain(pair, password=lambda: b"")  # asks nobody for a passphrase
    except (ssl.SSLError, ValueError) as error:
        return f"OpenSSL: {getattr(error, 'reason', None) or error}"
    return ""
