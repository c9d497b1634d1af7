"""Requests, tokens, blocks, chained hashes, rates and errors. Pure: no I/O, no heavy import."""
