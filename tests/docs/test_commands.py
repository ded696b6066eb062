"""Every command on the pages runs, and what a page shows as its output is what it prints."""

from __future__ import annotations

import functools
import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekit.cli.cache import MEANINGS
from edgekit.cli.deploy import DEPLOYED
from edgekit.core.cache_space import cache_parts
from edgekit.core.step_cache import cache_root
from tests.docs.pages import PAGES, ROOT, commands, outputs
from tests.docs.workshop import Ran, keys, masked, must, run, workshop

pytest.importorskip("ai_edge_litert", reason="the extra `litert` is not installed")
pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is missing")

NOT_HERE = {
    r"--devices? |^deploy |^device check ": "tests/devices runs these over a loopback sshd",
    r"^build --target openvino-[gn]pu": "an Intel GPU or NPU",
    r"@openvino:GPU": "an Intel GPU",
    r"^parity command:ssh ": "another machine",
    r"^(watch|predict) build/cpu camera:": "a camera",
    r"^sign .*_sk\.pub": "a hardware key",
    r"--on ray:": "a cluster, which tests/parity/test_ray.py starts",
    r"--prune|runs/pruned": "batch norm in the network, as in tests/training/test_prune.py",
    r"^check .*--plugin": "a TensorRT plugin, which tests/tensorrt compiles",
}
"""Commands that this machine cannot run, and what they need."""

TRAIN = (
    "--backbone tiny --weights none --no-freeze --image-size 28 --codebook-size 12 --workers 0 "
    "--epochs 1 --restart --batch-size 16 --train-images 32 --validation-images 10 --seen fog"
)
ECONOMIES = {
    "train": TRAIN,
    "finetune": (
        "--recipe tiny.toml --epochs 1 --train-images 6 --validation-images 3 --workers 0 "
        "--seen fog --validate-on fog"
    ),
    "calibrate": "--recipe tiny.toml",
    "build": (
        "--checkpoint runs/mine/best.safetensors --data ./photos --recipe tiny.toml "
        "--parity-images 2 --bench-seconds 0.02 --no-watch --zip"
    ),
    "parity": "--images 2",
    "bench": "--seconds 0.05",
    "watch": "--once",
}
"""Options that make a command small; those that the page has come after them, and win."""

MEASURED = ("build", "build --checkpoint best.pth --data ./photos --target cpu")
"""Builds that measure latency, too: one is shown with its output, the other makes the bundle."""

INSTEAD = (
    # Building another network takes seconds; tests/e2e/test_own_backbone.py does.
    (r"^(build .*)runs/own/(\S+) --backbone \S+", r"\1runs/mine/\2"),
    # What the pages call by several names is one checkpoint, or one without codes.
    (
        r"(?<!runs/mine/)(?<!runs/own/)\bbest\.(pth|safetensors)|\bmine\.pth",
        "runs/mine/best.safetensors",
    ),
    (r"\bresnet\d+\.pth|\bvit\.safetensors", "runs/plain/best.safetensors"),
    (r" --backbone timm:\S+", ""),
    (r"\.\.\.$", ""),
    # Networks and training that take minutes.
    (r"^(finetune|train) --data builtin:\S+", r"\1 --data ./photos"),
    (r"^finetune --data", "finetune runs/mine/best.safetensors --data"),
    (
        r"^calibrate --sensitivity",
        "calibrate runs/mine/best.safetensors --data photos --sensitivity",
    ),
    (r" --sensitivity", " --sensitivity --probe-images 15"),
    (r" --(image-size|codebook-size|variants|validation-images) \d+", ""),
    (
        r" --finetune-epochs 5",
        " --weights runs/mine/best.safetensors --freeze --variants 1 --finetune-epochs 1",
    ),
    (r" --recipe (robust|stratified)", ""),
    (r" --minutes 10", " --minutes 0.001"),
    (r" --seconds 30", ""),
    # Files of other tools, with the classes and pixels of the images here.
    (r"^calibrate model\.onnx", "calibrate float.onnx"),
    (r"^calibrate (.*) --data \. ", r"calibrate \1 --data ./photos "),
    (r"^(calibrate float.* -o )int8", r"\1foreign-int8"),
    (r"^check model-int8", "check runs/jetson/model-int8"),
    (r"^(parity .*)\bint8\.onnx", r"\1foreign-int8.onnx"),
    (r"--preprocessing (imagenet|lite0|timm:\S+)", "--preprocessing pixels.toml"),
    (r"^(parity (?:command|model).*)(--reference runs)", r"\1--allow-weak-reference \2"),
    # Places that are not the test's.
    (r"imagenet-c:/data/imagenet-c", "imagenet-c:imagenet-c --corruptions fog,snow"),
    (r"/var/camera|\bcamera/", "camera"),
    (r"/var/lib/node/", ""),
    (r"~/\.ssh/id_ed25519", "key"),
    (r"previous/cpu\.zip", "build/cpu.zip"),
    (r"runs/first runs/second", "runs/mine runs/plain"),
    (r"pole\.json --accept", "accepted.json --accept"),
)
"""What stands here for what a page speaks of."""

