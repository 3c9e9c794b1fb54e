"""Input that nobody would type, each case drawn from its kind and number alone, so that it can be drawn again."""

import json
import random
import string
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from ml_postgres_optimization.interfaces.settings import Settings
from ml_postgres_optimization.safety.journal import KnobChange, Record, RecordKind, encoded

SECRET = "xK7secretq9Z"
NASTY = (
    *("", " ", "'", '"', "''", ";", "--", "/*", "\\", "\n", "\r\n", "\t", "\x1b[2J", "\x7f", "\u202e", "\x00"),
    *("ünï", "漢字", "\U0001f4a5", "\udcff", "%00", "%zz", "%", "%s", "{}", "{0.__class__}", "$(id)", "`id`", "\\x"),
    *("../up", "-1", "1e999", "nan", "inf", "0x10", "1_0", "٣", "9" * 400, "a" * 63, "a" * 64, "é" * 32),
    *("'; DROP SCHEMA genesis CASCADE; --", "on", "true", "null", "[]", "=", "@", ":", "/", "?", "#", "&", "~nobody"),
)
HOSTS = ("127.0.0.1", "/nowhere", "[::1]", "127.0.0.1,127.0.0.1", "", "/" + "x" * 120, "localhost")
PORTS = ("1", "", "0", "65536", "-1", "abc", "1,1", "٣", "99999999999999999999")
PARAMETERS = (
    *(
        "host",
        "hostaddr",
        "port",
        "user",
        "dbname",
        "password",
        "passfile",
        "service",
        "sslmode",
        "sslcert",
        "sslkey",
    ),
    *(
        "sslrootcert",
        "sslpassword",
        "options",
        "application_name",
        "client_encoding",
        "connect_timeout",
        "gssencmode",
    ),
    *("keepalives_idle", "channel_binding", "target_session_attrs", "require_auth", "krbsrvname", "replication"),
)
COMMANDS = (
    *("setup", "simulate", "train", "optimize", "tune", "test", "status", "history", "explain", "rollback", "export"),
    *("doctor", "uninstall"),
)
OPTIONS = (
    *("--dsn", "--repository", "--pg-bin", "--duration", "-d", "--simulate", "-s", "--scale", "--level", "--seed"),
    *(
        "--objective",
        "--trials",
        "--study",
        "--memory-limit-bytes",
        "--allow-restart",
        "--restart-command",
        "--output",
    ),
    *("--dry-run", "--json", "--debug", "--to", "--limit", "--format", "--directory", "--report", "--pictures"),
    *("--workload", "--clients", "--query-timeout", "--allow-knob", "--continuous", "--retention-days", "--help"),
    *("--minimum-success-ratio", "--maximum-mean-milliseconds", "--objective-limit-milliseconds", "--mode", "--"),
)
PLAUSIBLE = (
    "1",
    "0.01",
    "HIGH",
    "mean",
    "p95",
    "baseline",
    "last",
    "csv",
    "parquet",
    "genesis",
    "tpcb",
    "all",
    "work_mem",
)
# What a machine that names no server, or one that is not there, is still answered by.
AWAY = frozenset({2, 3})
_JOURNAL_LIVES = (
    ("intent",),
    ("intent", "armed", "applied"),
    ("intent", "applied", "withdrawn", "applied"),
    ("intent", "applied", "confirmed"),
    ("intent", "applied", "confirmed", "reopened"),
    ("intent", "reverted"),
)


@dataclass(frozen=True, slots=True)
class Case:
    """One start of the program.

    Parameters
    ----------
    words : tuple of str
    codes : frozenset of int
        The exit codes that are right for it.
    environ : mapping of str to str
    files : mapping of str to bytes
        What lies in the state folder of the server (a relative path) → its content.
    by_modes : bool
        Whether it is ``run.py`` that is started.
    on_server : bool
        Whether it meets a server that is there.
    """

    words: tuple[str, ...]
    codes: frozenset[int]
    environ: dict[str, str] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    by_modes: bool = False
    on_server: bool = False


