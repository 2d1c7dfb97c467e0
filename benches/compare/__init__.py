"""The same load against ldkjit and ldk-node, in turn, on one bitcoind."""
