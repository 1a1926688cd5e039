"""The site's settings: ``gridsched.toml`` and the environment, parsed strictly into frozen records.

Every problem is collected and told at once, with its file and key. Three ways for the environment to speak, all of them here,
because nothing else reads it: ``GRIDSCHED_<SECTION>_<KEY>`` overrides one key (``GRIDSCHED_STORE_URL``, ``GRIDSCHED_WEB_PORT``),
``${NAME}`` inside a value is replaced by that variable (for secrets: what it puts into an adapter's table is masked wherever the
adapter fails), and `client` gives the command line its address and token.
"""

import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from datetime import datetime
from pathlib import Path
from types import MappingProxyType, UnionType
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

from gridsched.core.errors import ConfigError, InvalidInput
from gridsched.core.quantity import unknown_key
from gridsched.core.settings import AdapterTable, Blobs, Control, Outgoing, Replay, Settings, Site, StoreAddress, Trust, Web, ZoneTable
from gridsched.core.units import utc

__all__ = ["FILE", "Client", "Settings", "client", "environment_with", "load"]

FILE = "gridsched.toml"
T = TypeVar("T")

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """What the environment tells a command line: GRIDSCHED_URL, GRIDSCHED_TOKEN, GRIDSCHED_SITE, GRIDSCHED_HOME (of a node)."""

    url: str | None = None
    token: str | None = field(default=None, repr=False)
    site: Path | None = None
    home: Path | None = None


def client(*, environ: Mapping[str, str] = os.environ) -> Client:
    """The address, token and folders that the environment names; empty ones count as absent."""
    site, home = environ.get("GRIDSCHED_SITE"), environ.get("GRIDSCHED_HOME")
    return Client(
        url=environ.get("GRIDSCHED_URL") or None,
        token=environ.get("GRIDSCHED_TOKEN") or None,
        site=Path(site) if site else None,
        home=Path(home) if home else None,
    )


def environment_with(added: Mapping[str, str]) -> dict[str, str]:
    """This process's environment and what is ``added`` to it, for a child of its own."""
    return {**os.environ, **added}


_SECTIONS: Mapping[str, type[Any]] = MappingProxyType(
    {
        "site": Site,
        "store": StoreAddress,
        "web": Web,
        "http": Outgoing,
        "clock": Replay,
        "control": Control,
        "blobs": Blobs,
        "trust": Trust,
    }
)
_LISTS: Mapping[str, type[Any]] = MappingProxyType({"zone": ZoneTable, "adapter": AdapterTable})
_CLIENT_VARIABLES = ("GRIDSCHED_SITE", "GRIDSCHED_HOME", "GRIDSCHED_URL", "GRIDSCHED_TOKEN")


def load(site: Path, *, environ: Mapping[str, str] = os.environ) -> Settings:
    """The settings of the site in that folder; raises one `ConfigError` that lists every problem with its file and key."""
    folder = site.absolute()
    problems: list[str] = []
    written = _override(_document(folder), environ, problems)
    document = _expand(written, environ, problems)
    problems += [unknown_key(key, [*_SECTIONS, *_LISTS]) for key in document if key not in _SECTIONS and key not in _LISTS]
    sections = {name: _section(kind, document.get(name), f"[{name}]", problems) for name, kind in _SECTIONS.items()}
    zones = _tables(document, "zone", problems)
    parsed = [_section(ZoneTable, table, f"[[zone]] {number}", problems) for number, table in enumerate(zones, start=1)]
    adapters = [_adapter(table, number, problems) for number, table in enumerate(_tables(document, "adapter", problems), start=1)]
    problems += _duplicates(zone.name for zone in parsed if zone is not None)
    if not zones:
        problems.append("there is no [[zone]]; name at least one with its policy")
    if problems:
        raise ConfigError(_listed(folder / FILE, problems))
    guarded = [
        replace(table, secrets=_from_environment(before, environ))
        for table, before in zip(adapters, _tables(written, "adapter", []), strict=True)
        if table is not None
    ]
    return _settled(folder, sections, [z for z in parsed if z is not None], guarded)


def _document(folder: Path) -> dict[str, Any]:
    path = folder / FILE
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path} does not exist; `gridsched init {folder}` makes a site") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error


def _override(document: dict[str, Any], environ: Mapping[str, str], problems: list[str]) -> dict[str, Any]:
    """``document`` with each GRIDSCHED_<SECTION>_<KEY> put over it; a variable of a section that has no such key is a problem."""
    for name in sorted(environ):
        section, _, key = name.removeprefix("GRIDSCHED_").lower().partition("_")
        if not name.startswith("GRIDSCHED_") or section not in _SECTIONS or name in _CLIENT_VARIABLES:
            continue
        known = _keys(_SECTIONS[section])
        if key not in known:
            problems.append(f"environment variable {name}: {unknown_key(key, known)}")
            continue
        table = document.setdefault(section, {})
        if isinstance(table, dict):
            table[key] = _plain(environ[name], known[key])
    return document


def _plain(text: str, f: "Field[Any]") -> object:
    """An environment variable as TOML would have given it: a number or a boolean where the key wants one."""
    if f.type in (bool, "bool") and text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return int(text) if f.type in (int, "int") else float(text) if f.type in (float, "float") else text
    except ValueError:
        return text


def _expand(value: Any, environ: Mapping[str, str], problems: list[str], where: str = "") -> Any:
    """Every ``${NAME}`` in every string, however deep, replaced by that environment variable."""
    if isinstance(value, dict):
        return {key: _expand(child, environ, problems, f"{where}.{key}".lstrip(".")) for key, child in value.items()}
    if isinstance(value, list):
        return [_expand(child, environ, problems, f"{where}[{number}]") for number, child in enumerate(value, start=1)]
    if not isinstance(value, str):
        return value
    problems += [
        f"{where}: environment variable {name} is not set; export it before starting"
        for name in _VARIABLE.findall(value)
        if name not in environ
    ]
    return _VARIABLE.sub(lambda match: environ.get(match[1], ""), value)