def hostile(rng: random.Random) -> str:
    """Return a text of up to three parts, seldom a harmless one."""
    parts = [rng.choice(NASTY) if rng.random() < 0.8 else rng.choice(PLAUSIBLE) for _ in range(rng.randint(1, 3))]
    return "".join(parts) + (
        "".join(rng.choices(string.printable, k=rng.randint(0, 8))) if rng.random() < 0.3 else ""
    )


def speakable(text: str) -> str:
    """Return a text as an environment or a file system can hold it."""
    return text.replace("\0", "")


def changed(rng: random.Random, content: bytes) -> bytes:
    """Return bytes that were flipped, cut, doubled or filled up somewhere."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(data) + 1)
        how = rng.randrange(6)
        if how == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif how == 1:
            del data[at:]
        elif how == 2:
            data[at:at] = rng.randbytes(rng.randint(1, 40))
        elif how == 3:
            data[at:at] = hostile(rng).encode("utf-8", "surrogateescape")
        elif how == 4:
            del data[at : at + rng.randint(1, 40)]
        else:
            data[at:at] = data[: rng.randint(0, 200)] or b"\0" * rng.randint(1, 4096)
    return bytes(data)


def uri(rng: random.Random) -> str:
    """Return something like a URI, with a password in it as often as not."""
    scheme = rng.choice(("postgresql://", "postgres://", "postgresql:/", "http://", ""))
    user = quote(hostile(rng), errors="replace") if rng.random() < 0.5 else hostile(rng)
    password = f":{SECRET}" if rng.random() < 0.7 else ""
    port = f":{rng.choice(PORTS)}" if rng.random() < 0.7 else ""
    query = "&".join(f"{rng.choice(PARAMETERS)}={hostile(rng)}" for _ in range(rng.randint(0, 2)))
    return f"{scheme}{user}{password}@{rng.choice(HOSTS)}{port}/{hostile(rng)}?hostaddr=127.0.0.1&{query}"


def keywords(rng: random.Random) -> str:
    """Return something like libpq's keywords."""
    pairs = [f"host={rng.choice(HOSTS)}", f"port={rng.choice(PORTS)}", f"password={SECRET}"]
    pairs += [f"{rng.choice(PARAMETERS)}={rng.choice(('', chr(39)))}{hostile(rng)}" for _ in range(rng.randint(0, 3))]
    rng.shuffle(pairs)
    return rng.choice((" ", "  ", "\n", ";")).join(pairs)


def connection(rng: random.Random) -> str:
    """Return what may be given for a connection; never one that leads to another machine."""
    return rng.choice((uri, uri, keywords, keywords, hostile))(rng)


def dsn(rng: random.Random) -> Case:
    """Draw a connection, given by the command line or by the environment."""
    command = rng.choice(("status", "history", "doctor", "setup", "rollback", "optimize", "explain"))
    option, given = rng.choice((("--dsn", "GENESIS_DSN"), ("--repository", "GENESIS_REPOSITORY"))), connection(rng)
    more = rng.sample(("--json",), rng.randint(0, 1))
    if rng.random() < 0.7:
        return Case((command, option[0], given, *more), AWAY)
    return Case((command, *more), AWAY, {option[1]: speakable(given)})


def command_line(rng: random.Random) -> Case:
    """Draw words; no server is there that they could harm."""
    by_modes = rng.random() < 0.3
    words = [] if by_modes else [rng.choice((*COMMANDS, *COMMANDS, hostile(rng)))]
    for _ in range(rng.randint(0, 4)):
        words.append(rng.choice(OPTIONS))
        if rng.random() < 0.7:
            words.append(rng.choice((hostile(rng), rng.choice(PLAUSIBLE), connection(rng))))
    if rng.random() < 0.1:
        words.insert(rng.randrange(len(words) + 1), f"postgresql://u:{SECRET}@127.0.0.1:1/d")
    return Case(tuple(words), frozenset({0, *AWAY}) if "--help" in words else AWAY, by_modes=by_modes)


