"""JSON, YAML, CSV, tables and what was extracted: each is read back by a parser and compared with its source."""

import ast
import csv
import io
import json
import re
from datetime import UTC, datetime

import pytest
import yaml

from tests.seeds.facts import (
    NUMBER,
    SEEDS,
    cases_of,
    code_of,
    input_of,
    output_of,
    sentences,
    table_rows,
    text_of,
)


def csv_rows(text: str) -> list[dict[str, str]]:
    """The rows of a CSV text, every one as long as its heading."""
    rows = list(csv.DictReader(io.StringIO(text)))
    assert all(None not in row and None not in row.values() for row in rows)
    return rows


def test_json_outputs_parse() -> None:
    """Whatever looks like JSON is JSON."""
    parsed = 0
    for seed in SEEDS:
        for instance in seed["instances"]:
            if instance["output"][0] in "[{":
                json.loads(instance["output"])
                parsed += 1
    assert parsed >= 1


def test_csv_to_json() -> None:
    """The JSON holds what the csv module reads, with real numbers and booleans."""
    rows = [
        {"item": row["item"], "price": float(row["price"]), "in_stock": row["in_stock"] == "yes"}
        for row in csv.DictReader(io.StringIO(input_of("csv_to_json")))
    ]
    answer = json.loads(output_of("csv_to_json"))
    assert answer == rows
    assert all(isinstance(row["in_stock"], bool) and not isinstance(row["price"], str) for row in answer)


def test_yaml_settings() -> None:
    """The JSON holds what the YAML holds, types and order included."""
    given, answer = yaml.safe_load(input_of("yaml_settings")), json.loads(output_of("yaml_settings"))
    assert json.dumps(given) == json.dumps(answer)
    assert answer["oven"]["fan"] is False


def test_nested_json_to_csv() -> None:
    """The CSV has the columns asked for and the values of the JSON."""
    people = json.loads(input_of("nested_json_to_csv"))
    rows = csv_rows(output_of("nested_json_to_csv"))
    assert rows == [{"name": person["name"], **person["address"]} for person in people]
    assert list(rows[0]) == ["name", "city", "postcode"]
    assert all(column in text_of("nested_json_to_csv") for column in rows[0])


def test_broken_json() -> None:
    """The three faults named are the faults: with any one of them left in, it is no JSON."""
    broken, mended = input_of("broken_json"), code_of("broken_json")
    assert ast.literal_eval(broken) == json.loads(mended)
    mends = [("'name'", '"name"'), (",]", "]"), ("True", "true")]
    for left_in in range(3):
        text = broken
        for number, (fault, mend) in enumerate(mends):
            assert fault in broken
            text = text if number == left_in else text.replace(fault, mend)
        with pytest.raises(json.JSONDecodeError):
            json.loads(text)
    for fault, mend in mends:
        broken = broken.replace(fault, mend)
    assert broken == mended
    assert len(re.findall(r"^\d\. ", output_of("broken_json"), re.MULTILINE)) == 3


def test_guest_list() -> None:
    """Trimmed, capitalised, without repeats and in the order of the surnames."""
    names = {" ".join(line.split()).title() for line in input_of("guest_list").splitlines()}
    assert output_of("guest_list").splitlines() == sorted(names, key=lambda name: name.split()[-1])
    assert len(names) == 3 < len(input_of("guest_list").splitlines())


def test_fruit_pivot() -> None:
    """Every sale stands in its cell, and the other cells hold 0."""
    sold = {(row["month"], row["fruit"].title()): row["kg"] for row in csv_rows(input_of("fruit_pivot"))}
    (corner, *fruits), *rows = table_rows(output_of("fruit_pivot"))
    assert corner == "Month"
    assert fruits == sorted({fruit for _, fruit in sold})
    assert [row[0] for row in rows] == list(dict.fromkeys(month for month, _ in sold))
    for month, *cells in rows:
        assert cells == [sold.get((month, fruit), "0") for fruit in fruits]


def test_book_records() -> None:
    """The label is what a check of the two fields gives."""
    for text, label in cases_of("book_record_check"):
        record = json.loads(text)
        if not {"title", "year"} <= set(record):
            expected = "missing field"
        else:
            right = isinstance(record["title"], str) and type(record["year"]) is int
            expected = "valid" if right else "wrong type"
        assert label == expected


def test_durations() -> None:
    """Each way of writing a duration, turned into minutes."""

    def in_minutes(text: str) -> float:
        """Minutes of 0:12, 1 h 20 min, 45 min or 1.5 h."""
        if ":" in text:
            hours, mins = text.split(":")
            return int(hours) * 60 + int(mins)
        return sum(float(n) * {"h": 60, "min": 1}[unit] for n, unit in re.findall(r"([\d.]+) (h|min)", text))

    given, answer = csv_rows(input_of("durations_in_minutes")), csv_rows(output_of("durations_in_minutes"))
    assert [(row["step"], float(row["minutes"])) for row in answer] == [
        (row["step"], in_minutes(row["duration"])) for row in given
    ]
    assert all(row["minutes"].isdigit() for row in answer)


