"""Puzzles, games and plans in the seeds, solved again."""

import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable

from tests.seeds.facts import BY_NAME, cases_of, input_of, minutes, output_of, text_of

# Logic


def test_pets_have_one_solution() -> None:
    """Of the six ways to share out the pets, the clues leave the one in the answer."""
    people = ("Ana", "Ben", "Chloe")
    furry, flying = {"cat"}, {"parrot"}
    ways = [dict(zip(people, pets, strict=True)) for pets in itertools.permutations(("cat", "parrot", "tortoise"))]
    left = [way for way in ways if way["Ana"] not in furry and way["Ben"] in flying]
    assert left == [{"Ana": "tortoise", "Ben": "parrot", "Chloe": "cat"}]
    for person, pet in left[0].items():
        assert re.search(rf"{person} keeps the {pet}", output_of("pets_from_clues"))


def test_runners_have_one_order() -> None:
    """Of the 120 orders, the clues leave the one in the answer."""
    orders = []
    for order in itertools.permutations(("Dana", "Eli", "Femi", "Gus", "Hana")):
        place = {runner: index for index, runner in enumerate(order)}
        if (
            place["Dana"] < place["Eli"]
            and place["Femi"] == 4
            and place["Gus"] == place["Dana"] + 1
            and place["Hana"] < place["Dana"]
        ):
            orders.append(order)
    assert len(orders) == 1
    assert output_of("runner_order").endswith(f"The order is {', '.join(orders[0])}.")


Thing = tuple[bool, bool, bool]
World = frozenset[Thing]


def worlds() -> Iterable[World]:
    """Every world in which three properties are shared out in every way: 256 of them."""
    kinds: list[Thing] = [(a, b, c) for a in (False, True) for b in (False, True) for c in (False, True)]
    for size in range(len(kinds) + 1):
        for chosen in itertools.combinations(kinds, size):
            yield frozenset(chosen)


def test_valid_or_invalid() -> None:
    """An argument is valid when no world makes its premises true and its conclusion false."""

    def violins(world: World) -> tuple[bool, bool]:
        """Violin, instrument, old."""
        premises = all(i for v, i, _ in world if v) and any(i and o for _, i, o in world)
        return premises, any(v and o for v, _, o in world)

    def parrots(world: World) -> tuple[bool, bool]:
        """Reptile, feathered, parrot."""
        premises = not any(r and f for r, f, _ in world) and all(f for _, f, p in world if p)
        return premises, not any(p and r for r, _, p in world)

    def shops(world: World) -> tuple[bool, bool]:
        """Open, lit; the world is one shop at one moment."""
        is_open, lit, _ = next(iter(world))
        return (not is_open or lit) and not lit, not is_open

    arguments = BY_NAME["valid_or_invalid"]["instances"]
    readings: list[tuple[str, Callable[[World], tuple[bool, bool]]]] = [
        ("violins", violins),
        ("parrot", parrots),
        ("shop", shops),
    ]
    for (word, reading), argument in zip(readings, arguments, strict=True):
        assert word in argument["input"]
        cases = [world for world in worlds() if reading is not shops or len(world) == 1]
        valid = all(conclusion for premises, conclusion in map(reading, cases) if premises)
        assert argument["output"] == ("valid" if valid else "invalid")


def test_knight_and_knave() -> None:
    """Of the four ways to share out the kinds, one makes every knight truthful and every knave a liar."""
    assert input_of("knight_and_knave") == 'Ada says: "Bo is a knave."\nBo says: "Ada and I are of the same kind."'
    ways = [
        (ada, bo) for ada, bo in itertools.product((True, False), repeat=2) if ada == (not bo) and bo == (ada == bo)
    ]
    assert ways == [(True, False)]
    assert "So Bo is a knave." in output_of("knight_and_knave")
    assert "so Ada is a knight" in output_of("knight_and_knave")


def test_necessary_or_sufficient() -> None:
    """The condition is put to the test on a thousand numbers, and on all rhombi with whole angles."""

    def prime(n: int) -> bool:
        """Whether n is a prime number."""
        return n > 1 and all(n % d for d in range(2, int(n**0.5) + 1))

    # Equal sides make a rhombus, a right angle makes it a square; the pairs are (goal, condition).
    shapes = [(sides and angle == 90, sides) for sides in (True, False) for angle in range(1, 180)]
    numbers = range(1, 1001)
    tests = [
        ("square", shapes),
        ("even", [(n % 2 == 0, n % 4 == 0) for n in numbers]),
        ("by 6", [(n % 6 == 0, n % 2 == 0 and n % 3 == 0) for n in numbers]),
        ("prime", [(prime(n), n % 2 == 1) for n in numbers]),
    ]
    for (word, pairs), (case, label) in zip(tests, cases_of("necessary_or_sufficient"), strict=True):
        assert word in case
        necessary = all(condition for goal, condition in pairs if goal)
        sufficient = all(goal for goal, condition in pairs if condition)
        names = {(True, True): "both", (True, False): "necessary", (False, True): "sufficient"}
        assert label == names.get((necessary, sufficient), "neither")


