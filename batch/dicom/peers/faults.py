"""What a failed request or a failed TLS says of a whole PACS."""

from __future__ import annotations

import requests

from batch.dicom.peers.answers import NoAnswer
from sonode.certificate_fault import certificate_fault
from sonode.console import UserError


def web_fault(error: requests.RequestException, option: str) -> Exception:
    """What a failed request says of the whole service: UserError, or NoAnswer."""
    if isinstance(error, requests.TooManyRedirects):
        return UserError(f"{option}: the service sends to another address; give that one")
    if isinstance(error, requests.exceptions.SSLError):
        return UserError(f"{option}: {tls_fault(error)}")
    if not isinstance(error, requests.HTTPError) or error.response is None:
        return NoAnswer(type(error).__name__)
    status = error.response.status_code
    if status in (401, 403):
        return UserError(
            f"{option}: the PACS does not let sonode in (HTTP {status}); set SONODE_DICOM_TOKEN, "
            "or SONODE_DICOM_USER and SONODE_DICOM_PASSWORD"
        )
    if status in (400, 404, 405, 406, 501):
        return UserError(
            f"{option}: no DICOMweb service with what is needed is there (HTTP {status}); check "
            "the path of the URL, and whether it asks for a client certificate "
            "(SONODE_DICOM_CERT)"
        )
    return NoAnswer(f"HTTP {status}")


def tls_fault(error: Exception) -> str:
    """What is wrong with the TLS of a PACS."""
    text = str(error)
    if why := certificate_fault(text, "name the file of its authority in SONODE_DICOM_CA"):
        return f"the PACS cannot be trusted: {why}"
    if "CERTIFICATE_EXPIRED" in text:
        return (
            "the PACS refuses this client by TLS: the certificate of SONODE_DICOM_CERT is expired"
        )
    if "ALERT" in text or "CERTIFICATE_REQUIRED" in text:
        return "the PACS refuses this client by TLS; set SONODE_DICOM_CERT and SONODE_DICOM_KEY"
    return "no TLS is spoken there; check the port"
