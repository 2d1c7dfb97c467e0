"""Every error ldkjit raises: one class per code, with its fields, below ``LdkJitError``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal, cast, get_args

ErrorCode = Literal[
    "address",
    "amount",
    "chain",
    "config",
    "fork",
    "inbound_capacity",
    "insufficient_funds",
    "internal",
    "invoice",
    "lsp",
    "lsp_fee",
    "lsp_refused",
    "lsp_trust",
    "lsp_unreachable",
    "no_lsp",
    "not_found",
    "parse",
    "payment",
    "peer",
    "recovering",
    "recovery_needed",
    "stopped",
    "store",
    "store_copy",
    "store_corrupt",
    "store_fenced",
    "store_locked",
    "store_network",
    "store_other_node",
    "store_stale",
    "store_version",
    "timeout",
    "webhook",
    "wrong_loop",
]
"""Every code of this release, for ``match``."""


class LdkJitError(Exception):
    """The root of all errors of this package.

    Args:
        message: For people. May be shown, should not be parsed.
        retryable: Whether the same call may succeed later without anything being changed.
        details: The fields of the error.

    Attributes:
        code: Stable and machine-readable, e.g. ``"insufficient_funds"``.
        message: As given.
        retryable: As given.
        details: As given, never None.
    """

    code: str = "internal"

    def __init__(
        self,
        message: str,
        *,
        retryable: bool = False,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.retryable = retryable
        self.details: dict[str, Any] = dict(details or {})

    @property
    def known_code(self) -> ErrorCode | None:
        """The code, for a ``match`` that names every one; None if a later native module made it."""
        return cast("ErrorCode", self.code) if self.code in get_args(ErrorCode) else None

    def __reduce__(self) -> tuple[Any, ...]:
        # The default would drop what is given by keyword.
        return _rebuild, (type(self), self.code, self.message, self.retryable, self.details)


class ConfigError(LdkJitError, ValueError):
    """The configuration cannot be used; the message names each field and what it accepts."""

    code = "config"


class AmountError(LdkJitError, ValueError):
    """Not an amount, or one out of range."""

    code = "amount"


class AddressError(LdkJitError):
    """A Bitcoin address is malformed or of another network."""

    code = "address"


class InvoiceError(LdkJitError):
    """An invoice cannot be used."""

    code = "invoice"

    @property
    def why(self) -> str | None:
        """``expired``, ``already_paid``, ``wrong_network``, ``malformed`` or ``own``."""
        return self.details.get("why")


class ParseError(LdkJitError, ValueError):
    """A text is nothing that can be paid."""

    code = "parse"

    @property
    def why(self) -> str | None:
        """What is wrong with it.

        ``empty``, ``too_long``, ``unknown``, ``malformed``, ``unsupported`` (BOLT 12, simnet),
        ``required`` (a link asks for what is not known) or ``wrong_network`` (of its parts).
        """
        return self.details.get("why")


class _ShortageError(LdkJitError):
    """Less is there than is needed."""

    @property
    def needed_msat(self) -> int:
        """What is needed, msat."""
        return int(self.details.get("needed_msat", 0))

    @property
    def available_msat(self) -> int:
        """What is there, msat."""
        return int(self.details.get("available_msat", 0))


class InsufficientFundsError(_ShortageError):
    """There are too few coins or too little balance."""

    code = "insufficient_funds"


class InboundCapacityError(_ShortageError):
    """The channels cannot receive this much, and no channel may be bought."""

    code = "inbound_capacity"


class ChainError(LdkJitError):
    """The chain source (bitcoind) failed or cannot be believed."""

    code = "chain"

    @property
    def why(self) -> str | None:
        """``unreachable``, ``auth``, ``wrong_network``, ``lying``, ``behind``, ``pruned``."""
        return self.details.get("why")


class StoreError(LdkJitError):
    """The store failed. The node stops: it never goes on unsaved."""

    code = "store"


class StoreLockedError(StoreError):
    """Another process has the store open."""

    code = "store_locked"

    @property
    def pid(self) -> int | None:
        """The process that holds it, if known."""
        return self.details.get("pid")


class StoreCopyError(StoreError):
    """Another copy of this node runs: two of one node lose each other's money."""

    code = "store_copy"

    @property
    def pid(self) -> int | None:
        """Its process, if it runs on this machine and is known."""
        return self.details.get("pid")

    @property
    def address(self) -> str | None:
        """Where it answers, if it was found there."""
        return self.details.get("address")


