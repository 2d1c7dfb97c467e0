"""A wallet without coins or channels that is paid 50,000 sat through an LSP it names."""

import asyncio

from ldkjit import Node, NodeConfig, sat


async def main():
    """Make an invoice and wait until it is paid."""
    # LDKJIT_NETWORK=regtest LDKJIT_DATA_DIR=wallet LDKJIT_CHAIN__URL=http://127.0.0.1:18443
    # LDKJIT_CHAIN__USER=u LDKJIT_CHAIN__PASSWORD=p LDKJIT_LSPS='["02ab…@127.0.0.1:9735"]'
    async with Node(NodeConfig.load()) as wallet:
        invoice = await wallet.receive(
            sat(50_000), description="coffee", max_opening_fee=sat(2_000)
        )
        print(invoice.bolt11, invoice.path, invoice.opening_fee)  # path: "channel" or "jit"
        payment = await invoice.settled(timeout=60)
        print("received", payment.amount)


asyncio.run(main())
