"""`filter --run`: a run decided again from its ledger."""

from pathlib import Path

import orjson
import pytest

from selfinstruct_local.filters.rulesets import RULE_SETS, rule_set
from selfinstruct_local.runs.rejudge import new_run
from selfinstruct_local.runs.store import RunStore
from tests.conftest import RunCli
from tests.filters.test_decide import published_greedy
from tests.generate.test_run import generate, pool, settings
from tests.scripted_engine import ScriptedEngine


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ledger") / "run"
    generate(folder, settings(num=60, profile="alpaca"), ScriptedEngine())
    return folder


def test_the_same_rules_give_the_same_tasks(run: Path, tmp_path: Path, cli: RunCli) -> None:
    done = cli("filter", "--run", run, "--out", tmp_path / "out.json", "--json", "--verify", 50)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.json").read_bytes() == pool(run)
    with RunStore(run, read_only=True) as store:
        assert orjson.loads(done.stdout)["rejected"] == store.totals().rejected


def test_another_threshold_decides_as_the_published_loop_would(run: Path, tmp_path: Path, cli: RunCli) -> None:
    flags = (
        "--threshold",
        0.45,
        "--rules",
        "none",
        "--out",
        tmp_path / "out.jsonl",
        "--rejects",
        tmp_path / "no.jsonl",
    )
    done = cli("filter", "--run", run, *flags)
    assert done.returncode == 0, done.stderr
    with RunStore(run, read_only=True) as store:
        seeds = [seed.instruction for seed in store.seeds()]
        # What the parser refused stands; all the rest is decided, rejects of the rules among them.
        parsed = [
            each.task
            for job in store.ledger()
            for each in job.decided.candidates
            if each.verdict.rule not in {"truncated", "malformed"}
        ]
    decisions = published_greedy([task.instruction for task in parsed], 0.45, known=seeds)
    kept = [task.instruction for task, decision in zip(parsed, decisions, strict=True) if decision is None]
    written = [orjson.loads(line)["instruction"] for line in (tmp_path / "out.jsonl").read_bytes().splitlines()]
    assert written == kept
    rejected = [orjson.loads(line)["rejected"] for line in (tmp_path / "no.jsonl").read_bytes().splitlines()]
    near = [each for each in rejected if each["rule"] == "not_novel"]
    assert near
    assert all(each["score"] > 0.45 and each["neighbor"] for each in near)
    assert len(near) == len(parsed) - len(kept)


def test_into_a_new_run_that_goes_on(run: Path, tmp_path: Path, cli: RunCli) -> None:
    new = tmp_path / "new"
    done = cli("filter", "--run", run, "--into", new, "--threshold", 0.5, "--out", tmp_path / "out.json")
    assert done.returncode == 0, done.stderr
    with RunStore(run, read_only=True) as old, RunStore(new, read_only=True) as store:
        assert store.facts() == {**old.facts(), "threshold": 0.5}
        totals = store.totals()
        assert totals.jobs == old.totals().jobs
        assert 0 < totals.accepted < old.totals().accepted
        accepted = [task.instruction for task in store.accepted()]
    assert [record["instruction"] for record in orjson.loads((tmp_path / "out.json").read_bytes())] == accepted
    assert generate(new, settings(num=70, threshold=0.5, profile="alpaca"), ScriptedEngine()).reason == "done"
    assert [record["instruction"] for record in orjson.loads(pool(new))][: len(accepted)] == accepted
    again = cli("filter", "--run", run, "--into", new)
    assert again.returncode == 2
    assert f"--into {new}: already exists" in again.stderr


def test_a_new_run_is_whole_or_absent(run: Path, tmp_path: Path) -> None:
    def break_off() -> None:
        with RunStore(run, read_only=True) as old, new_run(tmp_path / "new", old, threshold=0.5) as new:
            new.copy_jobs(old.ledger())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        break_off()
    assert not list(tmp_path.iterdir())


