"""The wheel holds what the program reads; units and container file are hardened, and name commands that there are."""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from typer.main import get_command

from channeld.cli.main import app

ROOT = Path(__file__).resolve().parents[1]
PACKAGING = ROOT / "packaging"
SERVICES = sorted((PACKAGING / "systemd").glob("*.service"))
HARDENED = {
    "CapabilityBoundingSet": "",
    "LockPersonality": "yes",
    "NoNewPrivileges": "yes",
    "PrivateDevices": "yes",
    "PrivateTmp": "yes",
    "ProtectControlGroups": "yes",
    "ProtectHome": "yes",
    "ProtectKernelModules": "yes",
    "ProtectKernelTunables": "yes",
    "ProtectSystem": "strict",
    "RestrictNamespaces": "yes",
    "RestrictSUIDSGID": "yes",
    "SystemCallArchitectures": "native",
    "UMask": "0077",
    "LimitCORE": "0",
}
EXPOSURE = 20
"""In tenths, of systemd's own measure: 0 is all that can be forbidden, 100 nothing."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel as it would be published, unpacked; nothing of the working tree is beside it."""
    out = tmp_path_factory.mktemp("wheel")
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not installed")
    built = subprocess.run(
        [uv, "build", "--wheel", "-o", str(out), str(ROOT)], capture_output=True, text=True, check=False
    )
    if built.returncode and re.search(r"(?i)failed to (fetch|resolve)|dns|network|connect", built.stderr):
        pytest.skip("the build's backend cannot be fetched")
    assert built.returncode == 0, built.stderr
    (path,) = out.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        archive.extractall(out / "unpacked")
    return out / "unpacked"


def test_the_wheel_holds_every_file_that_is_read(wheel):
    for path in (ROOT / "channeld").rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            inside = wheel / path.relative_to(ROOT)
            assert inside.read_bytes() == path.read_bytes(), path
    (entry,) = wheel.glob("*.dist-info/entry_points.txt")
    assert "channeld = channeld.cli.main:main" in entry.read_text(encoding="utf-8")
    # neither tests nor contracts' sources, and nothing of anybody's machine
    assert {path.name for path in wheel.iterdir() if not path.name.endswith(".dist-info")} == {"channeld"}


def test_the_unpacked_wheel_works_without_the_working_tree(wheel, tmp_path):
    script = """
import json, sys
import channeld
from channeld.chain.contracts import load_artifact
from channeld.daemon.token_methods import api_schema
names = ["Adjudicator", "FixBook", "Lens", "RiskEngine", "Rules", "TestToken"]
sizes = [len(load_artifact(name).bytecode) for name in names]
print(json.dumps([channeld.__file__, sizes, len(api_schema()["methods"])]))
"""
    environment = {**os.environ, "PYTHONPATH": str(wheel)}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    where, sizes, methods = json.loads(done.stdout)
    assert Path(where).is_relative_to(wheel)
    assert min(sizes) > 100
    assert methods > 40


def directives(path):
    """The directives of a unit's sections; of a repeated one the last, as far as these tests look."""
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str
    parser.read(path, encoding="utf-8")
    return parser


def known(words):
    """Raise unless a command line is one that the command has, with options that it takes."""
    command, path = get_command(app), []
    while hasattr(command, "commands"):
        path.append(words.pop(0))
        command = command.commands[path[-1]]
    options = {name for parameter in command.params for name in parameter.opts}
    for word in words:
        if word.startswith("--"):
            assert word in options, (path, word)


@pytest.mark.parametrize("path", SERVICES, ids=lambda p: p.name)
def test_units_are_hardened_and_call_what_there_is(path):
    service = directives(path)["Service"]
    assert {name: service.get(name) for name in HARDENED} == HARDENED
    assert service["User"] not in {"root", "0", ""}
    line = service["ExecStart"]
    if line.startswith("/bin/sh"):
        line = re.search(r"exec (.*)' sh %i$", line)[1]
    words = shlex.split(line.replace("$$", "$"))
    assert words.pop(0) == "/opt/channeld/bin/channeld"
    known(words)
    # a password is in no argument, no variable and no file that others read
    assert "LoadCredentialEncrypted" in service
    assert "PASSWORD" not in path.read_text(encoding="utf-8")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_takes_the_units_and_finds_them_tight(tmp_path):
    for path in (PACKAGING / "systemd").iterdir():
        text = path.read_text(encoding="utf-8").replace("/opt/channeld/bin/channeld", sys.executable)
        (tmp_path / path.name.replace("@.", "@desk.")).write_text(text, encoding="utf-8")
    units = sorted(str(path) for path in tmp_path.iterdir())
    checked = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *units],
        capture_output=True,
        text=True,
        check=False,
    )
    ours = [line for line in checked.stderr.splitlines() if "channeld" in line]
    assert not ours, checked.stderr
    for unit in units:
        if unit.endswith(".service"):
            tight = subprocess.run(
                ["systemd-analyze", "security", "--offline=yes", f"--threshold={EXPOSURE}", "--no-pager", unit],
                capture_output=True,
                text=True,
                check=False,
            )
            if "unrecognized option" in tight.stderr:
                pytest.skip("this systemd-analyze knows no --offline")
            assert tight.returncode == 0, tight.stdout[-600:] + tight.stderr


def instructions():
    """The container file's instructions, (name, rest)."""
    text = (PACKAGING / "Containerfile").read_text(encoding="utf-8")
    text = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    return [tuple(line.split(None, 1)) for line in text.splitlines() if line.strip()]


def test_the_container_file_is_sound():
    made = instructions()
    names = [name for name, _ in made]
    allowed = {"FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "VOLUME", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK"}
    assert set(names) <= {*allowed, "ENTRYPOINT", "CMD"}
    images = [rest.split()[0] for name, rest in made if name == "FROM"]
    assert all(re.fullmatch(r"[\w./-]+:[\w.-]+", image) and not image.endswith(":latest") for image in images)
    # what is copied is there, and no key, database or setting can be
    for name, rest in made:
        if name == "COPY" and "--from" not in rest:
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists(), source
                assert source in {"pyproject.toml", "README.md", "LICENSE", "channeld"}
    # nobody is root when it runs
    assert names.index("USER") > len(names) - 1 - names[::-1].index("FROM")
    assert next(rest for name, rest in made if name == "USER") == "10001"
    assert json.loads(next(rest for name, rest in made if name == "ENTRYPOINT")) == ["channeld"]
    known(json.loads(next(rest for name, rest in made if name == "CMD")))
