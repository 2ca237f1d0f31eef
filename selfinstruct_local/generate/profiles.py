"""The profiles by name, and the fingerprint of the prompts each uses."""

import hashlib

from selfinstruct_local.config import DecidingSettings, ProfileName
from selfinstruct_local.generate.alpaca import AlpacaProfile
from selfinstruct_local.generate.job import Profile
from selfinstruct_local.generate.self_instruct import SelfInstructProfile
from selfinstruct_local.prompts import load_prompt

PROFILES: dict[ProfileName, type[AlpacaProfile | SelfInstructProfile]] = {
    "alpaca": AlpacaProfile,
    "self-instruct": SelfInstructProfile,
}


def make_profile(settings: DecidingSettings) -> Profile:
    """The profile that the settings name."""
    return PROFILES[settings.profile](settings)


def prompts_fingerprint(profile: Profile) -> str:
    """SHA-256 over the profile's prompt templates."""
    digest = hashlib.sha256()
    for name in profile.prompts:
        digest.update(f"{name}\0{load_prompt(name).template}\0".encode())
    return digest.hexdigest()