class StoreStaleError(StoreError):
    """A peer has proven that its channel went on without this store.

    The node has stopped and published nothing; from now on it starts only with
    ``NodeConfig.recover``.
    """

    code = "store_stale"

    @property
    def peer(self) -> str | None:
        """The peer's node id."""
        return self.details.get("peer")


class RecoveryNeededError(StoreError):
    """The store was restored or is old: it starts only with ``NodeConfig.recover``."""

    code = "recovery_needed"


class RecoveringError(LdkJitError):
    """This node only recovers what it held; it does no new business."""

    code = "recovering"


class StoreCorruptError(StoreError):
    """What is stored cannot be read as what it should be."""

    code = "store_corrupt"


class StoreVersionError(StoreError):
    """The store was written by a later release."""

    code = "store_version"


class StoreNetworkError(StoreError):
    """The store belongs to another network."""

    code = "store_network"


class StoreOtherNodeError(StoreError):
    """The store belongs to another node: it has other words."""

    code = "store_other_node"


class StoreFencedError(StoreError):
    """Another process took the store over: this node has stopped and wrote no more."""

    code = "store_fenced"


class PeerError(LdkJitError):
    """A peer could not be reached or broke the connection."""

    code = "peer"


class LspError(LdkJitError):
    """A channel could not be bought."""

    code = "lsp"


class LspUnreachableError(LspError):
    """The LSP could not be reached."""

    code = "lsp_unreachable"


class LspRefusedError(LspError):
    """The LSP answered with an error of its own."""

    code = "lsp_refused"

    @property
    def lsp_code(self) -> int | None:
        """The error code of the LSPS specification."""
        return self.details.get("lsp_code")

    @property
    def lsp_message(self) -> str:
        """The LSP's words. They come from a stranger: escape them before showing them."""
        return str(self.details.get("lsp_message", ""))


class OpeningFeeError(LspError):
    """The LSP asks for more than the caller allows."""

    code = "lsp_fee"

    @property
    def quoted_msat(self) -> int:
        """What the LSP asks for, msat."""
        return int(self.details.get("quoted_msat", 0))

    @property
    def max_msat(self) -> int:
        """What the caller allows, msat."""
        return int(self.details.get("max_msat", 0))


class LspTrustError(LspError):
    """The LSP asks for trust its configuration does not grant."""

    code = "lsp_trust"


class NoLspError(LspError):
    """No LSP is configured that could serve this."""

    code = "no_lsp"


class PaymentError(LdkJitError):
    """A payment could not be sent or has failed for good."""

    code = "payment"


class WebhookError(LdkJitError):
    """What came to a webhook is not to be believed."""

    code = "webhook"

    @property
    def why(self) -> str | None:
        """``body``, ``timestamp``, ``signature``, ``stale`` or ``replay``."""
        return self.details.get("why")


class TimeoutError_(LdkJitError, TimeoutError):  # noqa: N801, N818 (it is a TimeoutError too)
    """The time the caller allowed is over; what was waited for may still happen."""

    code = "timeout"


class NotFoundError(LdkJitError, LookupError):
    """There is no such payment, channel or peer."""

    code = "not_found"


class NodeStoppedError(LdkJitError):
    """The node is stopped, or was never started."""

    code = "stopped"


class ForkError(LdkJitError):
    """The process was forked: the node belongs to the parent."""

    code = "fork"


class WrongLoopError(LdkJitError):
    """The node was started in another event loop, or a policy's coroutine calls one that blocks."""

    code = "wrong_loop"


class InternalError(LdkJitError):
    """A defect of ldkjit. Please report it."""

    code = "internal"


def _tree(root: type[LdkJitError]) -> dict[str, type[LdkJitError]]:
    found = {each.code: each for each in root.__subclasses__() if not each.__name__.startswith("_")}
    for each in root.__subclasses__():
        found.update(_tree(each))
    return found


_BY_CODE = _tree(LdkJitError)


def _rebuild(
    kind: type[LdkJitError], code: str, message: str, retryable: bool, details: dict[str, Any]
) -> LdkJitError:
    error = kind(message, retryable=retryable, details=details)
    error.code = code
    return error


def from_native(text: str) -> LdkJitError:
    """Make the error that the native module describes in JSON.

    An unknown code (a later native module) becomes a plain ``LdkJitError`` that keeps it.
    """
    told = json.loads(text)
    return _rebuild(
        _BY_CODE.get(told["code"], LdkJitError),
        told["code"],
        told["message"],
        bool(told.get("retryable", False)),
        told.get("details") or {},
    )
