"""The report opens without a network, is the same on a rerun, and says first what is proven."""

from __future__ import annotations

import copy
import re
from html.parser import HTMLParser
from typing import Any

import pandas as pd
import pytest

from tests.holdouts import Case
from tradeloop.report import interval, number, render, verdict

VOID = {"meta", "br", "link", "img", "input", "hr"}


class Page(HTMLParser):
    """Collects what a browser would load, the text a person reads, and checks that tags are closed."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.loads += [values[name] or "" for name in ("src", "href", "xlink:href", "data") if name in values]
        if tag in ("script", "link", "iframe", "object"):
            self.loads.append(f"<{tag}>")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data


@pytest.fixture(scope="module")
def folds(honest: Case) -> pd.DataFrame:
    return pd.read_csv(honest.layout.reports / "folds.csv")


@pytest.fixture(scope="module")
def source(honest: Case, folds: pd.DataFrame) -> str:
    return render(honest.evaluation, honest.judgement.plots, folds).decode()


@pytest.fixture(scope="module")
def page(source: str) -> Page:
    return Page(source)


def test_nothing_is_loaded(source: str, page: Page) -> None:
    assert page.open == []
    for target in page.loads:
        assert target.startswith(("#", "data:image/png;base64,")), target
    assert not re.search(r"@import|url\(\s*['\"]?(?!#)", source)
    # the names of XML vocabularies are all the addresses there are
    assert set(re.findall(r"https?://[^\s\"'<>)]+", source)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }


def test_the_same_bytes_again(honest: Case, folds: pd.DataFrame, source: str) -> None:
    assert render(honest.evaluation, honest.judgement.plots, folds).decode() == source


def test_the_verdict_comes_first(page: Page, honest: Case) -> None:
    text = " ".join(page.text.split())
    head = text[: text.index("Scores")]
    assert "Direction no proven edge" in head.replace("direction", "Direction")
    assert "proven skill" in head
    assert "served as information only" in head
    auc = honest.evaluation["targets"]["direction"]["metrics"]["auc"]
    assert f"AUC {auc['value']:.3f} [{auc['low']:.3f} … {auc['high']:.3f}]" in head
    assert "HAR" in head


def test_every_forecaster_plot_and_control_is_there(page: Page, source: str, honest: Case) -> None:
    for name in ("ensemble", "XGBoost", "majority class", "previous value", "EWMA", "HAR", "buy and hold"):
        assert name in page.text
    assert source.count("<svg") == 2 + 1 + 1 + 3 + 3
    for control in honest.evaluation["controls"]:
        assert control["text"] in page.text
    assert "Look into this first" not in page.text


def test_flags_and_failed_controls_stand_at_the_top(skilled: Case, folds: pd.DataFrame) -> None:
    evaluation: dict[str, Any] = copy.deepcopy(skilled.evaluation)
    evaluation["controls"][0]["passed"] = False
    text = Page(render(evaluation, skilled.judgement.plots, folds).decode()).text
    head = text[: text.index("Scores")]
    assert "Look into this first" in head
    assert "A control failed (shuffled labels)" in head


def test_what_is_undefined_is_a_dash(honest: Case, folds: pd.DataFrame) -> None:
    evaluation: dict[str, Any] = copy.deepcopy(honest.evaluation)
    evaluation["trading"]["metrics"]["sharpe"] = {"value": None, "low": None, "high": None}
    evaluation["trading"]["break_even_bps"] = evaluation["trading"]["deflated_sharpe"] = None
    evaluation["targets"]["return"]["metrics"]["ic"] = {"value": None, "low": None, "high": None}
    text = Page(render(evaluation, honest.judgement.plots, folds).decode()).text
    assert "never traded" in text
    assert "None" not in text
    assert "nan" not in text.lower().replace("finan", "")


def test_names_are_escaped(honest: Case, folds: pd.DataFrame) -> None:
    evaluation = copy.deepcopy(honest.evaluation)
    evaluation["market"] = "<script>alert(1)</script>"
    assert "<script" not in render(evaluation, honest.judgement.plots, folds).decode()


def test_numbers_as_a_person_reads_them() -> None:
    assert number("auc", 0.5406) == "0.541"
    assert number("accuracy", 0.5281) == "52.8%"
    assert number("rmse", 0.01141, "return") == "114.1 bp"
    assert number("rmse", 0.3852, "range") == "0.385"
    assert number("sharpe", None) == "–"
    assert interval("auc", {"low": 0.5, "high": 0.6}) == "0.500 … 0.600"
    assert interval("auc", {"low": None, "high": None}) == ""


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(0.01, 0.05, "better than HAR"), (-0.05, -0.01, "worse than HAR"), (-0.01, 0.02, "not distinguishable from HAR")],
)
def test_how_range_stands_beside_har(honest: Case, low: float, high: float, said: str) -> None:
    scores = copy.deepcopy(honest.evaluation["targets"]["range"])
    scores["differences"]["har"]["gain"] = {"value": (low + high) / 2, "low": low, "high": high}
    assert any(reason.startswith(said) for reason in verdict("range", scores)["reasons"])
