"""A web server that webhooks point to: TLS with a certificate of its own, requests taken down."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import json
import ssl
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
_HOST = "127.0.0.1"
_WAIT_S = 15.0
_READ_S = 10.0


class Call(NamedTuple):
    """A request as it came; headers by their lower-case names."""

    line: str
    headers: dict[str, str]
    body: bytes

    @property
    def path(self) -> str:
        """Path and query."""
        return self.line.split(" ")[1]

    @property
    def told(self) -> Any:
        """The body, read."""
        return json.loads(self.body)

    @property
    def method(self) -> str:
        """What the notification is about."""
        return str(self.told["method"])


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for localhost, which is its own authority, and its key, as PEM files."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address(_HOST))]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem, secret = folder / "web.pem", folder / "web.key"
    pem.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return pem, secret


class Web:
    """``async with Web(folder) as web:``; answers 200, or what ``answers`` says of a path.

    Attributes:
        ca: The certificate to trust.
        calls: Every request so far.
        connections: How many TCP connections there were, TLS or not.
        answers: What a path is answered with, ``None`` for nothing.
    """

    def __init__(self, folder: Path) -> None:
        self.ca, self._key = certificate(folder)
        self.calls: list[Call] = []
        self.answers: dict[str, bytes | None] = {}
        self._server: asyncio.Server | None = None
        self._news = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Web:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.ca, self._key)
        self._server = await asyncio.start_server(self._accept, _HOST, 0, ssl=context)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def url(self, path: str) -> str:
        """A webhook here."""
        assert self._server is not None
        return f"https://localhost:{self._server.sockets[0].getsockname()[1]}{path}"

    def of(self, path: str) -> list[Call]:
        """Every request to a path so far."""
        return [call for call in self.calls if call.path == path]

    async def call(self, path: str, count: int = 1) -> Call:
        """The n-th request to a path, waited for."""

        async def come() -> Call:
            async with self._news:
                await self._news.wait_for(lambda: len(self.of(path)) >= count)
            return self.of(path)[count - 1]

        return await asyncio.wait_for(come(), _WAIT_S)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            call = await asyncio.wait_for(_read(reader), _READ_S)
            async with self._news:
                self.calls.append(call)
                self._news.notify_all()
            answer = self.answers.get(call.path, OK)
            if answer is None:
                await asyncio.sleep(3_600)
            else:
                writer.write(answer)
                await writer.drain()
        except (OSError, EOFError, asyncio.TimeoutError, ValueError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def _read(reader: asyncio.StreamReader) -> Call:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("ascii")
    line, *rest = head.rstrip().split("\r\n")
    fields = [header.split(":", 1) for header in rest]
    headers = {name.strip().lower(): value.strip() for name, value in fields}
    body = await reader.readexactly(int(headers["content-length"]))
    return Call(line, headers, body)
