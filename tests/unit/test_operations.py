"""The page for operators has every limit with its default, the ledger's every kind of row."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from ldkjit import (
    Bitcoind,
    FeeTier,
    Lending,
    Limits,
    Lsp,
    LspConfig,
    Msat,
    NodeConfig,
    Patience,
    PeerLimits,
    PolicyConfig,
    Pool,
    Quota,
    WebhookConfig,
    sat,
)

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/operations.md").read_text("utf-8")

WHOLE: dict[str, type[BaseModel]] = {
    "limits": Limits,
    "lending": Lending,
    "patience": Patience,
    "pool": Pool,
    "peer_limits": PeerLimits,
    "webhooks": WebhookConfig,
    "policy": PolicyConfig,
}
# Of these, what is a number; the rest says who and where, not how much.
NUMBERS: dict[str, type[BaseModel]] = {
    "": LspConfig,
    "Bitcoind": Bitcoind,
    "FeeTier": FeeTier,
    "Lsp": Lsp,
    "Quota": Quota,
}
# What there is none of by default, and what of a whole node is named on the page.
FIELDS: list[tuple[str, type[BaseModel], str]] = [
    ("quota", LspConfig, "quota"),
    ("token_quotas", LspConfig, "token_quotas"),
    ("accept_channels", NodeConfig, "accept_channels"),
    ("channel_confirmations", NodeConfig, "channel_confirmations"),
    ("forward_delay_ms", NodeConfig, "forward_delay_ms"),
]
# Hooks and files are given, not limited.
NO_LIMITS = {"webhooks.root_ca", "policy.menu", "policy.sell", "policy.channel", "policy.record"}
# What the page says that cannot be set, and where that is decided.
FIXED = [
    ("Messages of one peer that wait", "64", "node/src/lsps.rs", "MAX_WAITING: usize = 64;"),
    ("Tiers of one menu", "64", "core/src/menu.rs", "MAX_TIERS: usize = 64;"),
    ("Age of a fee estimate", "1 hour", "node/src/fees.rs", "stale_ms: 3_600_000,"),
    ("Fee rate", "250,000 sat per 1000 weight", "node/src/fees.rs", "ceiling: 250_000,"),
    ("Funding in no block", "144 blocks", "node/src/overdue.rs", "OVERDUE_BLOCKS: u32 = 144;"),
    (
        "Bought funding in no mempool",
        "3 blocks",
        "node/src/client/watch.rs",
        "OVERDUE: u32 = 3;",
    ),
    (
        "Locks of coins, looks at a funding transaction",
        "6 blocks",
        "node/src/wallet.rs",
        "LOCK_DEPTH: u32 = 6;",
    ),
    (
        "Unconfirmed transactions that hang together",
        "20",
        "node/src/wallet/coins.rs",
        "MAX_CLUSTER: usize = 20;",
    ),
    ("A held HTLC", "41 blocks", "node/src/lsp/observe.rs", "RELEASE_MARGIN: u32 = 41;"),
    (
        "Webhooks that one client sets",
        "30 an hour",
        "core/src/webhooks.rs",
        "CHANGES_PER_HOUR: u32 = 30;",
    ),
    (
        "A webhook that does not answer",
        "2 more attempts",
        "node/src/lsp/webhooks.rs",
        "RETRIES: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(15)];",
    ),
    (
        "Tokens that a menu hook has let in",
        "10,000",
        "node/src/lsp/grants.rs",
        "MAX_GIVEN: usize = 10_000;",
    ),
    ("Coins made by one split", "200", "core/src/pool.rs", "MOST_OUTPUTS: u64 = 200;"),
    (
        "An answer of bitcoind",
        "30 s",
        "node/src/chain/bitcoind.rs",
        "TIMEOUT: Duration = Duration::from_secs(30);",
    ),
    (
        "Transactions sent again",
        "every 10 minutes",
        "node/src/broadcast.rs",
        "LAST_DELAY: Duration = Duration::from_secs(600);",
    ),
    (
        "Transactions in no block",
        "1,008 blocks",
        "node/src/broadcast.rs",
        "FORGET_BLOCKS: u32 = 1_008;",
    ),
    (
        "Pause before an LSP or a kept peer is dialled again",
        "10 s",
        "node/src/net.rs",
        "LAST_RETRY: Duration = Duration::from_secs(10);",
    ),
    (
        "Log records that wait for Python",
        "10,000",
        "py/src/bridge.rs",
        "MAX_RECORDS: usize = 10_000;",
    ),
]


def _tables(page: str, first: str) -> Iterator[dict[str, str]]:
    """The rows of all tables whose first column is called so, by column."""
    columns: list[str] = []
    for line in page.splitlines():
        if not line.startswith("|"):
            columns = []
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not columns:
            columns = cells
        elif columns[0] == first and not line.startswith("|--"):
            yield dict(zip(columns, cells, strict=True))


def _written(value: Any) -> str:
    """A default as the page writes it: in the unit that the setting's name ends in."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, Msat):
        assert value == sat(value.sat)
        return f"{value.sat:,} sat"
    return f"{value:,}" if isinstance(value, int) else "none"


