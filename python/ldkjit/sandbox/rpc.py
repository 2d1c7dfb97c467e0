"""A small asyncio client for bitcoind's JSON-RPC, with the helpers a regtest needs.

Standard library only: tests and the sandbox use it before and beside the extension.
"""

from __future__ import annotations

import asyncio
import base64
import json
from decimal import Decimal
from typing import Any

SAT_PER_BTC = 100_000_000


class RpcError(Exception):
    """bitcoind refused a call.

    Attributes:
        code: bitcoind's RPC error code, e.g. -28 while it warms up; an HTTP status when it sent
            no JSON (401: wrong user or password).
        method: The method called.
    """

    def __init__(self, method: str, code: int, message: str) -> None:
        super().__init__(f"{method}: {message} ({code})")
        self.method = method
        self.code = code


class Rpc:
    """One bitcoind's JSON-RPC on loopback. Each call is its own connection.

    Args:
        port: The RPC port on 127.0.0.1.
        user: The RPC user.
        password: The RPC password.
    """

    def __init__(self, port: int, user: str, password: str) -> None:
        self.port = port
        self.user = user
        self.password = password

    @property
    def url(self) -> str:
        """The address without credentials."""
        return f"http://127.0.0.1:{self.port}"

    async def call(
        self, method: str, *params: Any, wallet: str | None = None, timeout_s: float = 60.0
    ) -> Any:
        """Call a method and return its result; amounts come back as ``Decimal``.

        Raises:
            RpcError: bitcoind answered with an error.
            OSError: There was no connection, or it broke.
            TimeoutError: No answer came within ``timeout_s`` seconds.
        """
        request = json.dumps({"jsonrpc": "1.0", "id": 0, "method": method, "params": params})
        try:
            status, body = await asyncio.wait_for(self._post(request, wallet), timeout_s)
        except asyncio.TimeoutError:  # not the built-in TimeoutError before Python 3.11
            raise TimeoutError(f"{method}: no answer from bitcoind in {timeout_s} s") from None
        try:
            answer = json.loads(body, parse_float=Decimal)
        except ValueError:
            raise RpcError(method, status, f"HTTP status {status}") from None
        if error := answer["error"]:
            raise RpcError(method, error["code"], error["message"])
        return answer["result"]

    async def _post(self, request: str, wallet: str | None) -> tuple[int, bytes]:
        path = "/" if wallet is None else f"/wallet/{wallet}"
        credentials = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        body = request.encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(
                f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
                f"Authorization: Basic {credentials}\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\n\r\n".encode()
                + body
            )
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            status = int(head.split(" ", 2)[1])
            return status, await reader.read()  # bitcoind closes after the one answer
        except asyncio.IncompleteReadError as error:
            raise ConnectionError("bitcoind closed the connection without an answer") from error
        finally:
            writer.close()

    async def height(self) -> int:
        """The height of the best block."""
        return int(await self.call("getblockcount"))

    async def mine(self, blocks: int, address: str) -> list[str]:
        """Mine blocks that pay to an address; return their hashes."""
        return list(await self.call("generatetoaddress", blocks, address))

    async def fund(self, address: str, amount_sat: int) -> str:
        """Send ``amount_sat`` from bitcoind's own wallet; return the txid. Mine to confirm it."""
        amount = Decimal(amount_sat) / SAT_PER_BTC
        return str(await self.call("sendtoaddress", address, f"{amount:.8f}"))

    async def mempool(self) -> list[str]:
        """The txids waiting in the mempool."""
        return list(await self.call("getrawmempool"))

    async def txout(self, txid: str, vout: int, *, mempool: bool = True) -> dict[str, Any] | None:
        """An unspent output (``value`` in BTC, ``confirmations``), or None if there is none."""
        return await self.call("gettxout", txid, vout, mempool)
