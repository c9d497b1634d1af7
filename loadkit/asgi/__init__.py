"""Pure-ASGI pieces that stand in front of any server."""

from loadkit.asgi.append_only import AppendOnly

__all__ = ["AppendOnly"]
