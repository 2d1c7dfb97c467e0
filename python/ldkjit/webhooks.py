"""For the server behind a webhook (LSPS5): whether a notification is the LSP's. Needs no node."""

from __future__ import annotations

import time
from datetime import datetime, timezone

from .errors import ConfigError, from_native
from .models import WebhookNotification

TIMESTAMP_HEADER = "x-lsps5-timestamp"
SIGNATURE_HEADER = "x-lsps5-signature"


class SeenWebhooks:
    """Notifications seen of late, so that none is believed twice; one for a whole server.

    It lives in this process. Servers of several processes each know only what came to them; let
    them share the signed text (timestamp and body) and the recipient in a store of their own.
    """

    def __init__(self) -> None:
        from ._ldkjit import Seen

        self._native = Seen()


def verify_webhook(
    body: bytes,
    timestamp: str,
    signature: str,
    lsp_node_id: str,
    *,
    recipient: str = "",
    seen: SeenWebhooks | None = None,
    window: float = 600.0,
    now: datetime | None = None,
) -> WebhookNotification:
    """Read a notification that came to a webhook, if the LSP has signed it just now (W-25).

    Which LSP may call, and whom for, is for the URL to say: check its token first. What is not a
    POST over https is none either.

    Args:
        body: The body of the request, exactly as it came.
        timestamp: The header ``x-lsps5-timestamp``, exactly as it came.
        signature: The header ``x-lsps5-signature``.
        lsp_node_id: The node id of the LSP that may call this URL, 66 hex digits.
        recipient: Whom this URL is for, e.g. its token. Notifications name nobody: without it a
            server of several devices would take two that are signed alike for one seen twice.
        seen: Where to remember it; None lets a notification be repeated within the window.
        window: How old, or how far ahead, the timestamp may be, 0 to 86,400 seconds.
        now: What time it is; None asks this machine.

    Returns:
        What the LSP says. Ignore a method, or a parameter, that you do not know.

    Raises:
        WebhookError: It is not to be believed; its ``why`` says which part.
        ConfigError: The node id or the window is none.
    """
    from ._ldkjit import verify_webhook as verify

    if not 0 <= window <= 86_400:
        raise ConfigError(f"window: accepts 0 to 86,400 seconds, not {window!r}")
    if now is not None and now.tzinfo is None:
        raise ConfigError("now: accepts a datetime with a time zone")
    at = time.time() if now is None else now.astimezone(timezone.utc).timestamp()
    told, text = verify(
        bytes(body),
        timestamp,
        signature,
        lsp_node_id,
        recipient,
        round(window * 1_000),
        max(0, round(at * 1_000)),
        None if seen is None else seen._native,  # pyright: ignore[reportPrivateUsage]
    )
    if not told:
        raise from_native(text)
    return WebhookNotification.model_validate_json(text)
