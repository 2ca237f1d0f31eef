"""The profiles by name, their descriptions, and the prompt facts that a run records."""

import hashlib
import itertools
from typing import Any

from selfinstruct_local.errors import UsageError
from selfinstruct_local.generate.job import Profile
from selfinstruct_local.generate.profiles.alpaca import AlpacaProfile
from selfinstruct_local.generate.profiles.judge import JudgedProfile
from selfinstruct_local.generate.profiles.magpie import MagpieProfile
from selfinstruct_local.generate.profiles.published import Alpaca2023Profile, SelfInstruct2022Profile
from selfinstruct_local.generate.profiles.self_instruct import SelfInstructProfile
from selfinstruct_local.generate.settings import (
    ENGLISH_ONLY,
    DecidingSettings,
    GenerateSettings,
    ProfileName,
    profile_defaults,
)
from selfinstruct_local.languages.base import LANGUAGES
from selfinstruct_local.prompts import Prompts

PROFILES: dict[
    ProfileName,
    type[AlpacaProfile | SelfInstructProfile | MagpieProfile | Alpaca2023Profile | SelfInstruct2022Profile],
] = {
    "alpaca": AlpacaProfile,
    "self-instruct": SelfInstructProfile,
    "magpie": MagpieProfile,
    "alpaca-2023": Alpaca2023Profile,
    "self-instruct-2022": SelfInstruct2022Profile,
}


def make_profile(settings: DecidingSettings) -> Profile:
    """Return the profile that the settings name, wrapped in a judge if `judge` is set."""
    profile = PROFILES[settings.profile](settings)
    return JudgedProfile(profile, settings) if settings.judge else profile


def check_used(settings: DecidingSettings) -> None:
    """Raise if a setting that the profile does not use differs from its default.

    Raises:
        UsageError: there is such a setting; the message names it and the profiles that use it.
    """
    own = profile_defaults(settings.profile, settings.answers)
    for name in sorted(PROFILES[settings.profile].unused):
        value = getattr(settings, name)
        if value != own.get(name, DecidingSettings.model_fields[name].default):
            users = " or ".join(each for each, profile in PROFILES.items() if name not in profile.unused)
            told = ("off", "on")[value] if isinstance(value, bool) else value
            message = (
                f"--{name.replace('_', '-')} {told}: profile '{settings.profile}' does not use it; leave it out, "
                f"or use --profile {users}"
            )
            raise UsageError(message)


def describe_profile(name: ProfileName) -> dict[str, Any]:
    """Return a description of a profile for users, as JSON values.

    Args:
        name: a key of `PROFILES`.
    """
    profile = PROFILES[name]
    # Validated, so that the profile's defaults override the general ones.
    settings = GenerateSettings.model_validate({"profile": name})
    return {
        "profile": name,
        "summary": profile.summary,
        "prompts": list(make_profile(settings).prompts),
        "demonstrations": {"shown": profile.demonstrations, "of_them_machine_made": profile.machine_made},
        "asks_for": {each: getattr(settings, each) for each in ("tasks_per_prompt", "instances_per_task")},
        "sampling": {each: getattr(settings, each) for each in ("temperature", "top_p", "max_tokens")},
        "rules": settings.rules,
        "prompt_format": settings.prompt_format,
        "defects_kept": list(profile.defects_kept),
    }


def prompts_of(name: ProfileName) -> list[str]:
    """Return the names of all prompts that a profile uses under some settings, sorted.

    Args:
        name: a key of `PROFILES`.
    """
    choices: dict[str, tuple[Any, ...]] = {
        "lang": ("en",) if name in ENGLISH_ONLY else LANGUAGES,
        "prompt_format": ("completion", "chat"),
        "answers": ("short", "full"),
        "structured": (False, True),
        "instances_per_task": (1, 2),
        "judge": (False, True),
    }
    found: set[str] = set()
    for values in itertools.product(*choices.values()):
        settings = GenerateSettings.model_validate({"profile": name, **dict(zip(choices, values, strict=True))})
        found |= set(make_profile(settings).prompts)
    return sorted(found)


def prompt_facts(profile: Profile, prompts: Prompts) -> dict[str, Any]:
    """Return the prompt facts that a run records: SHA-256 of the templates, which is compared, and their texts."""
    used = prompts.used(profile.prompts)
    digest = hashlib.sha256()
    for name, prompt in used.items():
        digest.update(f"{name}\0{prompt['text']}\0".encode())
    return {"prompts_fingerprint": digest.hexdigest(), "prompt_texts": used}
