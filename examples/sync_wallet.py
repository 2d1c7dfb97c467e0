"""The wallet again, for a program that blocks: no event loop, no ``await``."""

from ldkjit import NodeConfig, sat, sync

# The variables of wallet.py.
with sync.Node(NodeConfig.load()) as wallet:
    invoice = wallet.receive(sat(50_000), description="coffee", max_opening_fee=sat(2_000))
    print(invoice.bolt11, invoice.path, invoice.opening_fee, flush=True)
    payment = invoice.settled(timeout=60)
    print("received", payment.amount)
