"""What the commands share: the project they work on, and tables or JSON for what they say."""

from __future__ import annotations

import getpass
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from tradeloop.config import Params, load_params
from tradeloop.errors import ConfigError, DataError
from tradeloop.layout import Layout
from tradeloop.registry import Registry
from tradeloop.state.database import Database, database_url

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def project() -> tuple[Layout, Params]:
    """Return the project of the working directory (or ``$TRADELOOP_HOME``) and its parameters."""
    layout = Layout.current()
    return layout, load_params(layout.params)


@contextmanager
def opened(layout: Layout, params: Params) -> Iterator[tuple[Database, Registry]]:
    """Yield the project's database and the registry of its market."""
    database = Database.open(database_url(layout, params))
    try:
        yield database, Registry(database, params.market)
    finally:
        database.close()


def actor() -> str:
    """Return who acts, for the registry's events."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return "cli"


def show_json(content: Any) -> None:
    """Print `content` as indented JSON; times in ISO 8601."""
    print(json.dumps(content, indent=2, ensure_ascii=False, default=_plain))


def show_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str | None = None) -> None:
    """Print a table; None is shown as a dash."""
    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    _console().print(table)


def show_facts(facts: Iterable[tuple[str, Any]]) -> None:
    """Print names and values below each other."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts:
        table.add_row(name, _cell(value))
    _console().print(table)


def day_and_time(moment: datetime | str | None) -> str | None:
    """Return a time to the second, in UTC."""
    if moment is None:
        return None
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment)
    return moment.strftime("%Y-%m-%d %H:%M:%S")


def moment(text: str, name: str) -> datetime:
    """Return the time that an argument gives, in UTC.

    Raises
    ------
    ConfigError
        It is no ISO time with an offset; `name` says which argument.
    """
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"{name} must be an ISO time (2013-02-28T21:00:00Z), got {text!r}") from None
    if parsed.tzinfo is None:
        raise ConfigError(f"{name} must carry its UTC offset (2013-02-28T21:00:00Z), got {text!r}")
    return parsed.astimezone(UTC)


def read_report(path: Path, *, key: str) -> dict[str, Any] | None:
    """Return a report that a stage wrote, None where there is none; DataError where it is no JSON object with `key`."""
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(content, dict) or key not in content:
        raise DataError(f"{path} has no {key}")
    return content


def _console() -> Console:
    # In a pipe rich would assume 80 columns and fold; what reads a pipe wants whole lines.
    console = Console(highlight=False, markup=False, emoji=False)
    return console if console.is_terminal else Console(width=200, highlight=False, markup=False, emoji=False)


def _cell(value: Any) -> str:
    return "–" if value is None else str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is not JSON")