def test_river_table() -> None:
    """Each city stands with its country and its river, and all of it comes from the input."""
    heading, *rows = table_rows(output_of("river_table"))
    assert heading == ["City", "Country", "River"]
    facts = {
        "Budapest": ("Hungary", "Danube"),
        "Cairo": ("Egypt", "Nile"),
        "London": ("United Kingdom", "Thames"),
    }
    assert {city: (country, river) for city, country, river in rows} == facts
    assert all(cell in input_of("river_table") for row in rows for cell in row)


def test_price_per_litre() -> None:
    """The new column is price by litres, the rows are the old ones, cheapest first."""
    old_heading, *old = table_rows(input_of("price_per_litre"))
    heading, *rows = table_rows(output_of("price_per_litre"))
    assert heading == [*old_heading, "Price per litre"]
    assert sorted(row[:3] for row in rows) == sorted(old)
    for _, litres, price, unit in rows:
        assert unit == f"{float(price) / float(litres):.2f}"
    assert [float(row[3]) for row in rows] == sorted(float(row[3]) for row in rows)


# Extraction


def test_iso_dates() -> None:
    """Every date of the text, sorted, none added."""
    found = re.findall(r"\d{1,2} [A-Z][a-z]+ \d{4}", input_of("iso_dates"))
    dates = sorted(datetime.strptime(text, "%d %B %Y").replace(tzinfo=UTC).date().isoformat() for text in found)
    assert output_of("iso_dates").splitlines() == dates


def test_copied_sentence() -> None:
    """The sentence stands in the message once, word for word."""
    assert input_of("quote_the_admission").count(output_of("quote_the_admission")) == 1


def test_table_booking() -> None:
    """Name, guests and date are those of the message; the time, which is not in it, is null."""
    booking = json.loads(output_of("table_booking"))
    assert list(booking) == ["name", "guests", "date", "time"]
    assert all(key in text_of("table_booking") for key in booking)
    day = datetime.strptime(booking["date"], "%Y-%m-%d").replace(tzinfo=UTC)
    assert f"{day.day} {day:%B %Y}" in input_of("table_booking")
    assert booking["name"] in input_of("table_booking")
    assert (booking["guests"], booking["time"]) == (5, None)
    assert "for five" in input_of("table_booking")
    assert not re.search(r"\d:\d", input_of("table_booking"))


def test_log_line() -> None:
    """The fields put together are the line."""
    entry = json.loads(output_of("log_line"))
    assert list(entry) == ["time", "level", "service", "message"]
    assert "{time} {level} {service}: {message}".format(**entry) == input_of("log_line")
    assert datetime.fromisoformat(entry["time"]).tzinfo is not None


def test_pool_notice() -> None:
    """Both questions are about one notice; the price is not in it, the slide is."""
    (first, unknown), (second, known) = cases_of("pool_notice")
    notice = first.partition("\n")[0]
    assert second.startswith(notice)
    assert not re.search(r"euro|price|cost|pay|\d\.\d", notice)
    assert "does not tell" in unknown
    assert "children under six swim free with an adult" in unknown
    assert "The slide stays closed this season" in notice
    assert known == "No, the slide stays closed this season."


def test_caretaker_brief() -> None:
    """Two sentences, and no number or day that the report does not have."""
    answer, report = output_of("caretaker_report"), input_of("caretaker_report")
    assert sentences(answer) == 2
    assert set(NUMBER.findall(answer)) == set(NUMBER.findall(report))
    for day in re.findall(r"\w+day\b", answer):
        assert day in report


def test_allotment_minutes() -> None:
    """Three lines with the headings asked for; time, person and date come from the notes."""
    lines = output_of("allotment_minutes").splitlines()
    assert [line.partition(":")[0] for line in lines] == ["Decided", "To do", "Open"]
    for fact in ("second water butt", "21:00 from now on", "Hamid", "by the 10th", "hens", "in May"):
        assert fact in input_of("allotment_minutes")
        assert fact in output_of("allotment_minutes")
    assert not re.search("holiday|phone", output_of("allotment_minutes"))


def test_meeting_notes() -> None:
    """Every task, person and deadline comes from the notes."""
    lines = output_of("archive_boxes").splitlines()
    assert len(lines) == 2
    for line in lines:
        match = re.fullmatch(r"- (\w+): (.+)", line)
        assert match is not None
        person, task = match.groups()
        [sentence] = [part for part in input_of("archive_boxes").split(". ") if person in part]
        assert task in sentence


def test_every_json_block_parses() -> None:
    """Fenced JSON is JSON, wherever it stands."""
    for seed in SEEDS:
        for instance in seed["instances"]:
            for block in re.findall(r"^```json\n(.*?)\n```$", instance["output"], re.DOTALL | re.MULTILINE):
                json.loads(block)
