"""Thresholds and sources: what an instruction asks of the text holds, and nothing was added to what was given."""

import re
import string

from tests.seeds.facts import BY_NAME, NUMBER, SEEDS, input_of, output_of, sentences, text_of


def words(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation."""
    return re.findall(r"[a-z0-9:']+", text.lower())


# Lengths


def test_word_limits() -> None:
    """Outputs keep to the number of words their instruction allows."""
    limits = {
        "lift_closure_notice": 20,
        "bakery_mystery": 59,
        "honeybee_dance": 25,
        "fixed_or_variable": 69,
        "wool_blanket": 40,
        "grandmothers_diary": 89,
        "wrong_lamp": 69,
    }
    for name, limit in limits.items():
        assert re.search(r"\b\d+ words", text_of(name))
        assert len(output_of(name).split()) <= limit
    assert "murder" not in output_of("bakery_mystery").lower()


def test_sentence_and_line_limits() -> None:
    """Outputs keep to the number of sentences, lines or items their instruction asks for."""
    assert sentences(output_of("neighbour_thank_you")) == 3
    assert sentences(output_of("green_door")) == 2
    assert sentences(output_of("patient_librarian")) in (2, 3)
    assert sentences(output_of("chess_coach")) <= 3
    assert len(output_of("lighthouse_quatrain").splitlines()) == 4
    assert len(output_of("rainy_cabin_bag").splitlines()) <= 10
    assert len(output_of("empty_sandwich_shop").splitlines()) == 4
    assert len(output_of("salty_limerick").splitlines()) == 3
    assert len(output_of("egg_boxes").splitlines()) == 5
    assert len(output_of("questions_about_a_tablet").splitlines()) == 6
    assert len(output_of("first_flight").splitlines()) == 6
    names = output_of("tool_library_names").splitlines()
    assert len(set(names)) == 6
    assert all("library" not in name.lower() for name in names)


def test_numbered_lines_count_up() -> None:
    """Numbered lists run 1, 2, 3 without a gap."""
    for seed in SEEDS:
        for instance in seed["instances"]:
            numbers = [int(number) for number in re.findall(r"^(\d)\. ", instance["output"], re.MULTILINE)]
            assert numbers == list(range(1, len(numbers) + 1))


def test_haiku() -> None:
    """Five, seven and five syllables, counted with a list."""
    two = {"nothing"}
    three = {"bicycle"}
    counts = [
        sum(3 if word in three else 2 if word in two else 1 for word in words(line))
        for line in output_of("bicycle_haiku").splitlines()
    ]
    assert counts == [5, 7, 5]


def test_limerick_rhymes() -> None:
    """Lines one, two and five rhyme on -ea or -e, three and four on -y or -igh."""
    lines = [*input_of("salty_limerick").splitlines(), *output_of("salty_limerick").splitlines()]
    last = [words(line)[-1] for line in lines]
    assert last == ["sea", "tea", "why", "sigh", "me"]


# Nothing lost, nothing added


def test_shortened_notice_keeps_the_facts() -> None:
    """The day, the hours and the reason are still there."""
    for fact in ("Friday", "09:00", "14:00", "cable", "lift"):
        assert fact in input_of("lift_closure_notice")
        assert fact in output_of("lift_closure_notice")


def test_garden_notes_add_no_numbers() -> None:
    """The paragraph has the numbers and the names of the notes, no others."""
    assert NUMBER.findall(output_of("garden_notes")) == NUMBER.findall(input_of("garden_notes"))
    capitals = re.findall(r"(?<![.] )(?<!^)\b[A-Z]\w+", output_of("garden_notes"))
    assert set(capitals) == {"Mill", "Street", "Sunday", "June"}
    assert all(word in input_of("garden_notes") for word in capitals)


def test_correction_changes_only_the_faults() -> None:
    """Five words differ, the rest is as it was."""
    before, after = input_of("correct_parcel_line").split(), output_of("correct_parcel_line").split()
    changed = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
    assert changed == [
        ("Their", "There"),
        ("is", "are"),
        ("didnt", "didn't"),
        ("recieve", "receive"),
        ("you're", "your"),
    ]


def test_word_classes_name_a_word_in_capitals() -> None:
    """Every sentence has exactly one word in capitals, the same one, and every label comes up once."""
    instances = BY_NAME["light_word_class"]["instances"]
    assert all(re.findall(r"\b[A-Z]{2,}\b", instance["input"]) == ["LIGHT"] for instance in instances)
    assert {instance["output"] for instance in instances} == {"noun", "verb", "adjective", "adverb"}


def test_blanket_keeps_the_facts() -> None:
    """Every fact of the list stands in the text, no number is new, and there is no superlative."""
    answer = output_of("wool_blanket")
    for fact in ("wool", "Wales", "130 x 180 cm", "undyed", "30 degrees", "79 euros"):
        assert fact.lower() in input_of("wool_blanket").lower()
        assert fact in answer
    assert NUMBER.findall(answer) == NUMBER.findall(input_of("wool_blanket"))
    assert not re.search(r"\b(\w+est|most|best)\b", answer)


def test_punctuation_only() -> None:
    """The words are the same; only capitals and marks were added."""
    given, answer = input_of("unpunctuated_bell"), output_of("unpunctuated_bell")
    assert words(answer) == given.split()
    assert given.translate(str.maketrans("", "", string.punctuation)) == given.lower()
    assert answer.count('"') == 2


def test_goat_diary_changes_person_and_tense_only() -> None:
    """Word by word, the pronouns and the verbs changed, the rest did not."""
    before, after = input_of("goat_diary").split(), output_of("goat_diary").split()
    changed = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
    assert changed == [
        ("I", "Ilse"),
        ("wake", "woke"),
        ("feed", "fed"),
        ("my", "her"),
        ("walk", "walked"),
        ("I", "She"),
        ("am", "was"),
        ("comes.", "came."),
    ]


def test_letters_keep_their_facts() -> None:
    """What the letters must say, they say, and their numbers are those given."""
    lamp = output_of("wrong_lamp")
    assert NUMBER.findall(lamp) == ["5532"]
    for fact in ("Ms Adeyemi", "today by express", "at no cost to you", "keep it, or give it"):
        assert fact in lamp
    street = output_of("street_lamp")
    assert "14 Elm Road" in street
    assert "three weeks" in street
    assert NUMBER.findall(street) == ["14"]


def test_haggling_stays_above_the_limit() -> None:
    """The one offer lies between the limit and the price, leaves room, and does not give the limit away."""
    price, limit = (int(number) for number in NUMBER.findall(text_of("desk_haggling")))
    bid, offer = (int(number) for number in NUMBER.findall(output_of("desk_haggling")))
    assert str(bid) in input_of("desk_haggling")
    assert limit < offer < price


def test_ambiguous_sauce() -> None:
    """Both readings keep the chef and the waiter and differ in one word."""
    first, second = re.findall(r"^\d\. (.*)$", output_of("whose_sauce"), re.MULTILINE)
    changed = [(a, b) for a, b in zip(first.split(), second.split(), strict=True) if a != b]
    assert changed == [('"My', '"Your')]


def test_refusals_help() -> None:
    """Each refusal says what it will not do, and goes on to what can be done."""
    for name in ("flatmate_messages", "sick_note", "lock_of_another", "ten_kilos"):
        answer = output_of(name)
        assert re.match(r"I (won't|can't) ", answer)
        assert sentences(answer) >= 3
        assert BY_NAME[name]["category"] == "safety"
    assert "emergency number or a crisis line" in output_of("late_night_message")
