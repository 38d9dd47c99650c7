"""Settings files of dask-jobqueue and of Dask on Kubernetes, read and checked before anything is submitted."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from gliomask.errors import InputError

JOBQUEUE = {
    "slurm": "SLURMCluster",
    "pbs": "PBSCluster",
    "sge": "SGECluster",
    "lsf": "LSFCluster",
    "oar": "OARCluster",
    "htcondor": "HTCondorCluster",
    "moab": "MoabCluster",
}
"""The queueing systems, and their classes in dask-jobqueue."""
# What a setting is called elsewhere, such as in the options of sbatch, and here.
_CALLED = {"partition": "queue", "time": "walltime", "cpus": "cores", "cpus-per-task": "cores", "mem": "memory"}


def read_settings(path: str) -> dict[str, Any]:
    """Return a settings file in the form that dask-jobqueue documents: `jobqueue: {slurm: {cores: 4, ...}}`.

    Raises:
        InputError: It is not YAML, or does not name exactly one queueing system.
    """
    import yaml

    known = f"jobqueue: with one of {', '.join(JOBQUEUE)}; or kubernetes:"
    try:
        found = yaml.safe_load(Path(path).read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"{path}: cannot be read as YAML: {' '.join(str(error).split())}.") from error
    if isinstance(found, dict) and isinstance(found.get("kubernetes"), dict):
        return dict(found)
    queues = found.get("jobqueue") if isinstance(found, dict) else None
    if isinstance(queues, dict) and (others := [str(name) for name in found if name != "jobqueue"]):
        raise InputError(
            f"{path}: {', '.join(others)}: only jobqueue: is read from this file. The rest belongs into Dask's own "
            "configuration, such as ~/.config/dask/distributed.yaml."
        )
    if not isinstance(queues, dict) or len(queues) != 1 or not set(queues) <= set(JOBQUEUE):
        raise InputError(f"{path}: expected dask-jobqueue's settings ({known}).")
    [queue] = queues
    if not isinstance(queues[queue], dict):
        raise InputError(f"{path}: jobqueue.{queue}: expected settings such as cores and memory.")
    return dict(found)


def _spelled(name: str) -> str:
    return name.replace("_", "-")  # Dask reads both


def check_names(where: str, settings: Mapping[str, Any], defaults: Collection[str]) -> None:
    """Refuse settings that dask-jobqueue does not have; it would ignore them.

    Args:
        where: The file and the section, for messages.
        settings: The section.
        defaults: The settings that dask-jobqueue has for this queueing system.

    Raises:
        InputError: As said, with the setting that was probably meant.
    """
    known = sorted(map(_spelled, defaults))
    for name in settings:
        if _spelled(str(name)) in known:
            continue
        close = get_close_matches(_CALLED.get(_spelled(str(name)), str(name)), known, n=1)
        hint = f"; do you mean {close[0]}?" if close else "."
        raise InputError(f"{where}: {name} is not a setting of dask-jobqueue{hint} There are {', '.join(known)}.")


def check_settings(where: str, settings: Mapping[str, Any]) -> None:
    """Refuse settings with which no job can work, naming the field; Dask says of most of them nothing that helps.

    Args:
        where: The file and the section, for messages.
        settings: The section, with the site's and Dask's own values where the file has none.

    Raises:
        InputError: As said.
    """
    for field in ("cores", "processes"):
        value = settings.get(field)
        if (value is not None or field == "cores") and (type(value) is not int or value < 1):
            given = "is missing" if value is None else f"is {value!r}"
            raise InputError(f"{where}: {field} {given}; give a whole number of 1 or more, such as {field}: 4.")
    if settings.get("memory") is None:
        raise InputError(f"{where}: memory is missing; give that of a job, such as memory: 8GB.")
    if (settings.get("processes") or 1) > settings["cores"]:
        raise InputError(
            f"{where}: {settings['processes']} processes share {settings['cores']} cores; ask for more cores."
        )
    if isinstance(settings.get("walltime"), int):  # YAML reads 10:00:00 as a number to the base of 60
        raise InputError(f"{where}: walltime is a number; write the time in quotes, such as walltime: '04:00:00'.")
    for field in ("job-extra-directives", "worker-extra-args", "job-script-prologue"):
        value = settings.get(field)
        if value is not None and not isinstance(value, list):
            raise InputError(f"{where}: {field} is {value!r}; give a list, each entry on a line that begins with '- '.")
