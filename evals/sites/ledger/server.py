"""The application's process: `python -m evals.sites.ledger.server`, one JSON line in, one JSON line out.

In: {"directory": folder of its database, "username": …, "password": …,
"signing_key": …}. Out: {"port": …} once it answers.
It ends on SIGTERM, or when its standard input ends because whoever started it is gone.
"""

import json
import os
import signal
import socket
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import django
import waitress
from django.conf import settings
from django.contrib.staticfiles.handlers import StaticFilesHandler
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application

HOST = "127.0.0.1"
DATABASE = "ledger.sqlite3"
CONTRIB = ("admin", "auth", "contenttypes", "sessions", "messages", "staticfiles")
# What `startproject` writes, in its order.
MIDDLEWARE = (
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
)
CONTEXT_PROCESSORS = (
    "django.template.context_processors.request",
    "django.contrib.auth.context_processors.auth",
    "django.contrib.messages.context_processors.messages",
)


@dataclass(frozen=True, slots=True)
class Order:
    """What the parent asks for."""

    directory: str
    username: str
    password: str
    signing_key: str


def configure(directory: Path, signing_key: str) -> None:
    """Set Django up as `startproject` does, with DEBUG off and this folder's database."""
    settings.configure(
        SECRET_KEY=signing_key,
        DEBUG=False,
        ALLOWED_HOSTS=[HOST, "localhost"],
        INSTALLED_APPS=[*(f"django.contrib.{name}" for name in CONTRIB), "evals.sites.ledger.apps.LedgerConfig"],
        MIDDLEWARE=list(MIDDLEWARE),
        ROOT_URLCONF="evals.sites.ledger.urls",
        TEMPLATES=[
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "APP_DIRS": True,
                "OPTIONS": {"context_processors": list(CONTEXT_PROCESSORS)},
            }
        ],
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": str(directory / DATABASE),
                "OPTIONS": {
                    "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;",
                    "transaction_mode": "IMMEDIATE",
                },
            }
        },
        # Straight from the models to tables: replaying five applications' history takes a second and adds nothing.
        MIGRATION_MODULES=dict.fromkeys((*CONTRIB, "ledger")),
        STATIC_URL="/static/",
        TIME_ZONE="UTC",
        USE_TZ=True,
    )
    django.setup()


def prepare(username: str, password: str) -> None:
    """Make the tables and the one superuser; a folder that has them already is left as it is."""
    from django.contrib.auth.models import User  # noqa: PLC0415  models can be imported only after setup()

    call_command("migrate", run_syncdb=True, verbosity=0)
    if not User.objects.filter(username=username).exists():
        User.objects.create_superuser(username=username, password=password)


def serve() -> None:
    """Serve pages and static files on a free port of loopback until told to stop."""
    with socket.create_server((HOST, 0)) as listener:
        print(json.dumps({"port": listener.getsockname()[1]}), flush=True)
        waitress.serve(StaticFilesHandler(get_wsgi_application()), sockets=[listener], threads=4)


def end_with_parent() -> None:
    """Stop once standard input ends: the parent holds its other end, so even its kill -9 leaves no orphan."""

    def wait() -> None:
        sys.stdin.read()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


def stop(_number: int, _frame: FrameType | None) -> None:
    """Leave the serve loop, which then lets requests in flight finish."""
    raise SystemExit(0)


def main() -> None:
    """Read the order, prepare the folder, serve."""
    signal.signal(signal.SIGTERM, stop)
    order = Order(**json.loads(sys.stdin.readline()))
    end_with_parent()
    configure(Path(order.directory), order.signing_key)
    prepare(order.username, order.password)
    serve()


if __name__ == "__main__":
    main()
