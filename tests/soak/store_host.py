"""Serves a PostgresStore to a soak-node, by JSON lines: ``store_host.py CONNINFO SCHEMA``.

It ends with its input: when the node is killed, after the commit that was under way.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from ldkjit import LdkJitError
from ldkjit.storage import Change, Delete, PostgresStore, Put, Row


def _change(change: list[Any]) -> Change:
    what, *fields = change
    if what == "delete":
        return Delete(*fields)
    fields[-1] = bytes.fromhex(fields[-1])
    return Put(*fields) if what == "put" else Row(*fields)


def _answer(store: PostgresStore, what: str, arguments: list[Any]) -> Any:
    if what == "load":
        loaded = store.load(archived=arguments[0])
        live = [[each.kind, each.key, each.value.hex()] for each in loaded.live]
        return {"seq": loaded.seq, "live": live, "last_row": loaded.last_row}
    if what == "commit":
        return store.commit(arguments[0], [_change(each) for each in arguments[1]])
    if what == "read":
        found = store.read(*arguments)
        return None if found is None else found.hex()
    if what == "rows":
        return [[each.seq, each.key, each.value.hex()] for each in store.rows(*arguments)]
    return store.close()


def main() -> None:
    """Answer until the input ends."""
    store = PostgresStore(sys.argv[1], schema=sys.argv[2])
    for line in sys.stdin:
        what, *arguments = json.loads(line)
        try:
            told = {"ok": _answer(store, what, arguments)}
        except LdkJitError as error:
            told = {"error": error.message, "code": error.code}
        print(json.dumps(told), flush=True)
    store.close()


if __name__ == "__main__":
    main()