def test_a_known_file_that_cannot_be_read_leaves_no_run(run: Path, tmp_path: Path, cli: RunCli) -> None:
    known = tmp_path / "known.jsonl"
    known.write_text("torn")
    done = cli("filter", "--run", run, "--into", tmp_path / "new", "--against", known)
    assert (done.returncode, f"{known}:1: not JSON" in done.stderr) == (2, True)
    assert list(tmp_path.iterdir()) == [known]


def test_a_bare_instruction_that_was_screened_out_stays_out(tmp_path: Path, cli: RunCli) -> None:
    run = tmp_path / "run"
    generate(run, settings(num=20, profile="self-instruct"), ScriptedEngine())
    assert cli("filter", "--run", run, "--rules", "none", "--out", tmp_path / "out.jsonl").returncode == 0
    with RunStore(run, read_only=True) as store:
        candidates = [each for job in store.ledger() for each in job.decided.candidates]
    screened_out = {each.task.instruction for each in candidates if each.task.instruction and not each.task.instances}
    written = {orjson.loads(line)["instruction"] for line in (tmp_path / "out.jsonl").read_bytes().splitlines()}
    assert screened_out
    assert not screened_out & written


def test_known_files_count_too(run: Path, tmp_path: Path, cli: RunCli) -> None:
    first = orjson.loads(pool(run))[0]
    (tmp_path / "known.jsonl").write_bytes(orjson.dumps(first))
    flags = ("--against", tmp_path / "known.jsonl", "--out", tmp_path / "out.json", "--rejects", tmp_path / "no.jsonl")
    assert cli("filter", "--run", run, *flags).returncode == 0
    assert first["instruction"] not in {
        each["instruction"] for each in orjson.loads((tmp_path / "out.json").read_bytes())
    }
    neighbors = {orjson.loads(line)["rejected"].get("neighbor") for line in (tmp_path / "no.jsonl").open("rb")}
    assert f"{tmp_path / 'known.jsonl'}:1" in neighbors


def test_bad_use_is_one_line(run: Path, tmp_path: Path, cli: RunCli) -> None:
    out = tmp_path / "out.json"
    cases = [
        (("filter", "--out", out), "name either files of tasks, or a run"),
        (("filter", out, "--run", run, "--out", out), "name either files of tasks, or a run"),
        (("filter", "--run", run), "--out is missing"),
        (
            ("filter", "--run", run, "--out", out, "--tokenizer", "unicode"),
            "--tokenizer unicode: --lang",
        ),
        (("filter", "--run", run, "--out", out, "--prefilter", "minhash"), "one of exact, none, auto"),
        (("filter", "--run", tmp_path / "none", "--out", out), "run.sqlite is missing"),
        (
            ("filter", "--run", run, "--into", tmp_path / "new", "--out", tmp_path / "new" / "out.json"),
            f"--out {tmp_path / 'new' / 'out.json'}: is in the folder that --into",
        ),
        (("filter", "--run", run, "--out", run / "run.sqlite"), "run.sqlite: the name is reserved"),
    ]
    for arguments, wanted in cases:
        done = cli(*arguments)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
        assert wanted in done.stderr


def test_verify_is_refused_where_the_run_is_chinese(tmp_path: Path, cli: RunCli) -> None:
    with RunStore(tmp_path / "run") as store:
        store.create({"lang": "zh", "rules": "alpaca", "threshold": 0.7}, [])
    done = cli("filter", "--run", tmp_path / "run", "--out", tmp_path / "out.json", "--verify", 5)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert "--verify: rouge_score sees only a-z and 0-9" in done.stderr


def test_rule_names_and_parser_names_do_not_meet() -> None:
    from selfinstruct_local.generate.parsing.tasks import MALFORMED, REFUSED_PROMPT, TRUNCATED
    from selfinstruct_local.runs.rejudge import DECIDED_HERE

    names = {MALFORMED, TRUNCATED, REFUSED_PROMPT}
    assert not names & DECIDED_HERE
    assert {rule.name for name in RULE_SETS for rule in rule_set(name)} < DECIDED_HERE
    assert "low_confidence" in DECIDED_HERE
    assert "prompt_echo" not in DECIDED_HERE