ORDER = ("train", "finetune", "calibrate", "export", "build", "watch")
"""What makes files that others read; `cache clean` comes last."""


def shown() -> dict[str, list[list[str]]]:
    """Commands and their words, of every page; lines of usage are none."""
    found: dict[str, list[list[str]]] = {}
    for page in PAGES:
        for words in commands(page.read_text(encoding="utf-8")):
            if not any(re.match(r"\[|COMMAND$", word) for word in words):
                found.setdefault(" ".join(words), []).append(words)
    return found


def place(command: str) -> tuple[int, str]:
    name = command.split()[0]
    return (ORDER.index(name) if name in ORDER else 99 if name == "cache" else 9), command


def reason(command: str) -> str | None:
    return next((why for pattern, why in NOT_HERE.items() if re.search(pattern, command)), None)


COMMANDS = sorted(shown(), key=place)
RUN_HERE = [command for command in COMMANDS if reason(command) is None]


def as_run(command: str) -> tuple[str, ...]:
    """The words that run for a command of a page."""
    text = shlex.join(shown_words()[command])
    for pattern, here in INSTEAD:
        text = re.sub(pattern, here, text)
    if "background" in text:
        text = text.replace("int8.tflite", "background.tflite")
    name, *rest = shlex.split(text)
    economies = shlex.split(ECONOMIES.get(name, ""))
    if "--plan" in rest or "--dry-run" in rest:
        economies = []
    if "--config" in rest and name == "build":
        economies = []  # the file has them
    if name == "bench" and command != "bench build/cpu" and "--scenario" not in rest:
        economies += ["--scenario", "latency"]
    if name == "build" and command not in MEASURED and "--max-latency-ratio" not in rest:
        economies += ["--no-bench"]
    if "--images" in rest and name == "parity":
        economies = []
    return name, *economies, *rest


@functools.cache
def shown_words() -> dict[str, list[str]]:
    return {command: words[0] for command, words in shown().items()}


class Session:
    """Runs each command once, however many pages show it."""

    def __init__(self) -> None:
        self._ran: dict[tuple[str, ...], Ran] = {}

    def run(self, command: str) -> Ran:
        words = as_run(command)
        if words not in self._ran:
            stdin = "".join(f"{path}\n" for path in sorted(Path("frames").iterdir()))
            if words[0] == "calibrate":  # several pages write a file of the same name
                for path in Path().glob(words[words.index("-o") + 1] + "*"):
                    path.unlink()
            with pytest.MonkeyPatch.context() as patch:
                if words[0] == "cache":  # this process has the other one in use until it ends
                    patch.setenv("EDGEKIT_CACHE", "old-cache")
                self._ran[words] = run(*words, stdin=stdin)
        return self._ran[words]


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """A folder in which everything is that the pages' commands read."""
    with workshop(tmp_path_factory.mktemp("workshop")) as folder:
        session = Session()
        must(*as_run("train --data ./photos --out runs/mine"))
        must("train", *TRAIN.split(), "--data", "./photos", "--head", "none", "--out", "runs/plain")
        must(*as_run("build --checkpoint best.pth --data ./photos --target cpu"), "--watch")
        session.run("watch build/cpu /var/camera --state pole.json")  # before a build without it
        shutil.copy("pole.json", "accepted.json")
        for copy in ("build/new", "build/old", "previous/cpu", "build/openvino-cpu-vnni"):
            shutil.copytree("build/cpu", copy)
        settings = shlex.split(ECONOMIES["build"])
        must("build", *settings, "--save-config", "build.toml", "--no-bench")
        session.run("calibrate best.pth --data ./photos -o int8.onnx")
        keys(folder)
        yield session


@pytest.mark.parametrize("command", RUN_HERE)
def test_it_runs(session: Session, command: str) -> None:
    ran = session.run(command)
    judges = command.split()[0] in ("parity", "build", "bench", "watch")
    assert ran.code == 0 or (ran.code == 3 and judges), f"{as_run(command)}: {ran.err}"
    if "--json" in command:
        json.loads(ran.out)


def test_what_is_left_in_the_cache_is_explained(session: Session) -> None:
    names = {part.name for part in cache_parts(cache_root())}
    assert {"calibrate", "export", "parity"} <= names  # of the builds, at least
    assert names <= MEANINGS.keys()


def test_what_does_not_run_is_on_the_pages() -> None:
    for pattern in NOT_HERE:
        assert any(re.search(pattern, command) for command in COMMANDS), pattern


