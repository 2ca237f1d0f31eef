"""Slots that stand in place of content, and slots for details that only the reader knows."""

import pytest

from selfinstruct_local.filters.placeholders import placeholder
from selfinstruct_local.task import Instance, Task


@pytest.mark.parametrize(
    ("instruction", "output"),
    [
        ("Write a poem about the sea", "[Insert poem here]"),
        ("Write a text about dogs", "[your answer here]"),
        ("Write a paragraph on rain", "lorem ipsum dolor sit amet"),
        ("Tell why the sky is blue", "The sky is blue because [insert explanation]."),
        ("Draw a bar of each share", "<Insert bar chart here>"),
        ("写一首诗", "[在此插入诗歌]"),
        # a message without its content
        ("Write an e-mail to a friend", "[Your message here]"),
        ("Write an e-mail to a friend", "Dear [Name],\n\n[Insert message]\n\nYours,\n[Your Name]"),
        (
            "Write an e-mail to a teacher",
            "Dear [Name],\nI am late because of [reason for the delay]. Sorry!\nYours, Ann",
        ),
        ("Write an e-mail to a friend", "[Name]\n[Date]"),
        ("Write a letter to the mayor", "Dear [Name],\n[Your Name]"),
        ("写一封信", "亲爱的[收件人]：[在此填写正文]"),
        # a detail that was to be found or made up
        ("Who wrote Hamlet?", "[Name] wrote Hamlet."),
        ("Extract the date from the e-mail", "The date is [date]."),
        ("Summarize the letter", "The letter is from [Name]."),
        ("Describe a famous inventor", "[Name] was born in 1847 and made the light bulb."),
        ("Write a story about a boy", "Once there was a boy called [name]."),
    ],
)
def test_a_slot_in_place_of_content_is_a_fault(instruction: str, output: str) -> None:
    assert placeholder(Task.single(instruction, "", output))


@pytest.mark.parametrize(
    ("instruction", "given", "output"),
    [
        ("Write a thank-you note to a host", "", "Dear [Host's name], thank you for dinner.\n[Your name]"),
        (
            "ParsedTask a lease for a flat",
            "",
            "This lease is made on [Date] between [Company Name] and [insert name of tenant].",
        ),
        ("Write an out-of-office message", "", "I am away until [date]. Please write to [email]."),
        ("Make a certificate for a runner", "", "This certifies that [Full Name] ran ten miles on [date]."),
        ("Post an ad for a used bike", "", "Bike for sale, 50 dollars. Call [phone number]."),
        ("Respond kindly to a review of a café", "", "Thank you, [customer name], we hope to see you again!"),
        ("Congratulate a colleague on a new job", "", "Well done, [Name]!"),
        ("写一封辞职信", "", "尊敬的领导：\n我决定辞职。\n[您的姓名]"),
        # the output has the form of a letter
        (
            "Ask the landlord to fix the sink",
            "",
            "Dear [Landlord's name],\nthe sink leaks.\nBest regards,\n[Your name]",
        ),
        ("How should I open a phone call?", "", "Say: “Hi, this is [your name], calling about the flat.”"),
        # asked for, or given
        ("Write a template for a letter of thanks", "", "Dear [Name], thank you for [reason]!"),
        ("Make this warmer", "Dear [Name], thanks for [reason].", "Dear [name], thank you so much for [reason]!"),
        ("Tell [your name] what to do", "", "[Your Name] should rest."),
        ("Sort the numbers from low to high", "[3, 1]", "[1, 3]"),
    ],
)
def test_a_slot_for_what_the_reader_knows_is_none(instruction: str, given: str, output: str) -> None:
    assert placeholder(Task.single(instruction, given, output)) is None


@pytest.mark.parametrize(
    ("given", "fault"),
    [("[Image of a painting]", True), ("<image>", True), ("<noinput>", False), ("a [barn]", False), ("", False)],
)
def test_an_input_that_is_a_slot(given: str, fault: bool) -> None:  # noqa: FBT001
    assert bool(placeholder(Task.single("Say what the painting shows", given, "A barn."))) == fault


def test_every_instance_is_looked_at() -> None:
    whole, empty = Instance("one", "Dear [Name], thank you."), Instance("two", "[Insert text]")
    assert placeholder(Task("Write a note", (whole, empty)))
    assert placeholder(Task("Write a note", (whole, whole))) is None
    assert placeholder(Task("Write a note")) is None
