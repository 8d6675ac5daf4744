"""Credentials of a session of which nobody says when it ends: those in files, and those of a ``credential_process``
without ``Expiration``. When a server calls them expired, they are read again, as the user may have renewed them.

botocore renews only those that come with their end.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

from botocore.credentials import Credentials

from migrate.storage.s3.errors import CREDENTIAL_ERRORS

_log = logging.getLogger(__name__)
_making = threading.Lock()
_LEAST_SECONDS = 1.0
"""Many requests fail at once: they are read again once for all of them."""
_EXPIRED = {"ExpiredToken", "TokenRefreshRequired", "InvalidToken", "InvalidTokenId", "InvalidAccessKeyId"}
"""MinIO's word for a session that has ended is that its key does not exist."""
REFUSALS = {400, 401, 403}
"""Statuses of answers to requests whose credentials have ended."""
_GIVEN = "explicit"
"""Botocore's word for what ``set_credentials`` gave: there is nowhere to read it again."""


class RenewableCredentials(Credentials):  # type: ignore[misc]  # botocore has no types
    """Botocore's credentials of a session, which all requests of it read."""

    def __init__(self, boto_session: Any, first: Credentials) -> None:
        super().__init__(first.access_key, first.secret_key, first.token, first.method, first.account_id)
        self._load = boto_session.get_component("credential_provider").load_credentials
        self._lock, self._read_at = threading.Lock(), float("-inf")
        self._frozen = first.get_frozen_credentials()

    def get_frozen_credentials(self) -> Any:
        """Return keys and token that belong together."""
        return self._frozen

    def read_again(self) -> None:
        """Read them again where they come from. Where that fails, they stay as they were."""
        with self._lock:
            if time.monotonic() - self._read_at < _LEAST_SECONDS:
                return
            self._read_at = time.monotonic()
            try:
                self._take(self._load())
            except CREDENTIAL_ERRORS as exc:
                _log.info("the credentials have ended, and cannot be read again: %s", exc)

    def _take(self, fresh: Any) -> None:
        frozen = fresh.get_frozen_credentials() if fresh is not None else None
        if frozen is None:
            return
        if frozen != self._frozen:
            _log.info("the credentials have ended; the new ones are taken")
        self._frozen = frozen
        self.access_key, self.secret_key, self.token = frozen.access_key, frozen.secret_key, frozen.token


def make_renewable(boto_session: Any) -> None:
    """Let credentials of a session be read again, where they were given apart from it and have a token."""
    with _making:  # all clients of a session read the same ones
        credentials = boto_session.get_credentials()
        if type(credentials) is Credentials and credentials.token and credentials.method != _GIVEN:
            boto_session._credentials = RenewableCredentials(boto_session, credentials)  # noqa: SLF001  no other way in


def renewed(credentials: Any, code: str, *, is_head: bool) -> bool:
    """Tell whether to send a request once more: its answer, one of ``REFUSALS``, may mean that credentials have ended,
    and they were read again. An answer to HEAD does not say why it is one.
    """
    if not (is_head or code in _EXPIRED) or not isinstance(credentials, RenewableCredentials):
        return False
    credentials.read_again()
    return True