def environment(rng: random.Random) -> Case:
    """Draw variables of ours, of the specification, and of libpq."""
    names = (
        *(f"GENESIS_{name.upper()}" for name in Settings.model_fields),
        *("POSTGRES_DB", "POSTGRES_USER", "POSTGRES_HOST", "POSTGRES_PORT", "POSTGRES_PASSWORD_FILE"),
        *("PGUSER", "PGDATABASE", "PGPORT", "PGSERVICE", "PGSERVICEFILE", "PGPASSFILE", "PGSSLMODE", "PGOPTIONS"),
        *(
            "PGCLIENTENCODING",
            "PGTARGETSESSIONATTRS",
            "PGHOSTADDR",
            "PGCONNECT_TIMEOUT",
            "PGSSLROOTCERT",
            "GENESIS_HOME",
        ),
    )
    environ = {"PGPASSWORD": SECRET, "POSTGRES_PASSWORD": SECRET} if rng.random() < 0.5 else {}
    for name in rng.sample(names, rng.randint(1, 3)):
        value = speakable(hostile(rng))
        environ[name] = f"~{value}" if name == "GENESIS_HOME" and rng.random() < 0.3 else value.lstrip("/")
    words = rng.choice((("status",), ("doctor", "--json"), ("history", "--json"), ("setup",), ("tune", "--dry-run")))
    return Case(words, AWAY, environ)


def name(rng: random.Random) -> Case:
    """Draw an id, a name, a place or a number for a command that meets a server."""
    # relative, so that what is written is written below the sandbox
    given = rng.choice((hostile(rng), hostile(rng), rng.choice(PLAUSIBLE))).lstrip("/")
    words, codes = rng.choice(
        (
            (("explain", given), {0, 2}),
            (("explain", "last", "--report", given), {0, 2}),
            (("rollback", "--to", given), {0, 2}),
            (("rollback", "--to", given, "--dry-run"), {0, 2}),
            (("export", "--format", given), {0, 2}),
            (("export", "--directory", given), {0, 2}),
            (("history", "--limit", given), {0, 2}),
            (("optimize", "--allow-knob", given, "--dry-run"), {0, 2}),
            (("optimize", "--memory-limit-bytes", given, "--dry-run"), {0, 2}),
            (("status", "--repository", connection(rng)), AWAY),
            (("tune", "--workload", given, "--dry-run"), {0, 2}),
            (("test", "--simulate", "--dry-run", "--duration", given), {0, 2}),
        )
    )
    return Case((*words, *rng.sample(("--json",), rng.randint(0, 1))), frozenset(codes), on_server=True)


def workload(rng: random.Random) -> Case:
    """Draw a folder of scripts, more or less in pgbench's language."""
    whole = (
        b"\\set id random_zipfian(1, 100000 * :scale, 1.1)\n\\if :id > 5 and not false\nBEGIN;\n"
        b"SELECT abalance FROM t WHERE aid = :id AND n = 'it''s' AND d = $$x;y$$;\n\\gset\n\\else\n"
        b"\\sleep 5 ms\nUPDATE t SET a = a + 1 WHERE aid = :id; \\;\n\\endif\nEND;\n"
    )
    files = {}
    for _ in range(rng.randint(1, 3)):
        stem = (
            speakable(hostile(rng)).replace("/", "_")[:60]
            if rng.random() < 0.4
            else rng.choice(("a", "b@3", "setup"))
        )
        content = rng.choice(
            (changed(rng, whole), changed(rng, whole), rng.randbytes(rng.randint(0, 300)), nested(rng))
        )
        files[f"workload/{stem}.sql"] = content
    return Case(("tune", "--workload", "workload", "--dry-run"), frozenset({0, 2}), files=files, on_server=True)


