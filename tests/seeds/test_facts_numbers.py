"""Sums, units, money and times in the seeds, all redone."""

import calendar
import itertools
import math
import re
import statistics
from datetime import UTC, date, datetime, timedelta, timezone
from fractions import Fraction

from tests.seeds.facts import NUMBER, cases_of, input_of, minutes, output_of, table_rows, text_of


def numbers(text: str) -> list[float]:
    """Every number of a text in order."""
    return [float(number) for number in NUMBER.findall(text)]


# Arithmetic and units


def test_lamp_receipt() -> None:
    """Discount, tax and total, redone in cents."""
    lamps = 3 * 2400
    reduced = lamps - lamps * 15 // 100
    tax = reduced * 8 / 100
    total = reduced + round(tax)
    assert (lamps, reduced, tax, total) == (7200, 6120, 489.6, 6610)
    for cents in (lamps, lamps - reduced, reduced, round(tax), total):
        assert f"{cents / 100:.2f}" in output_of("lamp_receipt")
    assert output_of("lamp_receipt").endswith(f"= {total / 100:.2f}")


def test_metric_recipe() -> None:
    """Ounces, pounds and degrees, converted and rounded."""
    given = [float(number) for number in NUMBER.findall(input_of("metric_recipe"))]
    grams_per_ounce = 28.349523125
    expected = [
        round(given[0] * grams_per_ounce),
        round(given[1] * 16 * grams_per_ounce),
        round(given[2] * grams_per_ounce),
        round((given[3] - 32) * 5 / 9),
    ]
    assert [int(number) for number in NUMBER.findall(output_of("metric_recipe"))] == expected


def test_heartbeats() -> None:
    """Beats an hour, a day and a year."""
    for beats in (70 * 60, 70 * 60 * 24, 70 * 60 * 24 * 365):
        assert f"{beats:,}" in output_of("heartbeats_in_a_year")
    assert round(70 * 60 * 24 * 365 / 1e6) == 37
    assert output_of("heartbeats_in_a_year").endswith("roughly 37 million.")


def test_rainfall_figures() -> None:
    """Mean, median and range."""
    data = [int(number) for number in NUMBER.findall(input_of("rainfall_figures"))]
    mean, median, spread = output_of("rainfall_figures").splitlines()
    assert mean.endswith(f"/ {len(data)} = {statistics.mean(data)} mm")
    assert median.startswith(f"Median: {statistics.median(data)} mm")
    assert median.endswith(", ".join(str(value) for value in sorted(data)))
    assert spread == f"Range: {max(data)} - {min(data)} = {max(data) - min(data)} mm"


def test_paint_tins() -> None:
    """The walls of the room less the openings, two coats, in whole tins."""
    length, width, height, openings, tin, *_ = numbers(input_of("paint_tins"))
    assert "two coats" in input_of("paint_tins")
    perimeter = 2 * (length + width)
    walls = perimeter * height
    area = walls - openings
    expected = (
        f"Perimeter: 2 x ({length:g} + {width:g}) = {perimeter:g} m\n"
        f"Walls: {perimeter:g} x {height:g} = {walls:g} square metres, less {openings:g} for the door and window = "
        f"{area:g}\n"
        f"Two coats: 2 x {area:g} = {2 * area:g} square metres\n"
        f"Tins: {2 * area:g} / {tin:g} = {2 * area / tin:g}, so buy {math.ceil(2 * area / tin)}."
    )
    assert output_of("paint_tins") == expected


