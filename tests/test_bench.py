import numpy as np
import orjson

from selfinstruct_local.cli.bench_run import CHARACTERS, _brute_force, as_strings, bench_filter
from selfinstruct_local.kernels import encode
from tests.conftest import RunCli
from tests.filters.test_decide import instructions


def test_the_filter_is_timed_beside_its_peers_and_decides_as_they_do() -> None:
    result = bench_filter(instructions(400, seed=3))
    assert 0 < result.kept < 400
    assert len(result.timings) == 6
    assert all(timing.seconds > 0 for timing in result.timings)
    compared = [timing.note for timing in result.timings if "decisions compared" in timing.note]
    assert len(compared) == 2
    assert all("none differ" in note for note in compared)


def test_more_tokens_than_characters_leave_one_timing_out() -> None:
    encoded = encode([" ".join(f"t{number}" for number in range(CHARACTERS + 1))])
    timing = _brute_force(encoded, np.ones(1, np.bool_), 0.7)
    assert np.isnan(timing.seconds)
    assert timing.note == f"not measured: more than {CHARACTERS} distinct tokens"
    assert len(as_strings(encode([" ".join(f"t{number}" for number in range(CHARACTERS))]))[0]) == CHARACTERS


def test_the_command_prints_a_table_and_json(cli: RunCli) -> None:
    done = cli("bench", "filter")
    assert done.returncode == 0, done.stderr
    assert "one thread" in done.stdout
    record = orjson.loads(cli("bench", "filter", "--json").stdout)
    assert record["kept"] == record["texts"]
