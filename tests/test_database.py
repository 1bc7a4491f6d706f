"""Cases that campaigns leave each other, in a folder or on a Redis server; and Hypothesis's own databases there."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from campaigns import Heard, a_plan, counts
from clusters import ended, environment, free_port, run_cli, until

from qfuzz.campaign.crew import LocalCrew
from qfuzz.campaign.plan import Plan
from qfuzz.campaign.run import Campaign
from qfuzz.campaign.saved import SavedCases
from qfuzz.campaign.state import State
from qfuzz.findings.finding import write_finding
from qfuzz.ir.errors import CampaignFailed, InvalidCase
from qfuzz.ops import CODEC
from qfuzz.strategies.database import Database, open_database

SPEC = "planted?fault=truncation"
HONEST = "planted?fault=none"


def the_plan(*specs: str, seed: int = 5, n: int = 60) -> Plan:
    return a_plan(*specs, seed=seed, n=n, ops=("linear",), max_nodes=1)


def fuzz(plan: Plan, database: Database | None, folder: Path, heard: Heard | None = None) -> Campaign:
    crew = LocalCrew(plan.profile.specs, 1)
    saved = None if database is None else SavedCases(database, plan.profile.specs)
    try:
        with State.create(folder, plan) as state:
            campaign = Campaign(
                plan,
                crew,
                state,
                (),
                lambda found: str(write_finding(folder, found.finding(), None)),
                heard or Heard(),
                saved=saved,
            )
            campaign.run()
    finally:
        crew.close()
    return campaign


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[str]:
    """A Redis server of the test's own, that keeps nothing."""
    pytest.importorskip("redis", reason="the redis package is not installed: pip install 'qfuzz[redis]'")
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed")
    port = free_port()
    arguments = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(tmp_path)]
    with (tmp_path / "redis.log").open("wb") as log:
        server = subprocess.Popen([program, *arguments], stdout=log, stderr=log)
    try:
        until(lambda: b"eady to accept connections" in (tmp_path / "redis.log").read_bytes(), "a Redis server", 10)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.kill()
        server.wait()