def nested(rng: random.Random) -> bytes:
    """Return an expression that is deeper, or a number that is larger, than anybody needs."""
    depth = rng.choice((10, 200, 5_000))
    return rng.choice(
        (
            f"\\set x {'(' * depth}1{')' * depth}\nSELECT 1;",
            f"\\set x {'-' * depth}1\nSELECT 1;",
            f"\\set x {'9' * depth}\nSELECT 1;",
            f"\\set x 1 {'+ 1 ' * depth}\nSELECT 1;",
            "\\if true\n" * depth + "SELECT 1;",
            f"SELECT {'(' * depth};",
        )
    ).encode()


def journal(rng: random.Random) -> Case:
    """Draw a journal that was damaged, or that somebody wrote by hand."""
    content = rng.choice((changed(rng, history(rng)), history(rng), history(rng) + forged(rng), forged(rng)))
    words = rng.choice((("rollback", "--dry-run"), ("rollback",), ("status",), ("setup",), ("optimize", "--dry-run")))
    return Case(words, frozenset({0, 2, 4}), files={"journal": content}, on_server=True)


def history(rng: random.Random) -> bytes:
    """Return a whole journal, some names in which are hostile."""
    lines = []
    for number in range(rng.randint(1, 3)):
        # what no text in PostgreSQL can hold is no name of a setting
        text = speakable(hostile(rng)).encode("utf-8", "replace").decode()
        knobs = (KnobChange("jit", None, True, False), KnobChange(text, text, 1, text))
        for kind in rng.choice(_JOURNAL_LIVES):
            kept = knobs if kind == "intent" else ()
            lines.append(encoded(Record(RecordKind(kind), f"t{number}{text}", "2026-01-01T00:00:00+00:00", 1, kept)))
    return b"".join(lines)


def forged(rng: random.Random) -> bytes:
    """Return a line whose length and checksum fit, and whose content does not."""
    content = json.loads(history(rng).splitlines()[0].split(b" ", 2)[2])
    values = (None, [], {}, 1, -1.5, True, "x", "\ud800", "\0", [["x"]], {"x": {}}, "work_mem", 10**400, float("nan"))
    for _ in range(rng.randint(1, 2)):
        place = rng.choice((content, content["knobs"][0])) if isinstance(content.get("knobs"), list) else content
        place[rng.choice((*place, "foreign", "terms", "format"))] = rng.choice(values)
        if not content.get("knobs"):
            break
    deep = b"[" * 100_000 + b"]" * 100_000
    body = deep if rng.random() < 0.1 else json.dumps(content).encode()
    return b"%08d %08x %s\n" % (len(body), zlib.crc32(body), body)


KINDS: dict[str, Callable[[random.Random], Case]] = {
    "dsn": dsn,
    "command_line": command_line,
    "environment": environment,
    "name": name,
    "workload": workload,
    "journal": journal,
}


def drawn(kind: str, number: int) -> Case:
    """Return the case of this kind and number: always the same."""
    return KINDS[kind](random.Random(f"{kind} {number}"))


def catalogue_text(rng: random.Random, source: Path) -> bytes:
    """Return our own catalogue, changed by bytes or by lines."""
    lines = source.read_bytes().splitlines(keepends=True)
    if rng.random() < 0.5:
        begin = rng.randrange(len(lines))
        return changed(rng, b"".join(lines[begin : begin + 60]))
    keys = [number for number, line in enumerate(lines) if b" = " in line]
    for number in rng.sample(keys, 3):
        value = rng.choice(
            ("[]", "{}", "1", "-1e400", "nan", "true", '"x"', json.dumps(speakable(hostile(rng))), "1979-05-27")
        )
        lines[number] = lines[number].split(b" = ")[0] + b" = " + value.encode("utf-8", "replace") + b"\n"
    return b"".join(lines)
