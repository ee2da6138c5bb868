"""A push waits for a PACS that restarts; its tests do not."""

import pytest

from batch.dicom.pushing import sending


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a question again at once, as often as a push does."""
    monkeypatch.setattr(sending, "WAITS_S", (0.0,) * len(sending.WAITS_S))
