"""A PACS over DICOMweb: asked by QIDO-RS, taken from by WADO-RS (PS3.18)."""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Iterator
from typing import Any

import pydicom
import requests
from dicomweb_client.api import DICOMwebClient

from batch.dicom.origins.origin import Named, Objects
from batch.dicom.origins.spans import Found, Span
from batch.dicom.peers.address import Web
from batch.dicom.peers.answers import TIMEOUT_S, Instance, NoAnswer, Refused
from batch.dicom.peers.faults import web_fault
from batch.dicom.peers.identity import Identity

_PAGE = 500  # answers that are asked for at once
_STUDY, _SERIES, _INSTANCE = "0020000D", "0020000E", "00080018"
_OBJECTS = "00201208"  # NumberOfStudyRelatedInstances
_STUDY_DATE, _STUDY_TIME = "00080020", "00080030"
_MODALITY, _SOP_CLASS = "00080060", "00080016"


class Service:
    """A DICOMweb service as an `Origin`."""

    def __init__(self, web: Web, identity: Identity, option: str) -> None:
        """Take the service that an option gave, and whom sonode is there."""
        self._session, self._option = identity.session(), option
        self._more = False
        self._client = DICOMwebClient(
            web.url, session=self._session, timeout=TIMEOUT_S, callback=self._note
        )
        self._client.set_http_retry_params(retry=False)  # it would wait by itself, 30 s each time

    def studies(self, span: Span, modality: str) -> Found:
        """As `Origin` says; a study is told to consist of a number of objects."""
        filters = {"StudyDate": span.dates, "ModalitiesInStudy": modality}
        if span.times:
            filters["StudyTime"] = span.times
        found = self._all(
            self._client.search_for_studies, _STUDY, search_filters=filters, fields=[_OBJECTS]
        )
        return {
            uid: _number(it, _OBJECTS)
            for uid, it in found.items()
            if span.has(_value(it, _STUDY_DATE), _value(it, _STUDY_TIME))
        }

    def objects(self, study: str, modalities: Collection[str], told: int | None) -> Objects:
        """As `Origin` says."""
        asked = {"study_instance_uid": study, "fields": [_MODALITY, _SERIES, _SOP_CLASS]}
        search = self._client.search_for_instances
        found = self._all(search, _INSTANCE, **asked)
        if len(found) < (told or 0):  # it may have a limit
            of_study = self._client.search_for_series
            for series in self._all(of_study, _SERIES, study_instance_uid=study):
                found |= self._all(search, _INSTANCE, series_instance_uid=series, **asked)
        named = [
            Named(
                Instance(study, _value(it, _SERIES) or "", uid),
                _value(it, _MODALITY),
                _value(it, _SOP_CLASS),
            )
            for uid, it in found.items()
        ]
        wanted = [it for it in named if it.modality is None or it.modality in modalities]
        return Objects(wanted, max(0, (told or 0) - len(found)))

    def fetch(self, named: Named) -> bytes:
        """As `Origin` says."""
        try:  # in the transfer syntax that it is stored in, as the client asks by itself
            file = self._client.retrieve_instance(*named.it)
            buffer = io.BytesIO()
            pydicom.dcmwrite(buffer, file)
            return buffer.getvalue()
        except requests.HTTPError as error:
            status = error.response.status_code if error.response is not None else 0
            if status != 401 and 400 <= status < 500:
                raise Refused(f"HTTP {status}") from None
            raise web_fault(error, self._option) from None
        except requests.RequestException as error:
            raise web_fault(error, self._option) from None
        except Exception:  # of many types, from the client and pydicom
            raise Refused("what the PACS sent is not a whole DICOM file") from None

    def close(self) -> None:
        """As `Origin` says."""
        self._session.close()

    def _note(self, response: requests.Response, *_: Any, **__: Any) -> requests.Response:
        self._more = response.headers.get("Warning", "").startswith("299")  # PS3.18, 8.3.4.4
        return response

    def _all(self, search: Callable[..., Any], key: str, **asked: Any) -> dict[str, Any]:
        """All answers by their UID, page by page until nothing new comes."""
        found: dict[str, Any] = {}
        while True:
            page = dict(self._page(search, key, offset=len(found), limit=_PAGE, **asked))
            if not set(page) - set(found):
                break
            found.update(page)
        if page and self._more:
            raise NoAnswer("it names a part of what it has, again and again")
        return found

    def _page(self, search: Callable[..., Any], key: str, **asked: Any) -> Iterator[Any]:
        try:
            for it in search(**asked) or ():
                uid = _value(it, key)
                if uid is None:
                    raise NoAnswer("it names an object without its UID")
                yield uid, it
        except requests.RequestException as error:
            raise web_fault(error, self._option) from None
        except (ValueError, TypeError, AttributeError, KeyError):
            raise NoAnswer("its answer is not DICOM JSON") from None


def _value(it: Any, tag: str) -> str | None:
    values = it.get(tag, {}).get("Value") or [None]
    return None if values[0] is None else str(values[0])


def _number(it: Any, tag: str) -> int | None:
    """A number that a service may tell, and may tell wrongly."""
    text = _value(it, tag) or ""
    return int(text) if text.isascii() and text.isdigit() else None
