"""Real nodes of others beside ours, over real TCP on a real regtest: ``make interop``.

Not collected by a plain ``pytest``: they are built from source first.
"""
