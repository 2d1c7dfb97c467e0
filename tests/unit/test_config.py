"""A configuration is checked when it is written; errors name the field and what it accepts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from ldkjit import (
    Bitcoind,
    ConfigError,
    FeeTier,
    Hours,
    Lending,
    Limits,
    Lsp,
    LspConfig,
    Msat,
    NodeConfig,
    Patience,
    Pool,
    TrustModel,
    WebhookConfig,
    sat,
)
from ldkjit.storage import MemoryStore, PostgresStore

ID = "02" + "ab" * 32
CHAIN = Bitcoind("http://127.0.0.1:18443", user="u", password="secret-p")


def _fields(error: ConfigError) -> dict[str, str]:
    return error.details["fields"]


def test_it_becomes_the_json_of_the_bridge() -> None:
    config = NodeConfig(
        network="regtest",
        data_dir=Path("wallet"),
        chain=CHAIN,
        lsps=[Lsp(f"{ID}@127.0.0.1:9735", token="t", trusted=True)],
        lsp=LspConfig(
            menu=[FeeTier(min_fee=sat(2_000), proportional_ppm=4_000)],
            trust=TrustModel.CLIENT_TRUSTS_LSP,
            limits=Limits(max_exposure=sat(5)),
        ),
    )
    told = json.loads(config.model_dump_json())
    assert told == config.model_dump(mode="json")
    assert told["data_dir"] == "wallet"
    assert told["chain"] == {
        "kind": "bitcoind",
        "url": "http://127.0.0.1:18443",
        "user": "u",
        "password": "secret-p",
        "poll_ms": 1_000,
    }
    assert told["lsps"][0] == {
        "node_id": ID,
        "address": "127.0.0.1:9735",
        "token": "t",
        "trusted": True,
        "confirmations": 0,
        "verify_timeout_ms": 20_000,
    }
    assert told["lsp"]["trust"] == "client_trusts_lsp"
    assert told["lsp"]["limits"]["max_exposure_msat"] == 5_000
    assert set(told["lsp"]["menu"][0]) == {
        "min_fee_msat",
        "proportional_ppm",
        "min_payment_msat",
        "max_payment_msat",
        "min_lifetime_blocks",
        "max_client_to_self_delay",
        "valid_for_s",
    }
    assert NodeConfig.model_validate(told) == config


@pytest.mark.parametrize(
    ("values", "field", "accepted"),
    [
        ({"proportional_ppm": 1_000_001}, "proportional_ppm", "0 to 1_000_000"),
        ({"proportional_ppm": -1}, "proportional_ppm", "0 to 1_000_000"),
        ({"valid_for_s": 599}, "valid_for_s", "600 to 604_800 s"),
        ({"max_client_to_self_delay": 2_017}, "max_client_to_self_delay", "144 to 2_016"),
        ({"min_fee": 1.5}, "min_fee", "whole numbers"),
        ({"min_fee": -1}, "min_fee", "0…"),
        ({"min_payment": sat(3), "max_payment": sat(2)}, "FeeTier", "1 msat to max_payment"),
        ({"colour": "red"}, "colour", "is not a setting"),
    ],
)
def test_a_tier_names_what_is_wrong(values: dict[str, Any], field: str, accepted: str) -> None:
    with pytest.raises(ConfigError) as caught:
        FeeTier(**{"min_fee": sat(1), "proportional_ppm": 0, **values})
    assert list(_fields(caught.value)) == [field]
    assert accepted in _fields(caught.value)[field]
    assert field in str(caught.value)


@pytest.mark.parametrize(
    ("made", "values", "field", "accepted"),
    [
        (Lending, {"strangers_ppm": 1_000_001}, "strangers_ppm", "0 to 1_000_000"),
        (Lending, {"overcommit_ppm": -1}, "overcommit_ppm", "0 to 100_000_000"),
        (Lending, {"coin_confirmations": 0}, "coin_confirmations", "1 to 144 blocks"),
        (Patience, {"unpaid_before_refusal": 0}, "unpaid_before_refusal", "1 to 1_000_000"),
        (Pool, {"coin_sat": 9_999}, "coin_sat", "10_000 to 1_000_000_000 sat"),
        (Pool, {"max_sat_per_kw": 252}, "max_sat_per_kw", "253 to 1_000_000"),
        (Limits, {"max_held": 0}, "max_held", "1 to 1_000_000 HTLCs"),
        (Limits, {"claim_ms": 999}, "claim_ms", "1_000 to 86_400_000 ms"),
    ],
)
def test_what_an_lsp_risks_has_bounds(
    made: Any, values: dict[str, Any], field: str, accepted: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        made(**values)
    assert list(_fields(caught.value)) == [field]
    assert accepted in _fields(caught.value)[field]


def test_hours_take_some_time() -> None:
    tier = FeeTier(min_fee=sat(1_000), proportional_ppm=4_000)
    with pytest.raises(ConfigError, match="the same"):
        Hours(from_hour=3, until_hour=3, menu=[tier])
    Hours(from_hour=22, until_hour=6, menu=[tier])


def test_webhooks_are_off_unless_asked_for_and_have_bounds() -> None:
    tier = FeeTier(min_fee=sat(2_000), proportional_ppm=4_000)
    assert LspConfig(menu=[tier]).webhooks is None
    told = LspConfig(menu=[tier], webhooks=WebhookConfig(root_ca=Path("ca.pem")))
    assert told.model_dump(mode="json")["webhooks"] == {
        "max_webhooks": 10,
        "max_clients": 10_000,
        "max_strangers": 1_000,
        "cooldown_ms": 60_000,
        "retention_ms": 2_592_000_000,
        "timeout_ms": 10_000,
        "max_concurrent": 16,
        "allow_private": False,
        "root_ca": "ca.pem",
    }
    with pytest.raises(ConfigError) as caught:
        WebhookConfig(retention_ms=604_799_999, max_webhooks=0)
    assert _fields(caught.value).keys() == {"retention_ms", "max_webhooks"}


def test_every_problem_is_named_with_its_path() -> None:
    with pytest.raises(ConfigError) as caught:
        NodeConfig(**{"chain": {"url": "http://h:1"}, "lsp": {"menu": [{"proportional_ppm": 0}]}})
    assert set(_fields(caught.value)) == {
        "data_dir",
        "chain.user",
        "chain.password",
        "lsp.menu.0.min_fee",
    }


@pytest.mark.parametrize("url", ["ftp://h:1", "http://h", "http://u:p@h:1", "https://h:1", ""])
def test_only_a_plain_url_is_taken(url: str) -> None:
    with pytest.raises(ConfigError, match="http://host:port"):
        Bitcoind(url, user="u", password="p")


@pytest.mark.parametrize("at", ["", "x", f"{ID}@", f"{ID}@host", f"{ID}@host:70000", f"04{ID}@h:1"])
def test_T_22_an_lsp_needs_a_node_id_and_an_address(at: str) -> None:
    with pytest.raises(ConfigError):
        Lsp(at)


def test_secrets_are_not_shown() -> None:
    config = NodeConfig(
        data_dir=Path("x"),
        chain=CHAIN,
        network="signet",
        mnemonic="abandon " * 11 + "about",
        lsps=[Lsp(f"{ID}@h:1", token="secret-t")],
    )
    for secret in ("secret", "abandon"):
        assert secret not in repr(config)
        assert secret not in str(config)
    with pytest.raises(ConfigError) as caught:
        Bitcoind("nonsense", user="u", password="secret-p")
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_it_is_frozen() -> None:
    with pytest.raises(ValidationError):
        CHAIN.user = "other"  # pyright: ignore


def test_a_fallback_fee_is_for_regtest_only() -> None:
    with pytest.raises(ConfigError, match="regtest only"):
        NodeConfig(data_dir=Path("x"), chain=CHAIN, network="signet", fee_fallback_sat_per_kw=300)


def test_real_money_must_be_meant() -> None:
    for mistaken in ({}, {"network": "bitcoin"}, {"network": "bitcoin", "mainnet": False}):
        with pytest.raises(ConfigError, match="moves real money; say mainnet=True"):
            NodeConfig(data_dir=Path("x"), chain=CHAIN, **mistaken)  # pyright: ignore
    assert NodeConfig(data_dir=Path("x"), chain=CHAIN, mainnet=True).network == "bitcoin"


def test_an_lsp_risks_less_on_mainnet_unless_told() -> None:
    def limits(network: str, limits: Limits) -> Limits:
        lsp = LspConfig(menu=[FeeTier(min_fee=sat(1), proportional_ppm=1)], limits=limits)
        settings = {"network": network, "mainnet": True, "lsp": lsp}
        config = NodeConfig(data_dir=Path("x"), chain=CHAIN, **settings)  # pyright: ignore
        # Once more, as it goes to the node.
        again = NodeConfig(**config.model_dump(mode="json") | {"chain": CHAIN})
        assert again.lsp is not None
        assert again.lsp == config.lsp
        return again.lsp.limits

    assert limits("signet", Limits()) == Limits()
    careful = limits("bitcoin", Limits())
    assert careful.max_exposure == sat(5_000_000)
    assert careful.max_exposure_per_client == sat(500_000)
    assert careful.max_unconfirmed == sat(5_000_000)
    assert careful.max_unconfirmed_per_client == sat(500_000)
    assert careful.max_channel_sat == 2_000_000
    assert (careful.max_orders, careful.max_orders_per_client) == (100, 3)
    bold = limits("bitcoin", Limits(max_exposure=sat(9_000_000), max_orders=1_000))
    assert (bold.max_exposure, bold.max_orders) == (sat(9_000_000), 1_000)
    assert bold.max_exposure_per_client == sat(500_000)


def test_toml_and_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "node.toml"
    file.write_text(
        f"""
        data_dir = "wallet"
        network = "regtest"
        lsps = ["{ID}@h:1"]
        [chain]
        url = "http://127.0.0.1:1"
        user = "u"
        [lsp]
        trust = "client_trusts_lsp"
        [[lsp.menu]]
        min_fee_msat = 1000
        proportional_ppm = 1
        """
    )
    monkeypatch.setenv("LDKJIT_CHAIN__PASSWORD", "from-environment")
    monkeypatch.setenv("LDKJIT_NETWORK", "signet")
    monkeypatch.setenv("LDKJIT_LSP__LIMITS__MAX_EXPOSURE", "5000")
    config = NodeConfig.load(file)
    assert type(config) is NodeConfig
    assert config.chain.password == "from-environment"
    assert config.network == "signet"
    assert config.lsps == [Lsp(f"{ID}@h:1")]
    assert config.lsp is not None
    assert config.lsp.limits.max_exposure == Msat(5_000)
    assert config.lsp.menu[0].min_fee == sat(1)
    # Writing a configuration never looks at the environment.
    plain = NodeConfig(data_dir=Path("x"), chain=CHAIN, mainnet=True)
    assert plain.network == "bitcoin"


def test_an_unusable_file_is_a_config_error(tmp_path: Path) -> None:
    for name, text in (("none.toml", None), ("bad.toml", "= 1"), ("empty.toml", "")):
        if text is not None:
            (tmp_path / name).write_text(text)
        with pytest.raises(ConfigError):
            NodeConfig.load(tmp_path / name)


def test_a_store_is_named_given_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def of(store: Any) -> Any:
        return NodeConfig(network="regtest", data_dir=Path("d"), chain=CHAIN, store=store)

    own = MemoryStore()
    assert of("memory").store == "memory"
    assert of(own).store is own
    assert of(own).model_dump(mode="json")["store"] == "external"
    database = of("postgresql://me:hidden@db/shop").store
    assert isinstance(database, PostgresStore)
    assert "hidden" not in repr(of(database))
    for wrong in ("redis", 5, None, MemoryStore, object()):
        with pytest.raises(ConfigError, match="store: accepts") as refused:
            of(wrong)
        assert "hidden" not in str(refused.value)
    file = tmp_path / "node.toml"
    file.write_text(
        'data_dir = "d"\nnetwork = "regtest"\nstore = "postgresql://db/file"\n'
        '[chain]\nurl = "http://127.0.0.1:1"\nuser = "u"\npassword = "p"\n'
    )
    assert "db/file" in repr(NodeConfig.load(file).store)
    monkeypatch.setenv("LDKJIT_STORE", "postgresql://db/environment")
    assert "db/environment" in repr(NodeConfig.load(file).store)
    monkeypatch.setenv("LDKJIT_STORE", "memory")
    assert NodeConfig.load(file).store == "memory"
