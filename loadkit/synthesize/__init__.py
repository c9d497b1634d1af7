"""A workload with a log's sharing structure at R times its traffic, and no text of it."""

from loadkit.synthesize.synthesize import Synthesis, synthesize_chats, synthesize_token_ids

__all__ = ["Synthesis", "synthesize_chats", "synthesize_token_ids"]
