"""What is wrong with the certificate of a server, from the text of a failed TLS handshake."""

from __future__ import annotations

_WHY = {  # OpenSSL's words (X509_verify_cert_error_string)
    "certificate has expired": "its certificate has expired; it must be renewed there",
    "not yet valid": "its certificate is not valid yet; check the clocks of both machines",
    "mismatch": "its certificate is of another host; use the name that it is for",
}


def certificate_fault(text: str, not_trusted: str) -> str | None:
    """What is wrong and the remedy; None where the certificate is not the fault.

    `not_trusted` is the remedy where nobody trusts who issued it.
    """
    if "CERTIFICATE_VERIFY_FAILED" not in text:
        return None
    found = (why for words, why in _WHY.items() if words in text)
    return next(found, f"its certificate is not trusted; {not_trusted}")
