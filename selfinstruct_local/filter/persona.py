"""Outputs that pose as a person: who asks for help is told of the writer's job, team and past.

A model has none of them. English alone: where who asks speaks of himself, and asks for no text that somebody says.
On the 52,002 records of Stanford Alpaca it hits nothing. Leans on what tells of quotations.
"""

# ruff: noqa: RUF001 (the typographic apostrophe is meant)

import re

from selfinstruct_local.filter.asking_back import QUOTED
from selfinstruct_local.tasks import Task

# One of these stands in every such instruction, and one of the others in every such output; the screen looks for them.
ASKING = ("i", "my", "me", "we", "our", "us")
SPEAKING = ("i", "my")

_ASKS_FOR_ONESELF = re.compile(rf"\b(?:{'|'.join(ASKING)})\b", re.IGNORECASE)
_ROLE = (
    r"(?:[a-z-]+ ){0,3}?(?:assistant|AI|coach|counsell?or|professional|blogger|writer|speciali[sz]t|expert|consultant"
    r"|advis[eo]r|guide|planner|teacher|student|manager|owner|designer|artist|engineer|developer|entrepreneur|marketer"
    r"|doctor|nurse|therapist|person|perfectionist|human|freelancer|photographer|chef|agent|provider|researcher"
    r"|scientist|leader|parent|mother|father)"
)
_POSES = re.compile(
    # As a culinary AI, I specialize in ...; I'm a freelance writer.
    rf"\bas an? {_ROLE}\b,? (?:I|my)\b|\bI(?:['’]m| am) (?:(?:not|just|only|also|always) ){{0,2}}an? (?:bit of an? )?"
    rf"{_ROLE}\b"
    r"|\bI(?:['’]ve| have) (?:been|developed|worked|helped)\b|\bI mentioned\b|\bone of my\b"
    r"|\bmy (?:team|own experiences?|expertise|students|clients|primary role|goals|research|audience|passion)\b"
    r"|\bI (?:speciali[sz]e|work (?:as|with|in|for))\b|\bI(?:['’]m| am) (?:working|excited|passionate)\b",
    re.IGNORECASE,
)
_MAY_POSE = re.compile(
    r"\b(?:letters?|e-?mails?|stor(?:y|ies)|speech\w*|dialog\w*|conversations?|pretend|act(?:ing)?|role\w*|characters?"
    r"|diary|journal|monologue|tweets?|posts?|writ(?:e|ing)|compose|sentences?|rewrite|rephrase|reword\w*|paraphras\w*"
    r"|introduc\w*|quotes?|poems?|songs?|bio\w*|statements?|resumes?|interview\w*|edit|correct\w*|translat\w*|convert"
    r"|examples?|messages?|say|tell|repl(?:y|ies)|respon[ds]\w*|answers?|summar\w*|opinion|think|favou?rite|imagine"
    r"|suppose|perspective|scripts?|essays?|blog|slogan|prompts?|describe|samples?|templates?|reviews?|texts?"
    r"|paragraphs?|transform|create|generate|given|following)\b",
    re.IGNORECASE,
)


def poses(task: Task) -> str | None:
    """Tells of an output that speaks of its writer as of a person, outside of what it quotes."""
    if not _ASKS_FOR_ONESELF.search(task.instruction) or _MAY_POSE.search(task.instruction):
        return None
    for instance in task.instances:
        if match := _POSES.search(QUOTED.sub(" ", instance.output)):
            return f"an output poses as a person: '{' '.join(match[0].split())}'"
    return None
