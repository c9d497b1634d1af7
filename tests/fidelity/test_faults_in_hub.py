"""The faults of tests/unit/client once more as a load worker meets them: in gevent's hub, all at
once in one patched process, and killed in the middle."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SUPPORT = Path(__file__).parents[1] / "support"
SCRIPT = """
from gevent import monkey
monkey.patch_all()
import gevent, json, random, sys
sys.path.insert(0, sys.argv[1])
from byte_server import byte_server
from client_faults import CHUNKED, FAULTS, HELLO, chunked
from loadkit.client.endpoint import Endpoint
from loadkit.client.pump import HubPump, choose_pump
from loadkit.client.receipt import Receipt
from loadkit.client.stream import StreamClient
from loadkit.client.timeouts import Timeouts

assert isinstance(choose_pump(), HubPump)

def play(fault):
    with byte_server(*fault.steps(random.Random(7))) as server:
        limits = {"total_s": 20.0, **fault.limits}
        client = StreamClient(Endpoint.parse(server.url), timeouts=Timeouts(**limits))
        return client.send(client.connect(), client.prepare({}, session="s")).outcome

def killed():
    with byte_server(CHUNKED, *chunked(HELLO)[:-1], 30.0) as server:
        client = StreamClient(Endpoint.parse(server.url))
        receipt = Receipt()
        request = client.prepare({}, session="s")
        greenlet = gevent.spawn(client.send, client.connect(), request, receipt)
        while not receipt.pieces:
            gevent.sleep(0.01)
        greenlet.kill()
        receipt.end("cancelled", "killed")
        response = client.decode(receipt)
        return [response.outcome, response.text, len(client._pool._idle)]

jobs = [gevent.spawn(play, fault) for fault in FAULTS]
gevent.joinall(jobs, raise_error=True)
print(json.dumps([[job.value for job in jobs], [f.outcome for f in FAULTS], killed()]))
"""


def test_every_fault_has_the_same_label_in_the_hub_and_a_kill_leaves_what_came() -> None:
    command = [sys.executable, "-c", SCRIPT, str(SUPPORT)]
    done = subprocess.run(command, capture_output=True, timeout=100, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stderr == ""  # the hub prints what goes wrong in its callbacks
    labels, expected, killed = json.loads(done.stdout)
    assert labels == expected
    assert killed == ["cancelled", "Hello", 0]
