"""What the blocking node's methods give back, as the type checker sees it."""

from __future__ import annotations

from typing_extensions import assert_type

from ldkjit import Event, History, Payment, Status, sat, sync


def of_node(node: sync.Node) -> None:
    """One method of each kind."""
    with node as same:
        assert_type(same, sync.Node)
    assert_type(node.start(), Status)
    invoice = node.receive(sat(1), jit="always")
    assert_type(invoice, sync.Invoice)
    assert_type(invoice.settled(timeout=1), Payment)
    assert_type(node.peers()[0].node_id, str)
    assert_type(node.history, History)
    for event in node.events():
        assert_type(event, Event)
    node.receive(sat(1), jit="sometimes")  # pyright: ignore[reportArgumentType]
