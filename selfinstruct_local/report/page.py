"""The page as a single HTML text that contains the template, the styles, the scripts and the data."""

from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from selfinstruct_local import __version__
from selfinstruct_local.report import verbs
from selfinstruct_local.report.embedding import content_policy, script_json, script_text
from selfinstruct_local.report.novelty import CLOSEST
from selfinstruct_local.report.rows import MAX_CHARACTERS, RowSample, harmless
from selfinstruct_local.report.statistics import SourceStatistics

_NAMED_VERBS = 5
_NONE = "\u2013"  # shown for a missing value


def render_page(figures: Sequence[SourceStatistics], samples: Sequence[RowSample]) -> str:
    """Return the page of all sources, in order.

    Args:
        figures: the statistics of each source.
        samples: the table rows of each source.
    """
    from jinja2 import Environment, StrictUndefined
    from plotly.offline import get_plotlyjs

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "whole": lambda value: f"{value:,}",
        "plain": lambda value: f"{value:,.0f}",
        "share": _percent,
        "score": _score,
        "number": _number,
    }
    scripts = [script_text(get_plotlyjs()), script_text(_resource("charts.js")), script_text(_resource("table.js"))]
    records = [harmless(each.as_record()) for each in figures]
    names = [record["source"] for record in records]
    rows = [{"name": name, "rows": harmless(sample.rows)} for name, sample in zip(names, samples, strict=True)]
    return environment.from_string(_resource("report.html")).render(
        policy=content_policy(scripts),
        style=_resource("report.css"),
        scripts=scripts,
        names=", ".join(names),
        lead=[_sentence(record) for record in records],
        reports=[
            _report(index, record, sample) for index, (record, sample) in enumerate(zip(records, samples, strict=True))
        ],
        overview=[*_overview(records), *_review_rows(figures)],
        has_review=any(each.review for each in figures),
        has_run=any(each.kind == "run" for each in figures),
        has_file=any(each.kind == "file" for each in figures),
        figures_json=script_json(records),
        rows_json=script_json(rows),
        verb_limit=verbs.VERBS,
        noun_limit=verbs.NOUNS,
        verb_model=verbs.MODEL,
        verb_characters=verbs.MAX_CHARACTERS,
        pair_limit=CLOSEST,
        text_limit=MAX_CHARACTERS,
        version=__version__,
    )


def _resource(name: str) -> str:
    return resources.files("selfinstruct_local.report").joinpath("page", name).read_text(encoding="utf-8")


def _sentence(record: Mapping[str, Any]) -> str:
    what = f"{record['source']}: {record['kept']:,} tasks"
    if record["kind"] == "run":
        return f"{what} kept, {record['candidates']:,} candidates decided in {record['jobs']:,} jobs."
    return f"{what} kept, {record['rejections']:,} rejected." if record["rejections"] else f"{what}."


def _report(index: int, record: Mapping[str, Any], sample: RowSample) -> dict[str, Any]:
    """Return the template's values for a source."""
    commonest = record["verbs"]["commonest"] if record["verbs"] else []
    named = ", ".join(f"{each['verb']} {each['count']}" for each in commonest[:_NAMED_VERBS])
    return {
        "index": index,
        "figures": record,
        "sample": sample,
        "pairs_shown": sum(count for each in commonest for _, count in each["nouns"]),
        "verbs_label": f"The most frequent: {named}.",
        "verdicts": {"kept": record["kept"] - record["inherited"], **record["rejected"]},
    }


def _overview(records: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    """Return names and values of the overview table, without rows that have no value for any source."""
    cells: list[tuple[str, list[str]]] = [
        ("kept tasks", [f"{each['kept']:,}" for each in records]),
        ("inherited tasks", [f"{each['inherited']:,}" if each["inherited"] else _NONE for each in records]),
        (
            "rejected candidates",
            [f"{each['rejections']:,}" if each["jobs"] or each["rejections"] else _NONE for each in records],
        ),
        ("acceptance", [_percent(each["acceptance"]) if each["rejections"] else _NONE for each in records]),
        ("jobs", [f"{each['jobs']:,}" if each["jobs"] else _NONE for each in records]),
        ("tokens generated", [f"{each['completion_tokens']:,}" if each["jobs"] else _NONE for each in records]),
        ("accepted per 1,000 tokens", [_number(each["accepted_per_1000_tokens"]) for each in records]),
        ("instances", [f"{each['instances']:,}" for each in records]),
        ("tasks with an input", [_part(each["with_input"], each["kept"]) for each in records]),
        ("classification tasks", [_classification(each) for each in records]),
        ("median instruction length", [_median_length(each, "instruction") for each in records]),
        ("median output length", [_median_length(each, "output") for each in records]),
        ("median ROUGE-L with the nearest seed", [_median_score(each["to_seeds"]) for each in records]),
        (
            "median ROUGE-L with the nearest earlier instruction",
            [_median_score(each["to_earlier"]) for each in records],
        ),
        ("ROUGE-L threshold", [f"{each['threshold']:g}" for each in records]),
        ("instructions above the threshold", [f"{each['to_earlier']['above']:,}" for each in records]),
    ]
    named = dict.fromkeys(name for each in records for name in each["facts"])
    cells += [(name.replace("_", " "), [str(each["facts"].get(name, _NONE)) for each in records]) for name in named]
    return [(name, values) for name, values in cells if any(value != _NONE for value in values)]


def _review_rows(figures: Sequence[SourceStatistics]) -> list[tuple[str, list[str]]]:
    """Return the review rows of all sources, if at least one source has a review."""
    told = [dict(each.review.rows()) if each.review else {} for each in figures]
    names = dict.fromkeys(name for rows in told for name in rows)
    return [(f"review: {name}", [rows.get(name, _NONE) for rows in told]) for name in names]


def _percent(value: float | None) -> str:
    return _NONE if value is None else f"{value:.1%}"


def _number(value: float | None) -> str:
    return _NONE if value is None else f"{value:.2f}"


def _score(value: float | None) -> str:
    return _NONE if value is None else f"{value:.3f}"


def _part(count: int, total: int) -> str:
    return f"{count:,} ({count / total:.1%})" if total else _NONE


def _classification(record: Mapping[str, Any]) -> str:
    """Return the number of classification tasks and their share of the tasks that are marked."""
    said = record["classification"]
    return _part(said["yes"], said["yes"] + said["no"])


def _median_length(record: Mapping[str, Any], field: str) -> str:
    lengths = record["lengths"][field]
    return f"{lengths['median']:,.0f} {record['unit']}" if lengths["count"] else _NONE


def _median_score(counts: Mapping[str, Any] | None) -> str:
    return _score(counts["median"]) if counts else _NONE
