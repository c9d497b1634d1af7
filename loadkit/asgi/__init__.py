"""Pure-ASGI pieces that stand in front of any server."""
