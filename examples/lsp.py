"""An LSP that sells channels: 0.4 %, at least 2,000 sat, to anybody who connects."""

import asyncio

from ldkjit import FeeTier, LspConfig, Node, NodeConfig, TrustModel, sat

SERVICE = LspConfig(
    menu=[FeeTier(min_fee=sat(2_000), proportional_ppm=4_000)],
    trust=TrustModel.LSP_TRUSTS_CLIENT,
)


async def main():
    """Serve, and print what happens."""
    # The variables of the wallet, and LDKJIT_LISTEN='["0.0.0.0:9735"]' LDKJIT_ACCEPT_CHANNELS=true
    config = NodeConfig.load().model_copy(update={"lsp": SERVICE})
    async with Node(config) as lsp:
        print((await lsp.status()).address, "needs coins at", await lsp.new_address())
        async for event in lsp.events():  # at least once, acknowledged by moving on
            print(event)


asyncio.run(main())
