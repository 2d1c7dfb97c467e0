"""ldkjit as its users have it, in a Python process; speaks the lines of tests/soak/process.py.

With the argument ``def`` or ``async``: with a hook in Python for every question, which answers as
the rules would.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from typing import Any

from ldkjit import Accept, ChannelTerms, LdkJitError
from ldkjit._bridge import Bridge
from ldkjit._hooks import HookRunner
from ldkjit._ldkjit import Native

# Hooks that agree to everything.
ANSWERS: dict[str, Callable[[Any], Any]] = {
    "menu": lambda ask: list(ask.menu),
    "sell": lambda _: Accept(),
    "channel": lambda _: ChannelTerms(),
}


def later(hook: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The same hook as a coroutine."""

    async def asked(question: Any) -> Any:
        return hook(question)

    return asked


def say(line: dict[str, Any]) -> None:
    """One line of JSON."""
    print(json.dumps(line), flush=True)


async def answer(bridge: Bridge, request: dict[str, Any]) -> None:
    """Call what a line asks for; say what comes of it."""
    try:
        told = await bridge.call(request["method"], **request["params"])
        say({"id": request["id"], "result": told})
    except LdkJitError as error:
        say({"id": request["id"], "error": {"code": error.code, "message": error.message}})


async def consume(bridge: Bridge) -> None:
    """Take every event and acknowledge it, as an application does (and the ldk-node beside)."""
    while True:
        told = await bridge.call("next_event", consumer="default")
        await bridge.call("ack_event", consumer="default", seq=told["seq"])


async def main() -> None:
    """Start with the configuration of the first line; stop at the end of the input."""
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader(limit=2**24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    config = json.loads(await lines.readline())["config"]
    runner = None
    if sys.argv[1:]:
        hooks = ANSWERS
        if sys.argv[1] == "async":
            hooks = {name: later(hook) for name, hook in ANSWERS.items()}
        runner = HookRunner(hooks, loop)
        config["lsp"]["policy"] = {"hooks": runner.places()}
    bridge = Bridge(Native, runner)
    try:
        told = await bridge.call("start", **config)
    except LdkJitError as error:
        say({"failed": {"code": error.code, "message": error.message}})
        return
    say({"started": told})
    tasks = {asyncio.create_task(consume(bridge))}
    async for line in lines:
        task = asyncio.create_task(answer(bridge, json.loads(line)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await bridge.call("stop")
    bridge.close()


if __name__ == "__main__":
    asyncio.run(main())