def test_light_coin() -> None:
    """The way told finds the light coin wherever it is, in two weighings."""

    def lighter(light: int, left: list[int], right: list[int]) -> str:
        """Which pan rises."""
        return "left" if light in left else "right" if light in right else "none"

    for light in range(9):
        threes = {"left": [0, 1, 2], "right": [3, 4, 5], "none": [6, 7, 8]}
        group = threes[lighter(light, threes["left"], threes["right"])]
        ones = dict(zip(("left", "right", "none"), group, strict=True))
        assert ones[lighter(light, [ones["left"]], [ones["right"]])] == light
    first, second = output_of("light_coin").splitlines()
    assert first.startswith("1. Put three coins on each pan and leave three aside.")
    assert second.startswith("2. Of those three coins, put one on each pan and leave one aside.")


def test_password_screen() -> None:
    """The label is what the three rules give."""
    assert "fewer than 10 characters" in text_of("password_screen")
    assert "at least 16 characters" in text_of("password_screen")
    dictionary = {"strawberry"}
    for password, label in cases_of("password_screen"):
        weak = len(password) < 10 or password in dictionary
        assert label == ("weak" if weak else "strong" if len(password) >= 16 else "fair")


# Planning


def test_saturday_chores() -> None:
    """No two hand chores overlap, the machine has its hour, and no plan can end earlier."""
    *lines, verdict = output_of("saturday_chores").splitlines()
    spans = []
    for line in lines:
        match = re.match(r"(\d\d:\d\d)-(\d\d:\d\d) ", line)
        assert match is not None
        spans.append((minutes(match.group(1)), minutes(match.group(2))))
    assert spans[0][0] == minutes("09:00")
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))
    assert [end - start for start, end in spans] == [5, 30, 25, 5, 15]
    load, hang = spans[0], spans[-1]
    assert hang[0] - load[1] >= 60
    assert hang[1] - minutes("09:00") == 5 + 60 + 15 == 80
    assert verdict.startswith("All done at 10:20.")
    assert "5 + 60 + 15 = 80 minutes" in verdict
    assert minutes("10:20") == hang[1]
    given = re.findall(r"(\d+) minutes", text_of("saturday_chores"))
    assert [int(number) for number in given] == [5, 60, 15, 30, 25, 5]


def test_running_plan() -> None:
    """Six weeks, and no week has less running than the week before or a shorter run."""
    weeks = re.findall(r"^Week (\d): (.*)$", output_of("five_kilometre_plan"), re.MULTILINE)
    assert [int(week) for week, _ in weeks] == [1, 2, 3, 4, 5, 6]
    sets = [re.match(r"(\d+) x \((\d+) min running", plan) for _, plan in weeks[:5]]
    runs = [(int(found.group(1)), int(found.group(2))) for found in sets if found is not None]
    assert len(runs) == 5
    assert all(b[1] > a[1] and b[0] * b[1] > a[0] * a[1] for a, b in itertools.pairwise(runs))
    assert weeks[5][1].startswith("5 km")


def test_vegan_dinner() -> None:
    """The times run forward, the oven is never needed twice at once, and both courses are on time."""
    menu, times = output_of("vegan_dinner").splitlines()[:3], output_of("vegan_dinner").splitlines()[3:]
    assert [line.partition(":")[0] for line in menu] == ["Starter", "Main course", "Dessert"]
    starts = [minutes(line[:5]) for line in times]
    assert starts == sorted(starts)
    assert minutes("18:00") <= starts[0]
    oven = re.findall(r"^(\d\d:\d\d)-(\d\d:\d\d) oven: ", "\n".join(times), re.MULTILINE)
    spans = [(minutes(start), minutes(end)) for start, end in oven]
    assert len(spans) == 2
    assert all(start < end for start, end in spans)
    assert spans[0][1] <= spans[1][0]
    assert spans[1][1] <= minutes("20:00")
    assert "19:30 serve the salad" in times
    assert any(line.startswith("20:00 serve the main course") for line in times)
    animal = r"\b(meat|fish|egg|eggs|butter|honey|cheese|yoghurt|almond|walnut|hazelnut)\b"
    assert not re.search(animal, output_of("vegan_dinner"))


