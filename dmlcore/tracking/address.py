"""The address of an MLflow store: checked before it is used, and why what is there does not answer."""

from __future__ import annotations

import re
from difflib import get_close_matches
from importlib.metadata import entry_points
from pathlib import Path
from urllib.parse import urlsplit

from dmlcore.config.base import ConfigError
from dmlcore.core.errors import without_passwords

VARIABLE = "MLFLOW_TRACKING_URI"
SQLITE = "sqlite:///"
SERVERS = ("http", "https")
DATABASES = ("mssql", "mysql", "postgresql", "sqlite")
EXAMPLES = "http://127.0.0.1:5000 or sqlite:////path/to/mlflow.db"

REASONS = (
    (r"error code 40[13]", "asks for a user", "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"),
    (
        r"error code 404|not in a valid JSON format|error code 405",
        "is no MLflow server",
        "correct host, port and path",
    ),
    (r"NameResolution|[Ff]ailed to resolve", "has a host that does not exist", "correct the name"),
    (
        r"SSLError|SSL:",
        "does not speak https as asked",
        "write http://, or install its certificate",
    ),
    (r"No module named", "needs a driver that is not installed", "install it"),
)
"""(pattern of MLflow's error, what is wrong, what to do); the first that fits."""
NO_ANSWER = ("did not answer", "start the server")


def check_address(address: str) -> str:
    """Return the address without spaces around it, a relative SQLite path made absolute.

    Raises:
        ConfigError: MLflow cannot have a store there, whatever runs.
    """
    address = address.strip()
    scheme = address.split(":", 1)[0].split("+")[0].lower()
    fault = None
    if address.startswith("databricks") or scheme in entry_points(group="mlflow.tracking_store").names:
        return address
    if scheme in (*SERVERS, *DATABASES):
        fault = _fault_of_server(address) if scheme in SERVERS else _fault_of_database(address, scheme)
    elif "://" in address and scheme != "file":
        close = get_close_matches(scheme, (*SERVERS, *DATABASES), 1)
        fault = f"{scheme}:// is unknown" + (f"; did you mean {close[0]}://?" if close else "")
    elif re.match(r"(//)?[^/\s]+:\d+(/|$)", address):
        fault = f"it has no scheme; write http://{address.removeprefix('//')}"
    else:
        fault = "MLflow keeps no runs in plain folders any more; name a server or a database"
    if fault:
        shown = without_passwords(address) if "://" in address else re.sub(r".*@", "***@", address)
        raise ConfigError(f"{VARIABLE} must be like {EXAMPLES}, got {shown}: {fault}")
    return (
        f"{SQLITE}{Path(address.removeprefix(SQLITE)).resolve()}" if address.startswith(SQLITE) else address
    )


def _fault_of_server(address: str) -> str | None:
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        return f"{error}"
    if re.search(r"\s", address):
        return "it has a space in it"
    return None if host else "it has no host; two slashes must follow the scheme"


def _fault_of_database(address: str, scheme: str) -> str | None:
    if scheme != "sqlite":
        return None if "://" in address else "`://` must follow the scheme"
    path = address.removeprefix(SQLITE)
    if path == address or not path:
        return "three slashes and a path must follow `sqlite:`, four where the path is absolute"
    return "it is a folder; name a file in it" if Path(path).is_dir() else None


def explain(address: str, error: BaseException) -> tuple[str, str]:
    """Return what is wrong with a store that raised `error`, on one line, and what to do about it."""
    text = without_passwords(" ".join(f"{error}".split()))
    found = next(((what, fix) for pattern, what, fix in REASONS if re.search(pattern, text)), None)
    what, fix = found or NO_ANSWER
    return f"MLflow at {without_passwords(address)} {what} ({text[:300]})", fix
