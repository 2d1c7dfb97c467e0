"""What Python's own part costs: amounts, configuration, webhooks' signatures."""

from __future__ import annotations

from pathlib import Path

from pytest_benchmark.fixture import BenchmarkFixture

from ldkjit import Bitcoind, FeeTier, LspConfig, Msat, NodeConfig, sat

CHAIN = Bitcoind("http://127.0.0.1:18443", user="u", password="p")  # noqa: S106 (nobody's)


def test_amounts(benchmark: BenchmarkFixture) -> None:
    left, right = sat(50_000), Msat(1)
    benchmark(lambda: left + right)


def test_configuration_of_an_lsp(benchmark: BenchmarkFixture) -> None:
    def make() -> NodeConfig:
        service = LspConfig(menu=[FeeTier(min_fee=sat(2_000), proportional_ppm=4_000)])
        return NodeConfig(network="regtest", data_dir=Path("lsp"), chain=CHAIN, lsp=service)

    benchmark(make)


def test_configuration_as_json(benchmark: BenchmarkFixture) -> None:
    config = NodeConfig(network="regtest", data_dir=Path("node"), chain=CHAIN)
    benchmark(config.model_dump_json)
