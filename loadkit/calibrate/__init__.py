"""How exact this machine's client timing is, against a server that logs the truth."""
