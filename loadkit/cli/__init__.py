"""The `loadkit` command: one thin file a verb. Importing this imports nothing heavy."""

from loadkit.cli.app import main

__all__ = ["main"]
