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
        self.script = answer
        self.read, self.write = os.pipe()
        self.queue: list[tuple[int, int, str]] = []
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.cancelled: list[int] = []
        self.questions: list[tuple[int, str]] = []
        self.question_read, self.question_write = os.pipe()
        self.answered: list[tuple[int, Any]] = []
        self.closed = 0

    def fileno(self) -> int:
        return self.read

    def call(self, id: int, method: str, params: str, /) -> None:
        decoded = json.loads(params)
        self.calls.append((method, decoded))
        told = self.script(method, decoded)
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
        return self.question_read

    def question(self) -> tuple[int, str] | None:
        return self.questions.pop(0) if self.questions else None

    def put(self, id: int, hook: str, ask: Any, *, thread: bool) -> None:
        """Ask a hook."""
        question = {"hook": hook, "deadline_ms": 1_000, "ask": ask}
        if thread:
            self.questions.append((id, json.dumps(question)))
            os.write(self.question_write, b"x")
        else:
            self.push(3, id, question)

    def answer(self, id: int, body: str, /) -> None:
        self.answered.append((id, json.loads(body)))

    def close(self) -> None:
        if not self.closed:
            os.close(self.read)
            os.close(self.write)
            os.close(self.question_write)
        self.closed += 1
