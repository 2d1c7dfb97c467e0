"""Nodes as processes that are killed, and a reckoning afterwards."""
