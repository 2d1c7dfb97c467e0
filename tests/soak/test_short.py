"""Half a minute of the soak with one seed."""

from __future__ import annotations

from pathlib import Path

import pytest

from soak.soak import Soak

SECONDS = 30.0
SEED = 20_260


@pytest.mark.bitcoind
@pytest.mark.timeout(600)
async def test_S_63_S_78_kills_and_power_cuts_cost_nothing(node: Path) -> None:
    """Payer, LSP and wallets are killed, and every millisatoshi is found again."""
    report = await Soak(node, SECONDS, SEED, wallets=3, power=True).run()
    assert report.findings == []
    assert report.jit_paid > 0
    assert report.power_cuts > 0
    assert report.world


@pytest.mark.bitcoind
@pytest.mark.timeout(600)
async def test_a_disk_that_does_not_sync_is_found_out(node: Path) -> None:
    """The same, but nothing that LSP and payer write is synced: the soak must see what is lost."""
    soak = Soak(node, SECONDS, SEED, wallets=3, power=True, lies=True, patience=20.0)
    report = await soak.run()
    assert report.findings != []