def test_renovation_has_one_order() -> None:
    """Of the 120 orders, the needs leave the one in the answer."""
    needs: dict[str, list[str]] = {}
    for line in input_of("renovation_order").splitlines():
        match = re.fullmatch(r"(.+) \(needs: (.+)\)", line)
        assert match is not None
        needs[match.group(1)] = [] if match.group(2) == "nothing" else match.group(2).split(", ")
    assert all(need in needs for task in needs.values() for need in task)
    orders = [
        order
        for order in itertools.permutations(needs)
        if all(order.index(need) < order.index(task) for task in needs for need in needs[task])
    ]
    assert len(orders) == 1
    assert output_of("renovation_order").splitlines() == [f"{n}. {task}" for n, task in enumerate(orders[0], 1)]


# Games


def test_caesar() -> None:
    """Moved back by three letters, the message reads as the answer."""
    plain = "".join(chr((ord(c) - 65 - 3) % 26 + 65) if c.isalpha() else c for c in input_of("caesar_decode"))
    assert output_of("caesar_decode") == plain


def test_word_ladder() -> None:
    """From HAND to FOOT, one letter a step."""
    words = output_of("hand_to_foot").split(", ")
    assert (words[0], words[-1]) == ("HAND", "FOOT")
    assert len(set(words)) == len(words)
    assert set(words) <= {"HAND", "BAND", "BOND", "FOND", "FOOD", "FOOT"}
    for before, after in itertools.pairwise(words):
        assert len(before) == len(after)
        assert sum(a != b for a, b in zip(before, after, strict=True)) == 1


def test_doubling_sequence() -> None:
    """The rule told makes the whole sequence."""
    given = [int(number) for number in input_of("doubling_sequence").split(", ")]
    terms = [given[0]]
    while len(terms) < len(given) + 2:
        terms.append(2 * terms[-1] - 1)
    assert terms[: len(given)] == given
    assert output_of("doubling_sequence").startswith(f"{terms[-2]}, {terms[-1]}. Each number is twice")


def test_anagram() -> None:
    """Both words use all six letters once."""
    letters = Counter(input_of("six_letter_anagram").lower().split())
    words = output_of("six_letter_anagram").split(", ")
    assert len(set(words)) == 2
    assert all(Counter(word) == letters for word in words)


def test_noughts_and_crosses() -> None:
    """It is X's turn, nobody has won, and one square wins."""
    board = [line.split() for line in input_of("noughts_and_crosses").splitlines()]
    squares = list(itertools.product(range(3), repeat=2))
    lines = [[(r, c) for c in range(3)] for r in range(3)] + [[(r, c) for r in range(3)] for c in range(3)]
    lines += [[(i, i) for i in range(3)], [(i, 2 - i) for i in range(3)]]

    def wins(who: str, extra: tuple[int, int] | None = None) -> bool:
        """Whether the player has a line, with one more square if given."""
        return any(all((r, c) == extra or board[r][c] == who for r, c in line) for line in lines)

    count = Counter(board[r][c] for r, c in squares)
    assert count["X"] == count["O"]
    assert not wins("X")
    assert not wins("O")
    winning = [(r + 1, c + 1) for r, c in squares if board[r][c] == "." and wins("X", (r, c))]
    assert winning == [(3, 2)]
    assert output_of("noughts_and_crosses").startswith("Row 3, column 2.")


def test_jugs() -> None:
    """The steps, done with jugs of 4 and 7 litres, leave 1 litre."""
    size = {"small": 4, "large": 7}
    now = {"small": 0, "large": 0}

    def pour(source: str, target: str) -> int:
        """Pour until the source is empty or the target full."""
        amount = min(now[source], size[target] - now[target])
        now[source] -= amount
        now[target] += amount
        return amount

    now["small"] = 4
    pour("small", "large")
    assert now == {"small": 0, "large": 4}
    now["small"] = 4
    assert pour("small", "large") == 7 - 4 == 3
    assert now == {"small": 1, "large": 7}
    steps = output_of("one_litre_from_two_jugs").splitlines()
    assert [step[:2] for step in steps[:3]] == ["1.", "2.", "3."]
    assert steps[-1].endswith("4 - 3 = 1 litre.")
