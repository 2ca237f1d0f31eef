from pathlib import Path

import pytest

from selfinstruct_local.config.loading import load_settings
from selfinstruct_local.errors import UsageError
from selfinstruct_local.filters.thresholds import Thresholds
from selfinstruct_local.generate.settings import GenerateSettings


def test_flags_win_over_yaml_and_yaml_over_defaults(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("num: 7\nthreshold: 0.6\nengine:\n  in_flight: 3\n")
    flags = {"threshold": 0.5, "num": None, "dtype": "float32"}
    settings = load_settings(GenerateSettings, config, flags)
    assert (settings.num, settings.threshold, settings.temperature) == (7, 0.5, 0.8)
    assert (settings.engine.in_flight, settings.engine.dtype) == (3, "float32")


def test_rules_and_window_follow_from_the_others() -> None:
    settings = load_settings(GenerateSettings, None, {"profile": "self-instruct-2022", "in_flight": 5})
    assert (settings.rules, settings.window) == ("self-instruct-2022", 40)


def test_the_window_of_jobs_that_hold_several_requests_is_in_jobs() -> None:
    settings = load_settings(GenerateSettings, None, {"in_flight": 10})
    assert (settings.profile, settings.tasks_per_prompt, settings.rules) == ("self-instruct", 4, "alpaca")
    assert settings.window == 5  # twice the jobs that hold 10 requests
    assert load_settings(GenerateSettings, None, {"in_flight": 10, "tasks_per_prompt": 20}).window == 1


def test_executing_settings_do_not_decide() -> None:
    settings = load_settings(GenerateSettings, None, {"num": 5, "window": 9})
    assert not set(settings.deciding()) & set(settings.executing())
    assert "num" in settings.executing()
    assert settings.deciding()["window"] == 9


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("nmu: 5", "nmu: no such setting"),
        ("engine:\n  flight: 5", "engine.flight: no such setting"),
        ("num: many", "num: "),
        ("engine: 5", "engine: "),
        ("- 1", "not a mapping"),
        ("num: !!python/object/apply:os.getcwd []", "not plain YAML"),
        ("num: [", "not plain YAML"),
    ],
)
def test_bad_yaml_is_named(tmp_path: Path, text: str, wanted: str) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(text)
    with pytest.raises(UsageError) as caught:
        load_settings(GenerateSettings, config, {})
    assert str(config) in str(caught.value)
    assert wanted in str(caught.value)


@pytest.mark.parametrize("text", ["", "# num: 5\n"])
def test_a_file_of_comments_alone_leaves_the_defaults(tmp_path: Path, text: str) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(text)
    assert load_settings(GenerateSettings, config, {}) == GenerateSettings.model_validate({})


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        ({"threshold": 1.5}, "--threshold 1.5: "),
        ({"in_flight": 0}, "--in-flight 0: "),
        ({"profile": "davinci"}, "--profile davinci: "),
        ({"max_tokens": -1}, "--max-tokens -1: "),
    ],
)
def test_a_bad_flag_is_named(flags: dict[str, object], wanted: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_settings(GenerateSettings, None, flags)
    assert str(caught.value).startswith(wanted)


def test_a_missing_config_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        load_settings(GenerateSettings, tmp_path / "none.yaml", {})


@pytest.mark.parametrize("flags", [{"profile": "alpaca-2023"}, {"rules": "self-instruct-2022"}])
def test_what_is_dated_is_english_only(flags: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=r"^--lang zh: .* 2022 and 2023 .*English"):
        load_settings(GenerateSettings, None, {"lang": "zh", **flags})


def test_the_limits_are_those_of_the_settings() -> None:
    flags = {"profile": "alpaca", "max_repetition": 0.4, "min_output_confidence": -2.0}
    settings = load_settings(GenerateSettings, None, flags)
    assert settings.thresholds() == Thresholds(max_repetition=0.4, min_output_confidence=-2.0)
    assert Thresholds.of({"max_echo": 0.5, "seed": 3}) == Thresholds(max_echo=0.5)
