"""A native module of Python, for tests of what lies above it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

Answer = Callable[[str, dict[str, Any]], Any]


class FakeNative:
    """Answers with what ``answer(method, params)`` returns, or never if that is ``...``."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.read, self.write = os.pipe()
        self.queue: list[tuple[int, int, str]] = []
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.cancelled: list[int] = []
        self.closed = 0

    def fileno(self) -> int:
        return self.read

    def call(self, id: int, method: str, params: str, /) -> None:
        decoded = json.loads(params)
        self.calls.append((method, decoded))
        told = self.answer(method, decoded)
        if told is ...:
            return
        if isinstance(told, Exception):
            self.push(1, id, told.args[0])
        else:
            self.push(0, id, told)

    def push(self, kind: int, id: int, value: Any) -> None:
        self.queue.append((kind, id, json.dumps(value)))
        os.write(self.write, b"x")

    def cancel(self, id: int, /) -> None:
        self.cancelled.append(id)

    def drain(self) -> list[tuple[int, int, str]]:
        taken, self.queue = self.queue, []
        if taken and not self.closed:
            os.read(self.read, 4096)
        return taken

    def question_fileno(self) -> int:
        raise NotImplementedError

    def question(self) -> tuple[int, str] | None:
        return None

    def answer(self, id: int, body: str, /) -> None:
        self.answered.append((id, json.loads(body)))

    def close(self) -> None:
        if not self.closed:
            os.close(self.read)
            os.close(self.write)
        self.closed += 1
