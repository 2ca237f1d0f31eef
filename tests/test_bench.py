import orjson

from selfinstruct_local.bench import bench_filter
from tests.conftest import RunCli
from tests.filter.test_decide import instructions


def test_the_filter_is_timed_beside_its_peers_and_decides_as_they_do() -> None:
    result = bench_filter(instructions(400, seed=3))
    assert 0 < result.kept < 400
    assert len(result.timings) == 6
    assert all(timing.seconds > 0 for timing in result.timings)
    compared = [timing.note for timing in result.timings if "decisions compared" in timing.note]
    assert len(compared) == 2
    assert all("none differ" in note for note in compared)


def test_the_command_prints_a_table_and_json(cli: RunCli) -> None:
    done = cli("bench", "filter")
    assert done.returncode == 0, done.stderr
    assert "one thread" in done.stdout
    record = orjson.loads(cli("bench", "filter", "--json").stdout)
    assert record["kept"] == record["texts"]
