"""Does staging look like production? A verdict with reasons and an exit code."""

from loadkit.gate.decide import decide, decide_folder
from loadkit.gate.inputs import read_json, read_run
from loadkit.gate.verdict import Reason, Verdict

__all__ = ["Reason", "Verdict", "decide", "decide_folder", "read_json", "read_run"]
