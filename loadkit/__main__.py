"""`python -m loadkit` is the `loadkit` command."""

from loadkit.cli import main

main()
