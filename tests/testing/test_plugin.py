"""The pytest plugin as an application meets it: a pytest of its own, nothing of ours around it."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from ldkjit import sat
from ldkjit.sandbox import BitcoindNotFoundError, BoxedRegtest, make_chain, until
from ldkjit.testing import Scenario

AN_APPS_TESTS = """
    import asyncio

    import pytest

    from ldkjit import Msat, sat

    pytestmark = pytest.mark.asyncio


    async def test_a_first_payment(scenario, lsp, wallet):
        got = await scenario.first_payment(wallet, sat(50_000))
        assert got.status == "succeeded"
        assert got.amount == sat(50_000) - got.opening_fee
        assert (await lsp.channels())


    async def test_payer_and_wallet(scenario, payer, wallet):
        invoice = await wallet.receive(sat(20_000))
        paid = await scenario.pay(invoice)
        assert paid.status == "succeeded"


    async def test_many_wallets(scenario):
        wallets = await asyncio.gather(*(scenario.wallet() for _ in range(3)))
        paid = [await scenario.first_payment(each, sat(30_000)) for each in wallets]
        assert len({each.payment_hash for each in paid}) == 3
        with pytest.raises(ValueError, match="there already"):
            await scenario.lsp(menu=[])


    async def test_the_chain_is_the_same(chain, scenario, wallet):
        before = await chain.rpc.height()
        assert before > 101
        assert await scenario.mine(3) == before + 3
        assert (await wallet.status()).height == before + 3
"""


def pytest_of_an_app(folder: Path, tests: str, *flags: str) -> subprocess.CompletedProcess[str]:
    """Run pytest as an application would, with these tests and nothing of ours around them."""
    (folder / "test_app.py").write_text(textwrap.dedent(tests))
    scope = "asyncio_default_fixture_loop_scope=function"
    pytest_flags = ("-p", "no:cacheprovider", "-q", "-o", scope, *flags)
    command = [sys.executable, "-W", "error", "-m", "pytest", *pytest_flags]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("kind", ["boxed", "bitcoind"])
def test_an_apps_tests(tmp_path: Path, kind: str, bitcoind: Path) -> None:
    done = pytest_of_an_app(tmp_path, AN_APPS_TESTS, "--ldkjit-chain", kind)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout


def test_fixtures_of_an_app_come_first(tmp_path: Path) -> None:
    tests = """
        import pytest

        @pytest.fixture
        def wallet():
            return "leather"

        def test_mine(wallet):
            assert wallet == "leather"
    """
    done = pytest_of_an_app(tmp_path, tests)
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_harms_no_run_without_pytest_asyncio(tmp_path: Path) -> None:
    tests = """
        def test_anything():
            pass

        def test_of_a_wallet(wallet):
            pass
    """
    done = pytest_of_an_app(tmp_path, tests, "-p", "no:asyncio")
    assert "1 passed" in done.stdout, done.stdout + done.stderr
    assert "1 error" in done.stdout
    assert "fixture 'wallet' not found" in done.stdout


def test_a_failing_fixture_leaves_nothing_behind(tmp_path: Path) -> None:
    tests = """
        import pytest

        @pytest.mark.asyncio
        async def test_of_a_bad_menu(scenario):
            await scenario.lsp(menu=["nonsense"])
    """
    done = pytest_of_an_app(tmp_path, tests, "--ldkjit-chain", "boxed")
    assert "1 failed" in done.stdout, done.stdout + done.stderr
    assert "ConfigError" in done.stdout


async def test_a_scenario_without_pytest() -> None:
    async with BoxedRegtest() as chain:
        async with Scenario(chain) as scenario:
            wallet = await scenario.wallet()
            paid = await scenario.first_payment(wallet, sat(50_000))
            assert paid.opening_fee == sat(2_000)
            assert (await scenario.node("other")).config.alias.endswith("other")
        # The chain goes on without it, and fees are what it is told.
        await chain.set_estimate(25_000)
        told = await chain.rpc.call("estimatesmartfee", 6)
        assert str(told["feerate"]) == "0.00025"
        await chain.set_mempool_minimum(5_000)
        address = await chain.rpc.call("getnewaddress")
        await chain.mine(3, address)
        async with Scenario(chain) as again:
            node = await again.node("dear")

            async def follows() -> bool:
                return (await node.fee_rates()).normal == 6_250

            await until(follows, "the estimate")


def test_which_chain_is_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert make_chain("boxed").kind == "boxed"
    assert make_chain("bitcoind").kind == "bitcoind"
    monkeypatch.setenv("LDKJIT_REGTEST", "boxed")
    assert make_chain().kind == "boxed"
    monkeypatch.setenv("LDKJIT_REGTEST", "simnet")
    with pytest.raises(ValueError, match="bitcoind or boxed"):
        make_chain()
    # A machine without a bitcoind, and one that names what does not run.
    monkeypatch.delenv("LDKJIT_REGTEST")
    monkeypatch.delenv("BITCOIND_EXE", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert make_chain().kind == "boxed"
    monkeypatch.setenv("BITCOIND_EXE", str(tmp_path / "none"))
    with pytest.raises(BitcoindNotFoundError):
        make_chain()