PLAN = "parity --plan --tolerance 0.5"
LAYERS = "bench build/cpu --scenario latency --layers"
ACROSS = (
    "parity --across float.onnx int8.onnx int8.tflite model.xml "
    "--preprocessing imagenet --data photos"
)
OUTPUTS = {
    r"target  size MB": ("build",),
    r"latency, ms  ": ("bench build/cpu",),
    r"build/cpu: int8 for cpu": ("bench build/cpu", LAYERS),
    r"tolerance 0\.5 points": (PLAN,),
    r"A  float\.onnx": (ACROSS,),
}
"""How a block begins that shows an output, and the commands that print such lines."""

NO_OUTPUT = {
    r"changed: 73 images": "tests/cli/test_watch.py brings about such a change",
    r"libedgekit_openvino\.so was built": "another release of OpenVINO",
    r"release@factory ": "a line of a file",
    r"what runs is the same; different": "evidence of two builds: tests/report/test_compare.py",
    r"device  state     copied": "tests/devices deploys over a loopback sshd",
    r"manifest\.json  |photos/cat/|checkpoint -> ": "files and folders",
    r"indices, margin = ": "a signature",
    r" *(?:make|edgekit|python|pip|cmake|sudo|bash|torchrun|eval|~/|benchmark_app)": "commands",
    r"docker |my-camera-program": "commands of others",
}
"""How other blocks begin, and what they are."""

DIFFERS = (
    r"^ +[\d.]+ ms  [^ ]* |and slower:",  # a histogram's rows, as many as are needed
    r"^on |^energy: ",  # the machine
    r"^ +[\d.]+ ms +[\d.]+%  |^layers, profiled",  # the network's layers
    r"odd one out|every other than any",  # nothing stands out here
    r"\.\.\.",  # left out on the page
)
"""Lines of an output that other machines and networks do not print like this."""


def blocks() -> list[tuple[str, str]]:
    """Pages' names and their blocks in no named language."""
    return [(page.name, block) for page in PAGES for block in outputs(page.read_text("utf-8"))]


def test_every_block_is_known() -> None:
    known = (*OUTPUTS, *NO_OUTPUT)
    strange = [
        (name, block) for name, block in blocks() if not any(re.match(p, block) for p in known)
    ]
    assert strange == []
    for pattern in known:
        assert any(re.match(pattern, block) for _, block in blocks()), pattern


@pytest.mark.parametrize("beginning", OUTPUTS)
def test_it_prints_what_is_shown(session: Session, beginning: str) -> None:
    printed = [
        line for command in OUTPUTS[beginning] for line in session.run(command).out.split("\n")
    ]
    lines = {masked(line) for line in printed}
    for name, block in blocks():
        if re.match(beginning, block):
            expected = [
                line for line in block.splitlines() if not any(re.search(p, line) for p in DIFFERS)
            ]
            missing = [line for line in expected if masked(line) not in lines]
            assert missing == [], f"{name}: not in\n" + "\n".join(printed)
            assert len(expected) > 1


def test_the_plan_is_exact(session: Session) -> None:
    printed = session.run(PLAN).out
    for name, block in blocks():
        if block.startswith("tolerance 0.5"):
            assert block.split() == printed.split(), name


def test_a_deploy_is_shown_as_its_table() -> None:
    (block,) = (block for _, block in blocks() if block.startswith("device  state"))
    assert block.splitlines()[0].split() == [column.name for column in DEPLOYED.columns]


@pytest.mark.parametrize("name", ["README.md", "docs/quickstart.md"])
def test_the_program_runs(session: Session, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / name).read_text("utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(compile(program, name, "exec"), {})  # a page of ours
    assert re.match(r"kind\d [\d.]+ \d+$", capsys.readouterr().out)


def values_at(document: object, path: str) -> list[object]:
    """What a filter of jq selects, as far as the pages use them: `.a.b[0].c`, `.a[].b`."""
    found = [document]
    for name, index in re.findall(r"\.(\w+)(\[\d*\])?", path):
        found = [one[name] for one in found if isinstance(one, dict)]
        if index == "[]":
            found = [inner for one in found if isinstance(one, list) for inner in one]
        elif index:
            found = [one[int(index[1:-1])] for one in found if isinstance(one, list)]
    return found


FILTERS = {
    match[1].strip(): match[2]
    for page in PAGES
    for match in re.finditer(r"edgekit ([^|\n]*)\| jq '([^' |]+)", page.read_text("utf-8"))
}


@pytest.mark.parametrize("command", FILTERS)
def test_the_filter_selects(session: Session, command: str) -> None:
    document = json.loads(session.run(command).out)
    assert values_at(document, FILTERS[command]), FILTERS[command]
