"""The model of an engine behaves as one; the loops around it decide the same jobs."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import simulate_gpu
from gpu_model import H100, LLAMA_7B, LLAMA_8B, InFlight, Replica, rates
from simulate_gpu import IDEAL, SHAPE, Outcome, Shape


def drain(engine: Replica) -> list[int]:
    ended = []
    while engine.held:
        ended += [each.job for each in engine.step()]
    return ended


def test_a_step_for_one_request_reads_the_weights_once() -> None:
    # 8.03e9 parameters of two bytes at 3.35 TB/s and 75 %, and the host.
    assert rates(H100, LLAMA_8B).decode(1, 0) == pytest.approx(6.40e-3, rel=0.01)
    assert rates(H100, LLAMA_7B).cache == pytest.approx(117_600, rel=0.01)


def test_requests_join_between_steps_and_the_shortest_ends_first() -> None:
    engine = Replica(IDEAL, slots=2)
    engine.waiting.extend(InFlight(job, 10, length) for job, length in enumerate((5, 2, 1)))
    assert drain(engine) == [1, 2, 0]
    assert engine.clock == engine.busy == 5
    assert engine.running_seconds == 5 + 2 + 1


def test_many_steps_at_once_take_as_long_as_one_by_one() -> None:
    clocks = []
    for most in (1, 1_000):
        engine = Replica(rates(H100, LLAMA_7B), slots=8)
        engine.waiting.extend(InFlight(job, 100 + job, 50 + 20 * job) for job in range(20))
        while engine.held:
            engine.step(most)
        clocks.append(engine.clock)
    assert clocks[0] == pytest.approx(clocks[1])


def test_a_full_cache_puts_the_latest_back_and_all_are_answered_once() -> None:
    engine = Replica(IDEAL._replace(cache=100), slots=8)
    engine.waiting.extend(InFlight(job, 20, 30) for job in range(8))
    assert sorted(drain(engine)) == list(range(8))
    assert engine.preempted > 0
    assert engine.running_seconds == 8 * 30


def run(window: int, *, count: int = 1, rate: float = 1e9, shape: Shape = SHAPE) -> Outcome:
    engines = [Replica(IDEAL, 16) for _ in range(count)]
    return simulate_gpu.scheduled(engines, window, rate, shape=shape, wanted=600)


def test_the_same_jobs_are_decided_whatever_the_loop() -> None:
    outcomes = [run(16), run(128), run(128, count=4), run(128, rate=0.1)]
    outcomes.append(simulate_gpu.published([Replica(IDEAL, 16)], 1, wanted=600))
    assert len({(each.jobs, each.tokens) for each in outcomes}) == 1
    assert run(128) == run(128)


def test_a_wider_window_fills_the_slots_and_sees_less_of_the_pool() -> None:
    narrow, wide = run(16), run(128)
    assert narrow.unfilled is not None
    assert wide.unfilled is not None
    assert narrow.unfilled > 0.2
    assert wide.unfilled < 0.01
    assert narrow.seen > wide.seen
    assert narrow.blind < wide.blind
    assert wide.seconds < narrow.seconds


def test_slow_decisions_leave_slots_unfilled() -> None:
    # 16 slots give a job every 35 steps: with 70 steps a decision, generation is what waits.
    slow = run(128, rate=1 / 70)
    assert 70 * slow.jobs <= slow.seconds < 1.3 * 70 * slow.jobs
    assert slow.empty > 0.1


def test_the_published_loop_waits_for_the_slowest_and_compares_with_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulate_gpu, "COMPARISON_SECONDS", 0.0)
    outcome = simulate_gpu.published([Replica(IDEAL, 16)], 5, wanted=200)
    lengths = [simulate_gpu.work_of(job, SHAPE).length for job in range(outcome.jobs)]
    assert outcome.seconds == sum(max(lengths[start : start + 5]) for start in range(0, outcome.jobs, 5))
    assert outcome.tokens == sum(lengths)
    assert outcome.empty == 0
    monkeypatch.setattr(simulate_gpu, "COMPARISON_SECONDS", 1.0)
    assert simulate_gpu.published([Replica(IDEAL, 16)], 5, wanted=200).empty > 0
