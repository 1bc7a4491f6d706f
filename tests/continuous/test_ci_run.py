"""`.ci/run`: it brings what tests want where it can, and runs the tests whatever comes of that."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from scripts import ROOT

TOOLS = ("bash", "dirname", "grep", "id", "mktemp", "rm", "tail", "timeout")
SYSTEM = {name: shutil.which(name) for name in TOOLS}


def ci_run(folder: Path, apt: str | None, *present: str) -> subprocess.CompletedProcess[str]:
    """It, in a project whose tests say that they ran and fail, and with only these programs to be found."""
    programs = folder / "bin"
    for place in (programs, folder / ".ci", folder / "scripts"):
        place.mkdir()
    for name, path in SYSTEM.items():
        assert path is not None
        (programs / name).symlink_to(path)
    scripts = {"scripts/test": 'echo "tests ran with $*"; exit 7', **{f"bin/{p}": "exit 0" for p in present}}
    if apt is not None:
        scripts["bin/apt-get"] = f'echo "$*" >>"{folder}/apt.log"\n{apt}'
    for name, text in scripts.items():
        (folder / name).write_text(f"#!{SYSTEM['bash']}\n{text}\n")
        (folder / name).chmod(0o755)
    shutil.copy(ROOT / ".ci" / "run", folder / ".ci" / "run")
    return subprocess.run(
        [str(SYSTEM["bash"]), str(folder / ".ci" / "run"), "-k", "one"],
        env={"PATH": str(programs), "HOME": str(folder)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def calls(folder: Path) -> list[str]:
    log = folder / "apt.log"
    return log.read_text().splitlines() if log.exists() else []


def test_nothing_is_installed_that_is_there(tmp_path: Path) -> None:
    done = ci_run(tmp_path, "exit 0", "google-chrome", "redis-server")
    assert (done.returncode, done.stdout) == (7, "tests ran with -k one\n")
    assert calls(tmp_path) == []


@pytest.mark.skipif(os.getuid() != 0, reason="apt-get is for root")
def test_what_is_missing_is_installed(tmp_path: Path) -> None:
    done = ci_run(tmp_path, "exit 0", "chromium")
    assert (done.returncode, done.stdout) == (7, ".ci/run: installing redis-server\ntests ran with -k one\n")
    update, install = calls(tmp_path)
    assert update.endswith(" update")
    assert install.endswith(" install --yes --no-install-recommends redis-server")


@pytest.mark.skipif(os.getuid() != 0, reason="apt-get is for root")
@pytest.mark.parametrize("command", ["update", "install"])
def test_no_network_is_said_and_the_tests_run(tmp_path: Path, command: str) -> None:
    apt = f'[[ "$*" == *{command}* ]] || exit 0; echo "E: cannot resolve the mirror" >&2; exit 100'
    done = ci_run(tmp_path, apt)
    assert done.returncode == 7
    assert "goes on without chromium redis-server: E: cannot resolve the mirror\ntests ran with" in done.stdout


def test_no_apt_get_is_said_and_the_tests_run(tmp_path: Path) -> None:
    done = ci_run(tmp_path, None)
    assert done.returncode == 7
    assert "goes on without chromium redis-server: there is no apt-get\ntests ran with" in done.stdout
