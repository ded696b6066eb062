"""Devices whose agent was exchanged, and agents whose host has gone mad.

A program named ssh starts edgekit's real agent and passes its frames on, but for a few.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

from edgekit.devices.remote import agent
from tests.hostile.campaign import seeds
from tests.hostile.campaign.case import ROOT, Places, Verdict, judge, run_limited
from tests.hostile.campaign.damage import damage
from tests.hostile.campaign.forked import Forked

Words = list[str | Path]
_CALLS = "tests.hostile.campaign.calls"
_SSH = """#!{python}
import json, os, random, subprocess, sys, threading, time
sys.path.insert(0, {root!r})
from edgekit.devices.remote.agent import MAGIC, pack, unpack
from tests.hostile.campaign.damage import damage
from tests.hostile.campaign.structure import as_json, spoil

draw = random.Random({seed})
spoiled = set({spoiled!r})
# What is cut off on a device leaves things in its own folder for them.
os.makedirs({temporary!r})
agent = subprocess.Popen(
    ["sh", "-c", sys.argv[-1]], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    env={{**os.environ, "TMPDIR": {temporary!r}}},
)

def forward():
    while data := os.read(0, 1 << 16):
        agent.stdin.write(data)
        agent.stdin.flush()
    agent.stdin.close()

threading.Thread(target=forward, daemon=True).start()

def read(count):
    data = agent.stdout.read(count)
    if len(data) < count:
        os._exit(draw.choice((0, 1, 127, 255)))
    return data

def write(data):
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        os._exit(0)

write(damage(read(len(MAGIC)), draw) if -1 in spoiled else read(len(MAGIC)))
number = 0
while True:
    header, payload = unpack(read)
    if header["op"] == "ping" or number not in spoiled:
        write(pack(header, payload))
        number += header["op"] != "ping"
        continue
    number += 1
    whole = pack(header, payload)
    kind = draw.randrange(10)
    if kind < 4:
        if "value" in header and draw.randrange(3):
            header["value"] = spoil({{"v": header["value"]}}, draw).get("v")
            write(pack(header, payload))
        else:
            text = as_json(spoil(header, draw), draw)
            write(len(text).to_bytes(4, "big") + len(payload).to_bytes(4, "big") + text + payload)
    elif kind == 4:
        write(damage(whole, draw))
    elif kind == 5:
        write(whole * draw.choice((2, 3, 1000)))
    elif kind == 6:
        pass
    elif kind == 7:
        write(whole[: draw.randrange(len(whole))])
        if draw.randrange(2):
            os._exit(255)
    elif kind == 8:
        write(pack(draw.choice(({{"op": "out", "stream": 1}}, {{"op": "exit", "code": 0}},
              {{"op": "failed", "error": "\\x1b[2J" * 999, "errno": 2}}, {{"op": "ping", "x": 1}})),
              draw.randbytes(draw.choice((0, 9, 1 << 16)))))
    else:
        print("\\x1b[2J" + "x" * 10**5, file=sys.stderr)
        write(draw.randbytes(draw.choice((1, 100, 10**6))))
"""


def _network(draw: random.Random, work: Path) -> None:
    folder = work / "network"
    folder.mkdir()
    spoiled = {draw.choice((0, 1, 2, 2, 3, 3, 3, 4, 5, 6, 8, 12)) for _ in range(2)}
    if draw.randrange(20) == 0:
        spoiled = {-1}
    text = _SSH.format(
        python=sys.executable,
        root=str(ROOT),
        seed=draw.randrange(1 << 30),
        spoiled=spoiled,
        temporary=str(work / "device" / "tmp"),
    )
    (folder / "ssh").write_text(text)
    (folder / "ssh").chmod(0o755)
    entry = {"name": "nano", "host": "nano@here", "python": sys.executable,
             "folder": str(work / "device")}  # fmt: skip
    lines = "\n".join(f"{key} = {json.dumps(value)}" for key, value in entry.items())
    (work / "devices.toml").write_text(f"[[device]]\n{lines}\n")


def _check(draw: random.Random, work: Path) -> Words:
    _network(draw, work)
    return ["device", "check", "nano", *draw.choice(([], ["--json"]))]


def _deploy(draw: random.Random, work: Path) -> Words:
    """No wheel is there, so that nothing is installed."""
    _network(draw, work)
    (work / "wheels").mkdir()
    (work / "wheels" / "none-1-py3-none-any.whl").write_bytes(b"no wheel")
    bundle = seeds.give_bundle("onnxruntime-cpu", work)
    words: Words = ["deploy", bundle, "--device", "nano", "--wheels", work / "wheels"]
    return [*words, *draw.choice(([], ["--json"]))]


class Agent:
    """The real agent, and a host that sends nonsense: it ends, and so does what it started."""

    name = "agents: nonsense from the host"

    def run(self, seed: int, folder: Path) -> Verdict:
        """One case."""
        draw = random.Random(f"{self.name} {seed}")
        work = Places(folder).work
        good = (
            agent.pack({"op": "load", "module": "m"}, b"def f(*a): return len(a)"),
            agent.pack({"op": "call", "module": "m", "function": "f", "arguments": [1]}),
            agent.pack({"op": "lock", "path": str(work / "lock"), "shared": False}),
            agent.pack({"op": "run", "command": ["cat"], "environment": {}, "without": []}),
            agent.pack({"op": "in"}, b"x" * 1000),
            agent.pack({"op": "eof"}),
            agent.pack({"op": "ping"}),
            agent.pack({"op": draw.choice(("", "x", "done", "exit"))}),
            b"[" * 9, (1 << 31).to_bytes(4, "big") * 2,
        )  # fmt: skip
        frames = [draw.choice(good) for _ in range(draw.randrange(1, 9))]
        at = draw.randrange(len(frames))
        # Paths and commands stay as they are: the agent does what its host says.
        length = frames[at][:8]
        frames[at] = damage(length, draw) + draw.choice((frames[at][8:], draw.randbytes(99), b""))
        ended = run_limited(
            [sys.executable, agent.__file__], stdin=b"".join(frames), cwd=work, seconds=30,
            megabytes=400,
        )  # fmt: skip
        # Its last words, a traceback perhaps, are the host's to read: what counts is that it ends.
        if ended.stopped or ended.strays or ended.code < 0:
            return judge(ended)
        return Verdict("passed" if ended.code == 0 else "refused", str(ended.code))


HAZARDS = (
    Forked("devices: check", _check, codes=(1, 2, 4, 5), writes=("device",), seconds=45,
           function=f"{_CALLS}:impatient"),
    Forked("devices: deploy", _deploy, codes=(1, 2, 4, 5), writes=("device",), seconds=90,
           function=f"{_CALLS}:impatient"),
    Agent(),
)  # fmt: skip
