"""Facts of the world in the seeds: history, chemistry, astronomy, animals and places, against values noted here."""

import re
from collections import Counter

from tests.seeds.facts import BY_NAME, NUMBER, cases_of, input_of, output_of, sentences, text_of

# History


def test_order_four_events() -> None:
    """The years are right, in order, and each event is one of those given."""
    years = {
        "the fall of the Berlin Wall": 1989,
        "the storming of the Bastille": 1789,
        "the first landing of people on the Moon": 1969,
        "the Ottoman conquest of Constantinople": 1453,
    }
    assert input_of("order_four_events").split("; ") == list(years)
    expected = [f"{years[event]}: {event}" for event in sorted(years, key=years.__getitem__)]
    assert output_of("order_four_events").splitlines() == expected


def test_century_of_event() -> None:
    """The label is the century of the year."""
    years = {
        "The Great Fire of London": 1666,
        "The American Declaration of Independence": 1776,
        "The opening of the Suez Canal": 1869,
        "The sinking of the Titanic": 1912,
    }
    for instance in BY_NAME["century_of_event"]["instances"]:
        assert instance["output"] == f"{(years[instance['input']] - 1) // 100 + 1}th"


def test_rosetta_stone() -> None:
    """The stone was found in 1799, Champollion's announcement is of 1822, and there are three sentences."""
    assert re.findall(r"\d{4}", output_of("rosetta_stone")) == ["1799", "1822"]
    assert sentences(output_of("rosetta_stone")) == 3


def test_kinds_of_source() -> None:
    """What was made at the time by those who were there is primary."""
    made_then = {"soldier's letter": True, "printed in 2015": False, "crew kept on board": True}
    for (word, primary), (source, label) in zip(made_then.items(), cases_of("kind_of_source"), strict=True):
        assert word in source
        assert label == ("primary" if primary else "secondary")


def test_athens_in_two_points() -> None:
    """Two numbered points, each with both sides."""
    points = output_of("athens_and_parliament").splitlines()
    assert [point[:2] for point in points] == ["1.", "2."]
    assert all("Athens" in point and "today" in point for point in points)


# Chemistry


def atoms(side: str) -> Counter[str]:
    """How many atoms of each element one side of an equation has."""
    total: Counter[str] = Counter()
    for term in side.split(" + "):
        match = re.fullmatch(r"(?:(\d+) )?([A-Za-z0-9]+)", term)
        assert match is not None
        for element, count in re.findall(r"([A-Z][a-z]?)(\d*)", match.group(2)):
            total[element] += int(match.group(1) or 1) * int(count or 1)
    return total


def test_balanced_equations() -> None:
    """Both sides have the same atoms, and the substances are those given."""
    for instance in BY_NAME["balance_equation"]["instances"]:
        given_left, given_right = instance["input"].split(" -> ")
        left, right = instance["output"].split(" -> ")
        assert atoms(given_left) != atoms(given_right)
        assert atoms(left) == atoms(right)
        assert re.sub(r"(?<!\w)\d+ ", "", instance["output"]) == instance["input"]


# Astronomy, animals, places


def test_four_diameters() -> None:
    """Mean diameters in km, rounded to thousands and in order; the bodies are those given."""
    diameters = {"Earth": 12_742, "Mars": 6_779, "Mercury": 4_879, "the Moon": 3_475}
    assert sorted(input_of("four_diameters").split(", ")) == sorted(diameters)
    ranked = sorted(diameters.items(), key=lambda item: -item[1])
    assert output_of("four_diameters").splitlines() == [
        f"{place}. {body}: about {round(km, -3):,} km" for place, (body, km) in enumerate(ranked, 1)
    ]


def test_animal_classes() -> None:
    """The classes of zoology."""
    classes = {"bat": "mammal", "newt": "amphibian", "seahorse": "fish", "tortoise": "reptile"}
    assert dict(cases_of("animal_class")) == classes
    assert all(name in text_of("animal_class") for name in classes.values())


def test_continents() -> None:
    """Where the cities lie, by longitude and latitude inside rough boxes that do not overlap."""
    places = {"Nairobi": (-1.3, 36.8), "Lima": (-12.0, -77.0), "Perth": (-32.0, 115.9), "Montreal": (45.5, -73.6)}
    boxes = {
        "Africa": (-35, 37, -18, 51),
        "South America": (-56, 12, -82, -34),
        "Oceania": (-48, -10, 112, 180),
        "North America": (13, 83, -168, -52),
    }
    for city, label in cases_of("continent_of_city"):
        lat, lon = places[city]
        inside = [name for name, (s, n, w, e) in boxes.items() if s <= lat <= n and w <= lon <= e]
        assert inside == [label]


def test_main_nutrients() -> None:
    """Grams of carbohydrate, protein and fat in 100 g of the raw food, rounded, from common food tables."""
    grams = {
        "white rice": (80, 7, 1),
        "butter": (0, 1, 81),
        "egg white": (1, 11, 0),
        "skinless chicken breast": (0, 23, 2),
    }
    names = ("carbohydrate", "protein", "fat")
    for food, label in cases_of("main_nutrient"):
        assert label == names[grams[food].index(max(grams[food]))]


def test_bean_experiment() -> None:
    """The groups are of one size and together make the seeds."""
    total, group = (int(n) for n in re.findall(r"\b\d{2}\b", output_of("beans_in_the_dark"))[:2])
    assert total == 2 * group


def test_burn_advice() -> None:
    """Cool running water for about twenty minutes; ice and fat only to warn against them."""
    answer = output_of("small_burn")
    assert NUMBER.findall(answer) == ["20"]
    assert "cool running water for about 20 minutes" in answer
    assert "Use no ice, butter or toothpaste" in answer
    assert sentences(answer) == 4


# Languages


def test_french_register() -> None:
    """Formal sentences address with vous or an imperative of it, informal ones with tu."""
    for sentence, label in cases_of("french_register"):
        assert label == ("informal" if re.match(r"Tu\b", sentence) else "formal")
        assert (label == "formal") == bool(re.search(r"\bvous, |\bVeuillez\b", sentence))


def test_tenses() -> None:
    """The form of the verb shows the tense."""
    forms = {
        "present perfect": r"\b(has|have) \w+ed\b",
        "past continuous": r"\b(was|were) \w+ing\b",
        "past simple": r"\bsold\b",
        "present simple": r"\bopens\b",
    }
    for sentence, label in cases_of("verb_tense"):
        assert [tense for tense, form in forms.items() if re.search(form, sentence)] == [label]
        assert label in text_of("verb_tense")


def test_spanish_subtitle() -> None:
    """The line is no longer than allowed, with both of its exclamation marks."""
    [limit] = [int(n) for n in NUMBER.findall(text_of("spanish_subtitle"))]
    line = output_of("spanish_subtitle")
    assert len(line) <= limit
    assert (line[0], line[-1]) == ("¡", "!")


# Labels


def test_labels_are_named() -> None:
    """Every label stands in its instruction; each such task has three or four cases and more than one label."""
    for seed in BY_NAME.values():
        if seed["is_classification"]:
            labels = [instance["output"] for instance in seed["instances"]]
            assert all(re.search(rf"\b{re.escape(label)}\b", seed["instruction"]) for label in labels), seed["id"]
            assert len(labels) in (3, 4)
            assert len(set(labels)) >= 2
            assert len({instance["input"] for instance in seed["instances"]}) == len(labels)