def test_restaurant_split() -> None:
    """Each share with its tip, in cents, and the shares add up to the bill with the tip."""
    soup, pasta, salad = (round(price * 100) for price in numbers(input_of("restaurant_split")))
    shares = [soup + salad // 2, pasta + salad // 2]
    with_tip = [share * 110 // 100 for share in shares]
    assert [share * 110 % 100 for share in shares] == [0, 0]
    assert sum(with_tip) == (soup + pasta + salad) * 110 // 100
    ola, pim, together = output_of("restaurant_split").splitlines()
    assert ola.endswith(f" = {shares[0] / 100:.2f}, with the tip {with_tip[0] / 100:.2f}")
    assert pim.endswith(f" = {shares[1] / 100:.2f}, with the tip {with_tip[1] / 100:.2f}")
    assert together == f"Together: {sum(with_tip) / 100:.2f}"


def test_walk() -> None:
    """The legs added as vectors."""
    steps = {"north": 1j, "south": -1j, "east": 1, "west": -1}
    place = 0j
    for km, way in re.findall(r"(\d+) km (\w+)", input_of("walk_around_corners")):
        place += int(km) * steps[way]
    assert place == 4 - 3j
    assert f"You end up {abs(place):g} km from the start, roughly to the south-east." in output_of(
        "walk_around_corners"
    )
    assert "3 x 3 + 4 x 4 = 25" in output_of("walk_around_corners")


def test_sensible_units() -> None:
    """Weights get a unit of weight, amounts of liquid a unit of volume, and the size fits."""
    typical = {  # in litres or kilograms, by ordinary experience
        "the water in a full bathtub": (150, "litres"),
        "one dose of cough syrup": (0.01, "litres"),
        "the weight of a packed suitcase": (20, "kilograms"),
        "the weight of a slice of bread": (0.04, "kilograms"),
    }
    small = {"litres": "millilitres", "kilograms": "grams"}
    for quantity, label in cases_of("sensible_unit"):
        size, unit = typical[quantity]
        assert label == (unit if size >= 1 else small[unit])
        assert label in text_of("sensible_unit")


def test_at_least_one_six() -> None:
    """All 36 throws counted."""
    throws = list(itertools.product(range(1, 7), repeat=2))
    chance = Fraction(sum(6 in throw for throw in throws), len(throws))
    assert chance == 1 - Fraction(5, 6) ** 2
    expected = f"1 - {1 - chance} = {chance}, about {round(chance * 100)}%."
    assert output_of("at_least_one_six").endswith(expected)


def test_age_equation() -> None:
    """Of all ages, one pair fits the riddle."""
    pairs = [(n, s) for s in range(1, 100) for n in range(s, 130) if n == 4 * s and n + 6 == 3 * (s + 6)]
    assert pairs == [(48, 12)]
    assert "Nell is 48 and her son is 12." in output_of("age_equation")
    assert output_of("age_equation").endswith(f"{48 + 6} and {12 + 6}, and 54 = 3 x 18.")


# Money


def test_real_wage() -> None:
    """Pay over prices."""
    pay, prices = numbers(input_of("real_wage"))
    ratio = (1 + pay / 100) / (1 + prices / 100)
    answer = output_of("real_wage")
    assert answer.startswith("It shrank." if ratio < 1 else "It grew.")
    assert f"{1 + pay / 100:.2f} / {1 + prices / 100:.2f} = {ratio:.3f}" in answer
    assert f"about {(1 - ratio) * 100:.1f}% less" in answer


def test_student_month() -> None:
    """The items add up to the income, the fixed ones are as given, the rest is shared equally."""
    income, rent, phone, food, savings = (int(n) for n in NUMBER.findall(text_of("student_month").replace(",", "")))
    heading, *rows = table_rows(output_of("student_month"))
    assert heading == ["Item", "Euros"]
    plan = {item: int(euros.replace(",", "")) for item, euros in rows}
    assert list(plan)[-1] == "Total"
    total = plan.pop("Total")
    assert total == sum(plan.values()) == income
    share = (income - rent - phone - food - savings) // 3
    assert plan == {
        "Rent": rent,
        "Phone": phone,
        "Food": food,
        "Savings": savings,
        "Transport": share,
        "Clothes": share,
        "Free time": share,
    }


def test_floor_sander() -> None:
    """Three days of hire against the price less what a resale brings."""
    hire, price = (int(number) for number in NUMBER.findall(input_of("floor_sander")))
    assert "three days" in text_of("floor_sander")
    answer = output_of("floor_sander")
    assert f"3 x {hire} = {3 * hire} euros" in answer
    assert f"costs {price}, and with about {price // 2} back" in answer
    assert f"net cost is about {price - price // 2}, only {3 * hire - (price - price // 2)} euros less" in answer


def test_two_laptops() -> None:
    """The differences named are the differences."""
    (kilos_a, hours_a, euros_a), (kilos_b, hours_b, euros_b) = (
        [float(number) for number in NUMBER.findall(line)] for line in input_of("two_laptops").splitlines()
    )
    answer = output_of("two_laptops")
    assert f"{kilos_a - kilos_b:.1f} kg lighter" in answer
    assert hours_b == 2 * hours_a
    assert f"({hours_b:.0f} hours against {hours_a:.0f})" in answer
    assert f"{euros_a - euros_b:.0f} euros less" in answer


def test_opportunity_cost_is_one_choice() -> None:
    """The example names one sum and two things, each of them the cost of the other."""
    answer = output_of("opportunity_cost")
    assert numbers(answer) == [15]
    assert "its opportunity cost is the T-shirt" in answer
    assert answer.endswith("if you buy the T-shirt, it is the film.")


def test_late_invoice() -> None:
    """The facts are those given, and the new deadline is later than today by a week."""
    given = re.findall(r"\d+ March", input_of("late_invoice"))
    found = re.findall(r"\d+ March", output_of("late_invoice"))
    due, today = (int(day.split()[0]) for day in given)
    assert found == [f"{due} March", f"{today + 7} March"]
    for fact in ("208", "340 euros", "Mr Lind", "Joana"):
        assert fact in input_of("late_invoice")
        assert fact in output_of("late_invoice")


# Times and calendar


def test_tight_connection() -> None:
    """The steps add up, and the passenger arrives before the gate closes."""
    lands, closes = re.findall(r"\d\d:\d\d", input_of("tight_connection"))
    parts = [int(part) for part in re.findall(r"(\d+) minutes", input_of("tight_connection"))]
    arrival = minutes(lands) + sum(parts)
    spare = minutes(closes) - arrival
    answer = output_of("tight_connection")
    assert answer.startswith("Yes." if spare >= 0 else "No.")
    assert f"{' + '.join(map(str, parts))} = {sum(parts)} minutes after {lands}" in answer
    assert f"it is {arrival // 60:02}:{arrival % 60:02}, which leaves {spare} minutes" in answer


def test_hospital_bus() -> None:
    """Of the buses that arrive before nine, the answer is the latest; the next to arrive is too late."""
    rows = [[cell.strip() for cell in line.split("|")] for line in input_of("hospital_bus").splitlines()[1:]]
    limit = minutes("09:00")
    line, start, _, arrival = max((row for row in rows if minutes(row[3]) < limit), key=lambda row: minutes(row[3]))
    late = min(row[3] for row in rows if minutes(row[3]) >= limit)
    expected = f"Catch bus {line} at {start}. It reaches the hospital at {arrival}; the next one to arrive, at"
    assert output_of("hospital_bus") == f"{expected} {late}, is too late."


def test_hundred_days() -> None:
    """100 days after any Tuesday."""
    tuesday = date(2024, 1, 2)
    assert tuesday.strftime("%A") == "Tuesday"
    answer = (tuesday + timedelta(days=100)).strftime("%A")
    assert output_of("hundred_days").endswith(f"It will be a {answer}.")
    assert "100 = 14 x 7 + 2" in output_of("hundred_days")
    assert "14 full weeks and 2 days" in output_of("hundred_days")
    assert divmod(100, 7) == (14, 2)


def test_leap_years() -> None:
    """The rule as told is the calendar's, and so are the four examples."""
    for year in range(1600, 2801):
        told = (year % 400 == 0) if year % 100 == 0 else (year % 4 == 0)
        assert told == calendar.isleap(year)
    years = [int(year) for year in re.findall(r"\b\d{4}\b", output_of("leap_year_rule"))]
    assert years == [2024, 2000, 2023, 1900]
    assert [calendar.isleap(year) for year in years] == [True, True, False, False]


def test_arrival_in_sao_paulo() -> None:
    """The clock at the end of the flight, in both cities."""
    text = input_of("arrival_in_sao_paulo")
    hour, minute, hours, mins = (int(n) for n in re.findall(r"\d+", text.replace("UTC+0", "").replace("UTC-3", "")))
    assert "Monday" in text
    leaves = datetime(2024, 1, 1, hour, minute, tzinfo=UTC)
    lands = leaves + timedelta(hours=hours, minutes=mins)
    local = lands.astimezone(timezone(timedelta(hours=-3)))
    assert f"{leaves:%A}" == "Monday"
    answer = output_of("arrival_in_sao_paulo")
    assert f"is {lands:%H:%M} on {lands:%A} in Lisbon" in answer
    assert answer.endswith(f"arrives at {local:%H:%M} on {local:%A}, local time.")


def test_gym_notice() -> None:
    """Notice by 31 May leaves one whole calendar month to the end of June."""
    assert calendar.monthrange(2025, 6)[1] == 30
    last = date(2025, 6, 30)
    notice = date(last.year, last.month, 1) - timedelta(days=1)
    assert output_of("gym_cancellation").endswith(
        f"to leave at the end of {last:%B}, give written notice by {notice.day} {notice:%B}."
    )
