"""What an honest LSP answers, and how a test has it answer otherwise."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, timezone
from itertools import count
from typing import Any

from .offers import write
from .rpc import (
    BUY,
    GET_INFO,
    JSONRPC,
    LIST_WEBHOOKS,
    REMOVE_WEBHOOK,
    SET_WEBHOOK,
    Offer,
    Request,
    new_id,
    read_request,
)

METHODS = [GET_INFO, BUY]
# Of what wallets are asked to receive here, msat.
SIZE = 100_000_000
DELTA = 144
MAX_WEBHOOKS = 4

Answer = dict[str, Any]
# From the honest answer to what is sent instead: objects, or payloads as they are.
Change = Callable[[Answer], Sequence[Answer | bytes | None]]


def in_(seconds: float) -> str:
    """An instant from now on, as offers write it."""
    return write(datetime.now(timezone.utc) + timedelta(seconds=seconds))


def an_offer(**fields: Any) -> Offer:
    """An offer with which ``SIZE`` can be bought, but for these fields; ``...`` leaves one out."""
    offer = {
        "min_fee_msat": "2000000",
        "proportional": 4_000,
        "valid_until": in_(3_600),
        "min_lifetime": 2_016,
        "max_client_to_self_delay": 2_016,
        "min_payment_size_msat": "1000000",
        "max_payment_size_msat": "5000000000",
        "promise": new_id(),
        **fields,
    }
    return {name: each for name, each in offer.items() if each is not ...}


def failure(answer: Answer, code: Any, message: Any = "no", **more: Any) -> Answer:
    """An error in place of a result; ``data`` is sent if it is given."""
    error = {"code": code, "message": message, **more}
    return {"jsonrpc": JSONRPC, "id": answer["id"], "error": error}


def poisoned(answer: Answer) -> Answer:
    """An honest answer but for what is sold, which nobody may take where an honest one comes."""
    if "jit_channel_scid" in answer["result"]:
        return {**answer, "result": {**answer["result"], "jit_channel_scid": "666x6x6"}}
    menu = [an_offer(promise="poison", min_fee_msat="1")]
    return {**answer, "result": {"opening_fee_params_menu": menu}}


def dump(answer: Answer) -> bytes:
    """The payload of an answer."""
    return json.dumps(answer, ensure_ascii=False).encode()


class Shop:
    """The script of an honest ``FakeLsp``.

    Attributes:
        menu: What it offers.
        sold: What it tells a buyer, besides or instead of a scid of the sale's own.
        requests: What it was asked.
        sales: The payment of each sale by its scid, ``None`` for any.
        webhooks: The webhooks it keeps, by name.
    """

    def __init__(self, *menu: Offer) -> None:
        self.menu: list[Offer] = list(menu) or [an_offer()]
        self.sold: dict[str, Any] = {"lsp_cltv_expiry_delta": DELTA, "client_trusts_lsp": False}
        self.requests: list[Request] = []
        self.sales: dict[str, str | None] = {}
        self.webhooks: dict[str, str] = {}
        self._changes: dict[str, Change] = {}
        self._holds: dict[str, asyncio.Event] = {}
        self._numbers = count(1)

    def change(self, method: str, change: Change) -> None:
        """Answer a method otherwise from now on."""
        self._changes[method] = change

    def behave(self) -> None:
        """Answer honestly again."""
        self._changes.clear()

    def hold(self, method: str) -> asyncio.Event:
        """Answer a method only when this event is set."""
        return self._holds.setdefault(method, asyncio.Event())

    @property
    def methods(self) -> list[str]:
        """The methods it was asked, in order."""
        return [each.method for each in self.requests]

    @property
    def bought(self) -> list[Request]:
        """The requests to buy."""
        return [each for each in self.requests if each.method == BUY]

    async def __call__(self, payload: bytes) -> list[bytes | None]:
        """Answer a request."""
        request = read_request(payload)
        self.requests.append(request)
        answer = {"jsonrpc": JSONRPC, "id": request.id, "result": self._result(request)}
        changed = self._changes.get(request.method, lambda answer: [answer])(answer)
        if request.method in self._holds:
            await self._holds[request.method].wait()
        return [dump(each) if isinstance(each, dict) else each for each in changed]

    def _result(self, request: Request) -> dict[str, Any]:
        if request.method == GET_INFO:
            return {"opening_fee_params_menu": self.menu}
        if request.method in (SET_WEBHOOK, LIST_WEBHOOKS, REMOVE_WEBHOOK):
            return self._of_webhooks(request)
        assert request.method == BUY, f"asked for {request.method}"
        number = next(self._numbers)
        sold = {"jit_channel_scid": f"{1_000 + number}x{number}x0", **self.sold}
        sold = {name: each for name, each in sold.items() if each is not ...}
        self.sales[str(sold.get("jit_channel_scid"))] = request.params.get("payment_size_msat")
        return sold

    def _of_webhooks(self, request: Request) -> dict[str, Any]:
        name = request.params.get("app_name", "")
        if request.method == LIST_WEBHOOKS:
            return {"app_names": sorted(self.webhooks), "max_webhooks": MAX_WEBHOOKS}
        if request.method == REMOVE_WEBHOOK:
            self.webhooks.pop(name, None)
            return {}
        url = request.params["webhook"]
        no_change = self.webhooks.get(name) == url
        self.webhooks[name] = url
        return {
            "num_webhooks": len(self.webhooks),
            "max_webhooks": MAX_WEBHOOKS,
            "no_change": no_change,
        }
