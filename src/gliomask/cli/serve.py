"""gliomask serve: the web application."""

from __future__ import annotations

import math
import os
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from gliomask.cli.console import out, warn
from gliomask.cli.options import Device, Engine, Threads
from gliomask.errors import InputError

EXAMPLES = """
**Examples**

For yourself; open the address that it prints:

`gliomask serve`

`gliomask serve -m run/best.safetensors --store /data/gliomask --port 8080`

For a group (see `gliomask docs serving`):

`gliomask serve --host 0.0.0.0 --token-file token.txt`
"""


def serve(
    store: Annotated[
        Path, typer.Option("--store", help="The folder for images and results; created if it does not exist.")
    ] = Path("gliomask-jobs"),
    host: Annotated[
        str, typer.Option("--host", help="The address to listen at; any but a loopback address needs a token.")
    ] = ("127.0.0.1"),
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="The port to listen at; 0: any free port.")
    ] = 8000,
    model: Annotated[
        list[Path] | None,
        typer.Option(
            "-m",
            "--model",
            help="RUN/best.safetensors or .onnx, or a model of nnU-Net or MONAI; default: the built-in model. Several "
            "are averaged.",
        ),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(
            "--token",
            envvar="GLIOMASK_TOKEN",
            show_envvar=True,
            help="The token that clients must send. Other users of this machine can see it on the command line.",
        ),
    ] = None,
    token_file: Annotated[Path | None, typer.Option("--token-file", help="A file that contains the token.")] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option("--allow-host", help="Another host name of this server, such as that of a proxy."),
    ] = None,
    max_upload_gb: Annotated[
        float, typer.Option("--max-upload-gb", min=0.001, help="Size limit of one upload in GB.")
    ] = 2.0,
    max_waiting: Annotated[int, typer.Option("--max-waiting", min=1, help="Limit of unfinished jobs.")] = 20,
    keep: Annotated[float, typer.Option("--keep", min=0, help="Days after which a finished job is deleted.")] = 30,
    max_minutes: Annotated[
        float, typer.Option("--max-minutes", min=0.1, help="Minutes after which the computation of a job is ended.")
    ] = 60,
    labels: Annotated[
        str | None,
        typer.Option(
            "--labels", help="Label numbers of the masks: brats2021, brats2023, ...; default: those of the model."
        ),
    ] = None,
    device: Device = "auto",
    engine: Engine = "auto",
    threads: Threads = None,
) -> None:
    """Serve a web page for predictions: upload the images of an examination, check them, view and download the result.

    Research use only, not a medical device.
    """
    from gliomask.service import require_service

    require_service()
    from gliomask.errors import unknown_name
    from gliomask.inference.loading import ENGINES
    from gliomask.service.limits import Limits
    from gliomask.service.request import Settings
    from gliomask.service.server import Address, ServeOptions
    from gliomask.service.server import serve as run

    if engine not in ENGINES:
        raise unknown_name("value of --engine", engine, ENGINES)
    paths = tuple(str(path) for path in model or ())
    run(
        ServeOptions(
            store=store,
            address=Address(host, port, tuple(allow_host or ())),
            secret=_secret(token, token_file),
            settings=Settings(paths, device, engine, threads, labels),
            limits=Limits(
                upload_bytes=_bytes(max_upload_gb), waiting=max_waiting, keep_days=keep, job_minutes=max_minutes
            ),
        ),
        partial(_print_address, store, keep),
    )


def _bytes(gigabytes: float) -> int:
    if not math.isfinite(gigabytes):
        raise InputError(f"--max-upload-gb must be a finite number, not {gigabytes}.")
    return int(gigabytes * 1024**3)


def _secret(token: str | None, file: Path | None) -> str | None:
    if file is None:
        return token
    if token is not None:
        raise InputError("give the token with --token (or GLIOMASK_TOKEN) or --token-file, not both.")
    try:
        secret = file.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: the token cannot be read: {error}.") from error
    if not secret:
        raise InputError(f"{file}: is empty; it must contain the token.")
    if os.name != "nt" and file.stat().st_mode & 0o077:  # Windows has other rights, which the mode does not tell
        warn(f"{file}: other users of this machine can read the token. Run chmod 600 {file} to prevent that.")
    return secret


def _print_address(store: Path, keep_days: float, url: str, secret: str | None) -> None:
    from urllib.parse import quote

    address = url if secret is None else f"{url}login#token={quote(secret)}"
    out.print(f"gliomask is at {address}  (Ctrl-C ends it)")
    out.print(f"uploaded images and results are kept in {store.resolve()} for {keep_days:g} days (--store, --keep)")
    if secret is not None:
        out.print(f"token: {secret}")
