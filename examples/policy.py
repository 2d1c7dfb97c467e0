"""An LSP whose operator decides in Python: prices, customers and sizes of channels."""

import asyncio

from ldkjit import (
    Accept,
    ChannelRequest,
    ChannelTerms,
    FeeTier,
    LspConfig,
    MenuRequest,
    Node,
    NodeConfig,
    OrderRequest,
    Policy,
    Refuse,
    sat,
)

SERVICE = LspConfig(menu=[FeeTier(min_fee=sat(2_000), proportional_ppm=4_000)])


class Prices(Policy):
    """All three are optional; each may be `def` or `async def`."""

    def menu(self, ask: MenuRequest) -> list[FeeTier] | Refuse:
        """Twice the price for a client that leaves channels unpaid."""
        if ask.client.left_unpaid == 0:
            return list(ask.menu)
        return [tier.model_copy(update={"min_fee": tier.min_fee * 2}) for tier in ask.menu]

    async def sell(self, order: OrderRequest) -> Accept | Refuse:
        """Nothing that costs more than it earns."""
        if order.min_fee < sat(order.state.open_cost_sat):
            return Refuse(message="fees are high, try later", reason="maintenance")
        return Accept()

    async def channel(self, opening: ChannelRequest) -> ChannelTerms | Refuse:
        """Room for the next payment too, for whoever has paid for a channel before."""
        if opening.client.paid_channels:
            return ChannelTerms(capacity_sat=3 * opening.needed_sat)
        return ChannelTerms()


async def main():
    """Serve, and print what happens."""
    # The variables of the wallet, and LDKJIT_LISTEN='["0.0.0.0:9735"]' LDKJIT_ACCEPT_CHANNELS=true
    config = NodeConfig.load().model_copy(update={"lsp": SERVICE})
    async with Node(config, policy=Prices()) as lsp:
        print((await lsp.status()).address, "needs coins at", await lsp.new_address(), flush=True)
        async for event in lsp.events():
            if event.type == "order_sold":
                print("sold", (await lsp.status()).policy["sell"].answered, flush=True)


asyncio.run(main())
