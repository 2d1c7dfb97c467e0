"""The reader of invoices by the examples of BOLT 11."""

from __future__ import annotations

import pytest

from .bolt8 import new_key
from .bolt11 import Hop, Invoice, read_invoice, write_invoice
from .curve import public_key

PAYEE = "03e7156ae33b0a208d0744199163177e909e80176e55d97a2f221ede0f934dd9ad"
HASH = "0001020304050607080900010203040506070809000102030405060708090102"
SECRET = "11" * 32
TIMESTAMP = 1_496_314_658
DONATION = (
    "lnbc1pvjluezsp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygspp5qqqsyqcyq5rqwzqfqqqsyqcy"
    "q5rqwzqfqqqsyqcyq5rqwzqfqypqdpl2pkx2ctnv5sxxmmwwd5kgetjypeh2ursdae8g6twvus8g6rfwvs8qun0dfjkxaq"
    "9qrsgq357wnc5r2ueh7ck6q93dj32dlqnls087fxdwk8qakdyafkq3yap9us6v52vjjsrvywa6rt52cm9r9zqt8r2t7mlc"
    "wspyetp5h2tztugp9lfyql"
)
COFFEE = (
    "lnbc2500u1pvjluezsp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygspp5qqqsyqcyq5rqwzqfqqq"
    "syqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdq5xysxxatsyp3k7enxv4jsxqzpu9qrsgquk0rl77nj30yxdy8j9vdx85fkpm"
    "dla2087ne0xh8nhedh8w27kyke0lp53ut353s06fv3qfegext0eh0ymjpf39tuven09sam30g4vgpfna3rh"
)
ROUTED = (
    "lnbc20m1pvjluezsp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygspp5qqqsyqcyq5rqwzqfqqqsy"
    "qcyq5rqwzqfqqqsyqcyq5rqwzqfqypqhp58yjmdan79s6qqdhdzgynm4zwqd5d7xmw5fk98klysy043l2ahrqsfpp3qjmp"
    "7lwpagxun9pygexvgpjdc4jdj85fr9yq20q82gphp2nflc7jtzrcazrra7wwgzxqc8u7754cdlpfrmccae92qgzqvzq2ps"
    "8pqqqqqqpqqqqq9qqqvpeuqafqxu92d8lr6fvg0r5gv0heeeqgcrqlnm6jhphu9y00rrhy4grqszsvpcgpy9qqqqqqgqqq"
    "qq7qqzq9qrsgqdfjcdk6w3ak5pca9hwfwfh63zrrz06wwfya0ydlzpgzxkn5xagsqz7x9j4jwe7yj7vaf2k9lqsdk45kts"
    "2fd0fkr28am0u4w95tt2nsq76cqw0"
)
PICO = (
    "lnbc9678785340p1pwmna7lpp5gc3xfm08u9qy06djf8dfflhugl6p7lgza6dsjxq454gxhj9t7a0sd8dgfkx7cmtwd68y"
    "etpd5s9xar0wfjn5gpc8qhrsdfq24f5ggrxdaezqsnvda3kkum5wfjkzmfqf3jkgem9wgsyuctwdus9xgrcyqcjcgpzgfs"
    "kx6eqf9hzqnteypzxz7fzypfhg6trddjhygrcyqezcgpzfysywmm5ypxxjemgw3hxjmn8yptk7untd9hxwg3q2d6xjcmtv"
    "4ezq7pqxgsxzmnyyqcjqmt0wfjjq6t5v4khxsp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygsxqy"
    "jw5qcqp2rzjq0gxwkzc8w6323m55m4jyxcjwmy7stt9hwkwe2qxmy8zpsgg7jcuwz87fcqqeuqqqyqqqqlgqqqqn3qq9q9"
    "qrsgqrvgkpnmps664wgkp43l22qsgdw4ve24aca4nymnxddlnp8vh9v2sdxlu5ywdxefsfvm0fq3sesf08uf6q9a2ke0hc"
    "9j6z6wlxg5z5kqpu2v9wz"
)
# Its features are 8, 14 and 99.
BEANS = (
    "lnbc25m1pvjluezpp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdq5vdhkven9v5sxyetpdeess"
    "p5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygs9q5sqqqqqqqqqqqqqqqqsgq2a25dxl5hrntdtn6z"
    "vydt7d66hyzsyhqs4wdynavys42xgl6sgx9c4g7me86a27t07mdtfry458rtjr0v92cnmswpsjscgt2vcse3sgpz3uapa"
)


