"""What the model decides of the settings, and what a person who says otherwise gets."""

from pathlib import Path
from typing import Any

import pytest

from selfinstruct_local.cli.generate import _on_or_off
from selfinstruct_local.config.loading import load_settings
from selfinstruct_local.errors import UsageError
from selfinstruct_local.generate.launch import SMALL_WEIGHTS, ChosenModel, fit_to_model, launch
from selfinstruct_local.generate.profiles.registry import PROFILES, check_used, make_profile
from selfinstruct_local.generate.settings import DecidingSettings, GenerateSettings, profile_defaults
from selfinstruct_local.models import check_model_folder
from tests.conftest import RunCli
from tests.scripted_server import ScriptedServer

SERVED = ChosenModel(None, "qwen")
OF_ANSWERS = {"min_confidence": -1.5, "min_output_confidence": -1.0, "answers": "full", "answers_per_task": 3}


@pytest.fixture
def base(bare_model: Path) -> ChosenModel:
    return ChosenModel(check_model_folder(bare_model))


@pytest.fixture
def chat(bare_model: Path) -> ChosenModel:
    (bare_model / "chat_template.jinja").write_text("{{ messages }}")
    return ChosenModel(check_model_folder(bare_model))


def fit(model: ChosenModel, config: Path | None = None, **flags: Any) -> GenerateSettings:
    return fit_to_model(load_settings(GenerateSettings, config, flags), model, config, flags)


def chosen(settings: GenerateSettings) -> tuple[str, str]:
    return settings.profile, settings.prompt_format


def test_every_model_is_asked_by_self_instruct_in_its_own_format(chat: ChosenModel) -> None:
    settings = fit(chat)
    assert chosen(settings) == ("self-instruct", "chat")
    # What the profile brings comes with it.
    brought = profile_defaults("self-instruct", "short")
    assert {name: getattr(settings, name) for name in brought} == brought
    assert (settings.input_share, settings.classification_share) == (0.35, 0.3)
    assert settings.min_confidence is not None


def test_models_that_can_do_more_answer_in_full(chat: ChosenModel) -> None:
    assert (fit(chat).answers, fit(chat).max_tokens) == ("short", 256)
    assert chat.folder is not None
    with (chat.folder.path / "more.safetensors").open("wb") as stream:
        stream.truncate(SMALL_WEIGHTS)  # takes no room on the disk
    settings = fit(chat)
    assert (settings.answers, settings.max_tokens) == ("full", 768)
    magpie = fit(chat, profile="magpie")
    assert (magpie.answers, magpie.max_tokens, magpie.min_output_confidence) == ("full", 1024, None)
    settings = fit(chat, answers="short")
    assert (settings.answers, settings.max_tokens) == ("short", 256)
    assert fit(chat, profile="alpaca").answers == "short"  # which other profiles do not look at


def test_a_base_model_goes_on_from_a_text(base: ChosenModel) -> None:
    settings = fit(base)
    assert chosen(settings) == ("self-instruct", "completion")
    settings = fit(base, profile="alpaca")
    assert chosen(settings) == ("alpaca", "completion")
    assert (settings.threshold, settings.min_confidence) == (0.7, None)


def test_of_a_served_model_nothing_is_known() -> None:
    assert chosen(fit(SERVED)) == ("self-instruct", "completion")
    assert chosen(fit(SERVED, profile="alpaca", prompt_format="chat")) == ("alpaca", "chat")


def test_explicit_flags_win(chat: ChosenModel) -> None:
    assert chosen(fit(chat, profile="alpaca")) == ("alpaca", "chat")
    assert chosen(fit(chat, profile="self-instruct")) == ("self-instruct", "chat")
    assert chosen(fit(chat, prompt_format="completion")) == ("self-instruct", "completion")
    assert chosen(fit(chat, profile="alpaca", prompt_format="completion")) == ("alpaca", "completion")
    assert fit(chat, threshold=0.9, min_confidence=-3.0).thresholds().min_confidence == -3.0
    assert fit(chat, threshold=0.9).threshold == 0.9


def test_yaml_wins_over_the_model_and_flags_over_yaml(tmp_path: Path, chat: ChosenModel) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("profile: alpaca\nprompt_format: completion\nnum: 7\n")
    settings = fit(chat, config)
    assert (*chosen(settings), settings.num) == ("alpaca", "completion", 7)
    assert chosen(fit(chat, config, prompt_format="chat")) == ("alpaca", "chat")
    config.write_text("top_p: 0.5\n")
    settings = fit(chat, config)
    assert (*chosen(settings), settings.top_p) == ("self-instruct", "chat", 0.5)


@pytest.mark.parametrize(
    ("profile", "form"), [("self-instruct", "chat"), ("magpie", "chat"), ("alpaca-2023", "completion")]
)
def test_what_needs_the_files_of_a_served_model_is_refused_without_them(
    chat: ChosenModel, profile: str, form: str
) -> None:
    """The turn of a user, and the number of the end token."""
    with pytest.raises(UsageError) as refused:
        fit(SERVED, profile=profile, prompt_format=form)
    message = str(refused.value)
    assert message.startswith(f"--profile {profile} --prompt-format {form}: ")
    assert "--model" in message
    assert message.endswith("--profile alpaca")
    assert fit(ChosenModel(chat.folder, "qwen"), profile=profile, prompt_format=form).profile == profile
    assert fit(SERVED, profile="self-instruct-2022").profile == "self-instruct-2022"


