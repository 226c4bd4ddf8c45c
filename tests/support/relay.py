"""Stands between guardian and the agent on a master, as ssh does, and spoils what passes.

`python -m tests.support.relay FILE COMMAND…` runs the command and reads the faults it is to have
from FILE, one JSON object: {"lose": fun} turns the answer to the first publication of that function
into an error though it was published; {"noise": true} adds to every return a copy, one of a job and
one of a minion that nobody asked, and lines that are none.
"""

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, TextIO


def main() -> int:
    """Relay until guardian closes the stream, then end as the command does."""
    faults: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
    agent = subprocess.Popen(
        sys.argv[2:], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, errors="replace"
    )
    assert agent.stdin is not None and agent.stdout is not None
    lost: set[int] = set()
    thread = threading.Thread(target=_down, args=(agent.stdout, faults, lost), daemon=True)
    thread.start()
    for line in sys.stdin:
        request = json.loads(line)
        if request["op"] == "publish" and request["fun"] == faults.get("lose"):
            del faults["lose"]
            lost.add(request["id"])
        agent.stdin.write(line)
        agent.stdin.flush()
    agent.stdin.close()
    thread.join(10)
    return agent.wait(10)


def _down(source: TextIO, faults: dict[str, Any], lost: set[int]) -> None:
    for line in source:
        message = json.loads(line)
        if message.get("id") in lost:
            lost.discard(message["id"])
            _say({"id": message["id"], "ok": False, "error": "Salt request timed out"})
            continue
        _say(message)
        if message.get("event") == "return" and faults.get("noise"):
            _say(message)
            _say({**message, "jid": "20200101000000000000"})
            _say({**message, "minion": "mallory.dev01-use2"})
            for odd in ("nonsense", "[]", '{"event":"return"}', '{"event":"return","jid":7}'):
                print(odd, flush=True)


def _say(message: dict[str, Any]) -> None:
    print(json.dumps(message), flush=True)


if __name__ == "__main__":
    sys.exit(main())