@pytest.fixture(params=["folder", "redis"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "shared") if request.param == "folder" else str(request.getfixturevalue("redis"))


def test_what_one_campaign_found_the_next_one_checks_first(where: str, tmp_path: Path) -> None:
    first = fuzz(the_plan(SPEC, HONEST), open_database(where), tmp_path / "1")
    (found,) = first.findings.values()
    assert open_database(where).fetch(SPEC) == [found.case]
    assert open_database(where).fetch(HONEST) == []

    # One example of another seed shows nothing by itself.
    plan = the_plan(SPEC, HONEST, seed=1, n=1)
    alone = fuzz(plan, None, tmp_path / "2")
    assert not alone.findings
    second = fuzz(plan, open_database(where), tmp_path / "3")
    assert counts(second) == counts(alone), "what shards give does not depend on the database"
    (again,) = second.findings.values()
    assert (again.signature, again.case, again.first_example) == (found.signature, found.case, None)
    assert Path(second.paths[again.signature.text], "case.json").read_bytes() == found.case
    assert open_database(where).fetch(SPEC) == [found.case]


def test_findings_of_shards_are_the_same_with_a_database(tmp_path: Path) -> None:
    without = fuzz(the_plan(SPEC), None, tmp_path / "1")
    database = open_database(str(tmp_path / "shared"))
    fuzz(the_plan(SPEC), database, tmp_path / "2")
    again = fuzz(the_plan(SPEC), database, tmp_path / "3")

    def facts(campaign: Campaign) -> object:
        return {t: (f.case, f.first_example, f.backends, f.reduction) for t, f in campaign.findings.items()}

    assert facts(again) == facts(without)
    assert counts(again) == counts(without)


def test_cases_that_fail_no_longer_are_forgotten(where: str, tmp_path: Path) -> None:
    (found,) = fuzz(the_plan(SPEC), None, tmp_path / "1").findings.values()
    database = open_database(where)
    database.save(HONEST, found.case)  # as if this backend had been mended
    campaign = fuzz(the_plan(HONEST, n=1), database, tmp_path / "2")
    assert not campaign.findings
    assert database.fetch(HONEST) == []


def test_what_a_backend_does_not_support_is_kept(tmp_path: Path) -> None:
    (found,) = fuzz(the_plan(SPEC), None, tmp_path / "1").findings.values()
    database = open_database(str(tmp_path / "shared"))
    database.save("misbehaving:HasNoKernel", found.case)
    fuzz(the_plan("misbehaving:HasNoKernel", n=1), database, tmp_path / "2")
    assert database.fetch("misbehaving:HasNoKernel") == [found.case]


def test_the_smallest_case_replaces_larger_ones(tmp_path: Path) -> None:
    (found,) = fuzz(the_plan(SPEC), None, tmp_path / "1").findings.values()
    unreduced = fuzz(msgspec.structs.replace(the_plan(SPEC), reduce=False), None, tmp_path / "2").findings.values()
    larger = next(iter(unreduced)).case
    assert larger != found.case
    database = open_database(str(tmp_path / "shared"))
    database.save(SPEC, larger)
    campaign = fuzz(the_plan(SPEC, n=1), database, tmp_path / "3")
    kept = [f.case for f in campaign.findings.values()]
    assert database.fetch(SPEC) == sorted(kept)
    assert larger not in kept


def test_what_is_no_case_is_left_alone(tmp_path: Path) -> None:
    database = open_database(str(tmp_path / "shared"))
    for junk in (b"", b"{}", b"\xff\xfe", b'{"format": "qfuzz-case/9999"}'):
        database.save(SPEC, junk)
    heard = Heard()
    fuzz(the_plan(SPEC, n=1), database, tmp_path / "1", heard)
    assert len(heard.troubles) == 4
    assert len(database.fetch(SPEC)) == 4


def test_a_crash_is_revisited_too(tmp_path: Path) -> None:
    plan = a_plan("misbehaving:Segfault", n=40, ops=("add",), max_nodes=1)
    database = open_database(str(tmp_path / "shared"))
    (found,) = fuzz(plan, database, tmp_path / "1").findings.values()
    later = fuzz(the_plan("misbehaving:Segfault", n=1), database, tmp_path / "2")
    assert [f.signature for f in later.findings.values()] == [found.signature]


@pytest.mark.parametrize("spec", ["redis://host:port/0", "http://example.invalid/", "redis:///0", "redis://h:1/x", "f"])
def test_nonsense_is_one_line(spec: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("a file")
    name = str(tmp_path / "f") if spec == "f" else spec
    with pytest.raises(InvalidCase, match="database"):
        open_database(name)
    code, out, err = ended(run_cli("-b", "reference", "--database", name, "--out", "out", folder=tmp_path))
    assert (code, out, len(err)) == (2, "", 1), err
    assert not (tmp_path / "out").exists()


def test_a_server_that_is_down_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("redis", reason="the redis package is not installed: pip install 'qfuzz[redis]'")
    name = f"redis://user:secret@127.0.0.1:{free_port()}/0"
    code, out, err = ended(run_cli("-b", "reference", "--database", name, "--out", "out", folder=tmp_path))
    assert (code, out, len(err)) == (3, "", 1), err
    assert "secret" not in err[0]
    assert not (tmp_path / "out").exists()


def test_redis_is_an_extra(tmp_path: Path) -> None:
    arguments = ("-b", "reference", "--database", "redis://127.0.0.1:1/0", "--out", "out")
    code, out, err = ended(run_cli(*arguments, folder=tmp_path, before="import sys; sys.modules['redis'] = None"))
    assert (code, out, len(err)) == (3, "", 1), err
    assert err[0].endswith("pip install 'qfuzz[redis]'")


class Down:
    """A database that cannot be reached after the first look, until `up`."""

    def __init__(self, inner: Database) -> None:
        self.inner, self.up = inner, False

    def fetch(self, spec: str) -> list[bytes]:
        return self.inner.fetch(spec)

    def save(self, spec: str, case: bytes) -> None:
        if not self.up:
            raise CampaignFailed("database x: connection refused")
        self.inner.save(spec, case)

    def delete(self, spec: str, case: bytes) -> None:
        self.save(spec, case)


def test_a_server_that_goes_down_stops_nothing(tmp_path: Path) -> None:
    """All is done and kept but for what belongs there, which the next run in that folder leaves there."""
    down = Down(open_database(str(tmp_path / "shared")))
    plan, heard = the_plan(SPEC), Heard()
    with pytest.raises(CampaignFailed, match="all else is done"):
        fuzz(plan, down, tmp_path / "out", heard)  # type: ignore[arg-type]
    assert any("connection refused" in t for t in heard.troubles)
    with State.open(tmp_path / "out") as state:
        assert state.snapshot().tally.examples == 60
        (found,) = state.snapshot().findings.values()
        crew = LocalCrew(plan.profile.specs, 1)
        down.up = True
        try:
            saved = SavedCases(down, plan.profile.specs)
            Campaign(plan, crew, state, (), lambda _: "", Heard(), saved=saved).run()
        finally:
            crew.close()
    assert down.fetch(SPEC) == [found.case]


def test_the_command_line_resumes_with_its_database(tmp_path: Path) -> None:
    arguments = ("-b", SPEC, "--ops", "linear", "--max-nodes", "1", "--seed", "5", "--out", "out")
    code, _, err = ended(run_cli(*arguments, "--max-examples", "60", "--database", "shared", folder=tmp_path))
    assert code == 1, err
    database = open_database(str(tmp_path / "shared"))
    (case,) = database.fetch(SPEC)
    assert CODEC.decode(case).case.network.nodes[0].op.name == "linear"
    database.delete(SPEC, case)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    code, _, err = ended(run_cli("--resume", "../out", "--max-examples", "70", folder=elsewhere))
    assert code == 1, err
    assert database.fetch(SPEC) == [case]


def snippets() -> list[str]:
    """The Python examples of CAMPAIGNS.md."""
    text = Path(__file__).parents[1].joinpath("qfuzz", "CAMPAIGNS.md").read_text()
    return [part.split("```")[0] for part in text.split("```python\n")[1:]]


def test_the_documented_database_of_a_users_tests(redis: str, tmp_path: Path) -> None:
    """A failure that CI found is replayed at a desk, which reads CI's database and writes its own."""
    settings = snippets()[0].replace("redis://ci.example:6379/0", redis)
    (tmp_path / "conftest.py").write_text(settings)
    (tmp_path / "test_it.py").write_text(
        "from hypothesis import given, strategies as st\n\n\n"
        "@given(st.integers())\ndef test_it(x: int) -> None:\n    print('saw', x)\n    assert x < 1000\n"
    )

    def run(profile: str) -> str:
        command = [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider"]
        command.append(f"--hypothesis-profile={profile}")
        done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True)
        assert done.returncode == 1, done.stdout + done.stderr
        return done.stdout

    run("shared-ci")
    assert run("desk").split("saw ")[1].startswith("1000"), "the first example is CI's smallest failure"