def _default(of: type[BaseModel], name: str) -> Any:
    return of.model_fields[name].get_default(call_default_factory=True)


def _settings() -> dict[str, str]:
    """Every limit, and its default."""
    told = {name: _default(of, field) for name, of, field in FIELDS}
    for group, of in WHOLE.items():
        told |= {f"{group}.{name}": _default(of, name) for name in of.model_fields}
    for group, of in NUMBERS.items():
        numbers = {name: _default(of, name) for name in of.model_fields}
        prefix = f"{group}." if group else ""
        told |= {
            prefix + name: value for name, value in numbers.items() if type(value) in (int, Msat)
        }
    return {name: _written(value) for name, value in told.items() if name not in NO_LIMITS}


def test_every_limit_is_on_the_page_with_its_default() -> None:
    rows = list(_tables(PAGE, "Setting"))
    named = {row["Setting"].strip("`"): row["Default"] for row in rows}
    assert len(named) == len(rows), "one row each"
    assert named == _settings()


def test_every_limit_has_a_reason() -> None:
    rows = [*_tables(PAGE, "Setting"), *_tables(PAGE, "What")]
    assert [row for row in rows if not row["Why"]] == []


def test_limits_of_the_main_network_are_those_that_hold_there() -> None:
    config = NodeConfig(
        data_dir=Path("x"),
        chain=Bitcoind("http://127.0.0.1:1", user="u", password="p"),
        mainnet=True,
        lsp=LspConfig(menu=[FeeTier(min_fee=sat(1), proportional_ppm=1)]),
    )
    assert config.lsp is not None
    there = {f"limits.{name}": _written(value) for name, value in config.lsp.limits}
    said = {row["Setting"].strip("`"): row.get("Main network") for row in _tables(PAGE, "Setting")}
    usual = _settings()
    for name, value in there.items():
        assert said[name] in (value, None), name
        assert said[name] or value == usual[name], f"{name} is another there"


@pytest.mark.parametrize(("what", "limit", "source", "text"), FIXED)
def test_what_cannot_be_set_is_as_the_sources_say(
    what: str, limit: str, source: str, text: str
) -> None:
    named = {row["What"]: row["Limit"] for row in _tables(PAGE, "What")}
    assert named.keys() == {row[0] for row in FIXED}
    assert named[what] == limit
    assert text in (ROOT / "rust" / source).read_text("utf-8")


def test_every_kind_of_row_is_on_the_page_of_the_ledger() -> None:
    source = (ROOT / "rust/core/src/ledger.rs").read_text("utf-8")
    attributes, rest = source.split("pub enum LedgerEntry {\n")
    assert '#[serde(tag = "kind", rename_all = "snake_case")]' in attributes.splitlines()
    body = rest.split("\n}\n")[0]
    assert "serde(rename" not in body
    variants = re.findall(r"^    ([A-Z]\w*) \{$", body, re.MULTILINE)
    kinds = [re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower() for name in variants]
    page = (ROOT / "docs/ledger.md").read_text("utf-8")
    named = [kind for row in _tables(page, "Kind") for kind in re.findall(r"`(\w+)`", row["Kind"])]
    assert sorted(named) == sorted(kinds)
