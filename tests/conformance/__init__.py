"""A black-box conformance suite for LSPS2 (bLIP-50, bLIP-52), over BOLT 8 alone.

``pytest tests/conformance`` tests an LSP that it starts for itself. Another one is tested with
``--target node_id@host:port`` and, if it gives its menu for a token only, ``--target-token``;
it sells dozens of channels that nobody will pay for. Payments need payers with channels to the LSP,
and are made to an LSP of the suite's own only.
``test_wallet_*.py`` test a client, which buys from an LSP that says what each test makes it say.
Another client is tested by giving ``conftest.py`` another ``new_wallet``.
Every test is named after the requirement it checks, e.g. ``J_31`` or ``T_08``.
"""