def _from_environment(table: Mapping[str, Any], environ: Mapping[str, str]) -> tuple[str, ...]:
    """The values that `_expand` puts into ``table``, each once."""
    named = dict.fromkeys(_VARIABLE.findall(str(table)))  # a table as text holds each of its strings, however deep it lies
    return tuple(environ[name] for name in named if name in environ)


def _tables(document: Mapping[str, Any], name: str, problems: list[str]) -> list[dict[str, Any]]:
    found = document.get(name, [])
    if isinstance(found, list) and all(isinstance(table, dict) for table in found):
        return found
    problems.append(f"[{name}] must be written [[{name}]]: there can be several")
    return []


def _section(kind: type[T], table: Any, where: str, problems: list[str]) -> T | None:
    """``table`` as the record ``kind``, or None; what is wrong with it goes to ``problems``."""
    if table is None:
        return None
    if not isinstance(table, dict):
        problems.append(f"{where} must be a table")
        return None
    known, hints = _keys(kind), get_type_hints(kind, include_extras=True)
    found = [f"{where} {unknown_key(key, known)}" for key in table if key not in known]
    found += [f"{where} {key!r} is missing" for key, f in known.items() if key not in table and _required(f)]
    values = dict(_values(table, known, hints, where, found))
    if not found:
        try:
            return kind(**values)
        except InvalidInput as error:
            found.append(f"{where} {error}")
    problems += found
    return None


def _values(
    table: Mapping[str, Any], known: Mapping[str, "Field[Any]"], hints: Mapping[str, Any], where: str, problems: list[str]
) -> Iterator[tuple[str, object]]:
    for key in known.keys() & table.keys():
        try:
            yield known[key].name, _as(hints[known[key].name], table[key])
        except InvalidInput as error:
            problems.append(f"{where} {key}: {error}")


def _as(hint: Any, value: object) -> object:
    """``value`` as the type ``hint``, strictly; an annotated type brings its own reader."""
    if get_origin(hint) is Annotated:
        return get_args(hint)[1](value)
    if get_origin(hint) is UnionType:
        return _as(next(arg for arg in get_args(hint) if arg is not type(None)), value)
    if hint is datetime:
        return _moment(value)
    if hint is Path and isinstance(value, str) and value:
        return Path(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    raise InvalidInput(f"{value!r} is not a {hint.__name__}")


def _moment(value: object) -> datetime:
    try:
        return utc(datetime.fromisoformat(value) if isinstance(value, str) else value)  # type: ignore[arg-type]
    except (ValueError, AttributeError) as error:
        raise InvalidInput(f"{value!r} is not a moment with its UTC offset; write it like 2018-05-01T00:00:00Z") from error


def _adapter(table: dict[str, Any], number: int, problems: list[str]) -> AdapterTable | None:
    options = dict(table)
    use = options.pop("use", None)
    if isinstance(use, str) and use:
        return AdapterTable(use=use, options=MappingProxyType(options))
    problems.append(
        f'[[adapter]] {number} \'use\' is missing; name a file below adapters/, such as "signals/energy_charts.py", or "module:Class"'
    )
    return None


def _keys(kind: type[Any]) -> dict[str, "Field[Any]"]:
    """Each key as it is written in the file, with its field."""
    return {f.metadata.get("key", f.name): f for f in fields(kind)}


def _required(f: "Field[Any]") -> bool:
    return f.default is MISSING and f.default_factory is MISSING


def _duplicates(names: Iterable[str]) -> Iterator[str]:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            yield f"[[zone]] name: {name!r} is there twice; a zone has one policy"
        seen.add(name)


def _listed(path: Path, problems: list[str]) -> str:
    if len(problems) == 1:
        return f"{path}: {problems[0]}"
    return f"{path} has {len(problems)} problems:\n" + "\n".join(f"  - {problem}" for problem in problems)


def _settled(folder: Path, sections: Mapping[str, Any], zones: list[ZoneTable], adapters: list[AdapterTable]) -> Settings:
    """The records with every path made absolute: from the site, or for a bare policy name from its ``policies/``."""
    site, web = sections["site"] or Site(), sections["web"] or Web()
    return Settings(
        folder=folder,
        site=Site(name=site.name, data=folder / site.data),
        store=StoreAddress(url=_placed(folder, (sections["store"] or StoreAddress()).url)),
        web=_replaced_paths(web, folder),
        http=sections["http"] or Outgoing(),
        clock=sections["clock"],
        control=sections["control"] or Control(),
        blobs=sections["blobs"] or Blobs(),
        trust=sections["trust"] or Trust(),
        zones=tuple(ZoneTable(name=z.name, policy=_policy(folder, z.policy)) for z in zones),
        adapters=tuple(adapters),
    )


def _policy(folder: Path, policy: Path) -> Path:
    return folder / ("policies" / policy if len(policy.parts) == 1 else policy)


def _placed(folder: Path, url: str) -> str:
    """A SQLite file's path made absolute; any other address as it is."""
    path = url.removeprefix("sqlite:///")
    if path == url or not path or path.startswith(":memory:"):
        return url
    return f"sqlite:///{folder / path}"


def _replaced_paths(web: Web, folder: Path) -> Web:
    if web.tls_cert is None or web.tls_key is None:
        return web
    values = {f.name: getattr(web, f.name) for f in fields(web)}
    return Web(**{**values, "tls_cert": folder / web.tls_cert, "tls_key": folder / web.tls_key})