def test_an_invoice_without_an_amount() -> None:
    invoice = read_invoice(DONATION)
    assert (invoice.network, invoice.amount_msat) == ("bc", None)
    assert (invoice.payee, invoice.payment_hash, invoice.secret) == (PAYEE, HASH, SECRET)
    assert invoice.description == "Please consider supporting this project"
    assert (invoice.timestamp, invoice.expires) == (TIMESTAMP, TIMESTAMP + 3_600)
    assert (invoice.final_delta, invoice.features, invoice.routes) == (18, {8, 14}, [])


def test_an_invoice_with_an_amount_and_an_expiry() -> None:
    invoice = read_invoice(COFFEE)
    assert (invoice.amount_msat, invoice.description) == (250_000_000, "1 cup coffee")
    assert (invoice.payee, invoice.expires) == (PAYEE, TIMESTAMP + 60)


def test_a_route_of_two_hops() -> None:
    invoice = read_invoice(ROUTED)
    node_id = "9e03a901b85534ff1e92c43c74431f7ce72046060fcf7a95c37e148f78c77255"
    assert (invoice.payee, invoice.amount_msat) == (PAYEE, 2_000_000_000)
    assert invoice.routes == [
        [
            Hop("02" + node_id, "66051x263430x1800", 1, 20, 3),
            Hop("03" + node_id, "197637x395016x2314", 2, 30, 4),
        ]
    ]


def test_an_amount_in_pico_and_a_final_delta() -> None:
    invoice = read_invoice(PICO)
    assert (invoice.payee, invoice.amount_msat) == (PAYEE, 967_878_534)
    assert (invoice.final_delta, invoice.expires - invoice.timestamp) == (10, 604_800)
    assert [len(route) for route in invoice.routes] == [1]


@pytest.mark.parametrize("text", [BEANS, BEANS.upper()])
def test_features(text: str) -> None:
    invoice = read_invoice(text)
    assert (invoice.payee, invoice.features) == (PAYEE, {8, 14, 99})


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param(DONATION[3:], id="another prefix"),
        pytest.param(DONATION[:-1] + "q", id="another checksum"),
        pytest.param(DONATION.replace("1pvj", "1pvk"), id="another timestamp"),
        pytest.param(DONATION.replace("lnbc1", "lnbc"), id="no separator"),
    ],
)
def test_what_is_no_invoice(text: str) -> None:
    with pytest.raises(ValueError, match=r"no invoice|not in|substring"):
        read_invoice(text)


@pytest.mark.parametrize("amount", [None, 1, 100_000_000])
@pytest.mark.parametrize("description", ["", "semmelknödel"])
def test_what_is_written_is_read(amount: int | None, description: str) -> None:
    for _ in range(10):
        key = new_key()
        invoice = Invoice(
            network="bcrt",
            amount_msat=amount,
            timestamp=TIMESTAMP,
            expires=TIMESTAMP + 60,
            payee=public_key(key).hex(),
            payment_hash=HASH,
            secret=SECRET,
            description=description,
            final_delta=144,
            features=frozenset({8, 14, 99}),
            routes=[[Hop(PAYEE, "16000000x2x3", 1, 2, 144)] * 2, [Hop(PAYEE, "1x0x0", 0, 0, 1)]],
        )
        assert read_invoice(write_invoice(invoice, key)) == invoice
