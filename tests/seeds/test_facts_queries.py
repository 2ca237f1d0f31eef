"""SQL and regular expressions in the seeds: all of them are run."""

import itertools
import re
import sqlite3

import pytest

from tests.seeds.facts import code_of, input_of, output_of, run_python, text_of

# SQL


def test_sql_runs() -> None:
    """The query gives the customers with no order in 2024, and only them."""
    database = sqlite3.connect(":memory:")
    database.executescript(
        """
        CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT);
        CREATE TABLE orders (id INTEGER PRIMARY KEY, customer_id INTEGER, placed_on TEXT);
        INSERT INTO customers VALUES (1, 'Zed'), (2, 'Amy'), (3, 'Bo'), (4, 'Cy'), (5, 'Di');
        INSERT INTO orders VALUES (1, 1, '2023-12-31'), (2, 2, '2024-01-01'), (3, 3, '2024-12-31'),
                                  (4, 3, '2024-05-31'), (5, 4, '2025-01-01'), (6, 4, '2023-06-01');
        """
    )
    assert database.execute(code_of("no_orders_in_2024")).fetchall() == [("Cy",), ("Di",), ("Zed",)]
    database.close()


def test_largest_orders() -> None:
    """Every customer's largest orders, ties included."""
    assert input_of("sql_largest_order") == "orders(id, customer, amount)"
    rows = [(1, "Bo", 5), (2, "Amy", 7), (3, "Bo", 9), (4, "Amy", 7), (5, "Amy", 2), (6, "Cy", 1)]
    database = sqlite3.connect(":memory:")
    database.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, customer TEXT, amount REAL)")
    database.executemany("INSERT INTO orders VALUES (?, ?, ?)", rows)
    found = database.execute(code_of("sql_largest_order")).fetchall()
    database.close()
    top = {customer: max(amount for _, who, amount in rows if who == customer) for _, customer, _ in rows}
    assert found == sorted((who, key, amount) for key, who, amount in rows if amount == top[who])
    assert len(found) == 4


def test_sql_injection() -> None:
    """The given lookup lets an attacker in, the new one does not, and both find a name that is there."""
    database = sqlite3.connect(":memory:")
    database.executescript(
        "CREATE TABLE users (id INTEGER, name TEXT); INSERT INTO users VALUES (1, 'ada'), (2, 'bo');"
    )
    open_door = run_python(input_of("sql_injection"))["find_user"]
    shut_door = run_python(code_of("sql_injection"))["find_user"]
    attack = "nobody' OR '1'='1"
    assert open_door(database, "bo") == shut_door(database, "bo") == (2,)
    assert open_door(database, attack) == (1,)
    assert shut_door(database, attack) is None
    assert shut_door(database, "o'neill") is None
    with pytest.raises(sqlite3.OperationalError):
        open_door(database, "o'neill")
    database.close()


# Regular expressions


def test_clock_regex() -> None:
    """Exactly the 1,440 times of a day match."""
    pattern = re.compile(code_of("clock_regex"))
    for hour, minute in itertools.product(range(100), range(100)):
        assert bool(pattern.match(f"{hour:02}:{minute:02}")) == (hour < 24 and minute < 60)
    for text in ("7:45", "07:5", "07-45", " 07:45", "07:45 ", "007:45", "07:450", "0745", "", "ab:cd"):
        assert not pattern.match(text)
    assert "00 to 19 or 20 to 23, the minutes 00 to 59" in output_of("clock_regex")
    named = re.findall(r"\d+:\d+", text_of("clock_regex"))
    assert named == ["07:45", "23:59", "7:45", "24:00", "12:60"]
    assert [bool(pattern.match(text)) for text in named] == [True, True, False, False, False]


def test_regex_pieces() -> None:
    """The pieces put together are the expression, and the examples do as told."""
    *pieces, verdict = output_of("regex_pieces").splitlines()
    found = [re.fullmatch(r"`(.+)`: .+", piece) for piece in pieces]
    assert "".join(match.group(1) for match in found if match is not None) == input_of("regex_pieces")
    assert all(found)
    pattern = re.compile(input_of("regex_pieces"))
    told = re.fullmatch(r"It matches (\S+), but not (\S+)\.", verdict)
    assert told is not None
    assert pattern.match(told.group(1))
    assert not pattern.match(told.group(2))