def test_a_served_profile_that_needs_files_makes_no_run(tmp_path: Path, cli: RunCli) -> None:
    with ScriptedServer() as server:
        for more in ((), ("--dry-run",)):
            done = cli("generate", "--run", tmp_path / "run", "--endpoint", server.url, "--profile", "magpie", *more)
            assert done.returncode == 2
            assert done.stderr.startswith("selfinstruct: --profile magpie --prompt-format chat: ")
            assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("profile", "flags", "users"),
    [
        *(("alpaca", {name: value}, "self-instruct or magpie") for name, value in OF_ANSWERS.items()),
        ("magpie", {"structured": True}, "alpaca"),
        ("self-instruct", {"structured": True}, "alpaca"),
        *(
            (profile, {"instances_per_task": 2}, "self-instruct-2022")
            for profile in ("magpie", "alpaca", "self-instruct")
        ),
    ],
)
def test_a_setting_that_the_profile_makes_no_use_of_is_refused(
    chat: ChosenModel, profile: str, flags: dict[str, Any], users: str
) -> None:
    ((name, value),) = flags.items()
    with pytest.raises(UsageError) as caught:
        check_used(fit(chat, profile=profile, **flags))
    told = "on" if value is True else value
    message = str(caught.value)
    assert message.startswith(f"--{name.replace('_', '-')} {told}: profile '{profile}' ")
    assert message.endswith(f"--profile {users}")
    user, *_ = users.split()
    check_used(fit(chat, profile=user, **flags))


@pytest.mark.parametrize("profile", PROFILES)
def test_settings_that_stand_as_the_profile_has_them_are_no_wish(chat: ChosenModel, profile: str) -> None:
    """As in a file that `config show --profile` wrote."""
    settings = load_settings(GenerateSettings, None, {"profile": profile})
    fitted = fit(chat, **{name: getattr(settings, name) for name in DecidingSettings.model_fields})
    assert fitted == settings
    check_used(fitted)


@pytest.mark.parametrize("profile", ["alpaca-2023", "self-instruct-2022"])
def test_dated_profiles_stay_texts(chat: ChosenModel, profile: str) -> None:
    assert chosen(fit(chat, profile=profile)) == (profile, "completion")


@pytest.mark.parametrize(
    ("flags", "what"),
    [
        ({"profile": "magpie"}, "--profile magpie: bare-model has no chat template; "),
        ({"prompt_format": "chat"}, "--prompt-format chat: bare-model has no chat template; "),
        ({"profile": "magpie", "prompt_format": "completion"}, "--prompt-format completion: profile magpie "),
    ],
)
def test_what_a_base_model_cannot_do_is_refused(base: ChosenModel, flags: dict[str, Any], what: str) -> None:
    with pytest.raises(UsageError) as caught:
        fit(base, **flags)
    assert str(caught.value).startswith(what)
    assert "--profile alpaca" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_magpie_is_no_text_on_a_chat_model_either(chat: ChosenModel) -> None:
    with pytest.raises(UsageError, match=r"^--prompt-format completion: profile magpie"):
        fit(chat, profile="magpie", prompt_format="completion")


@pytest.mark.parametrize("flags", [("--profile", "magpie"), ("--prompt-format", "chat")])
def test_the_command_refuses_in_one_line(tmp_path: Path, bare_model: Path, cli: RunCli, flags: tuple[str, str]) -> None:
    done = cli("generate", "--run", tmp_path / "run", "--model", bare_model, *flags)
    assert done.returncode == 2
    assert done.stderr.startswith(f"selfinstruct: {' '.join(flags)}: bare-model has no chat template; ")
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_structured_is_on_off_or_auto(tmp_path: Path) -> None:
    assert [_on_or_off("--structured", value) for value in ("on", "off", "auto")] == [True, False, None]
    with pytest.raises(UsageError, match=r"^--structured maybe: .*on, off or auto$"):
        _on_or_off("--structured", "maybe")
    config = tmp_path / "c.yaml"
    config.write_text("structured: true\n")
    told = {
        value: load_settings(GenerateSettings, config, {"structured": _on_or_off("--structured", value)}).structured
        for value in ("on", "off", "auto")
    }
    assert told == {"on": True, "off": False, "auto": True}
    assert not load_settings(GenerateSettings, None, {"structured": None}).structured


def test_structured_output_has_prompts_of_its_own() -> None:
    on, off = (
        make_profile(load_settings(GenerateSettings, None, {"profile": "alpaca", "structured": each})).prompts
        for each in (True, False)
    )
    assert on != off


def test_a_model_that_is_not_served_is_not_asked_of_servers(chat: ChosenModel, tmp_path: Path) -> None:
    settings = load_settings(GenerateSettings, None, {"endpoint": ["http://127.0.0.1:9/v1"]})
    with pytest.raises(UsageError, match="--endpoint"):
        launch(chat, settings, tmp_path / "engine.log")


def test_what_is_only_served_is_not_loaded_here(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="only served"):
        launch(SERVED, load_settings(GenerateSettings, None, {}), tmp_path / "engine.log")
    assert SERVED.facts() == {
        "model_path": "qwen",
        "model_fingerprint": "served as qwen",
        "adapter_fingerprint": None,
    }


@pytest.mark.parametrize(
    ("flags", "own_seeds", "subject"),
    [
        ({}, True, "seeds"),
        ({}, False, "any"),
        ({"subject": "any"}, True, "any"),
        ({"subject": "seeds"}, False, "seeds"),
        ({"profile": "alpaca"}, True, "any"),
    ],
)
def test_new_tasks_keep_to_the_field_of_own_seeds(
    base: ChosenModel, flags: dict[str, str], subject: str, *, own_seeds: bool
) -> None:
    settings = load_settings(GenerateSettings, None, flags)
    assert fit_to_model(settings, base, None, flags, own_seeds=own_seeds).subject == subject
