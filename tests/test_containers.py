"""The files that containers are built from agree with the repository. Nothing is built here: that needs a network."""

from __future__ import annotations

import fnmatch
import re
import shlex
from pathlib import Path

import pytest

from gliomask.version import VERSION

ROOT = Path(__file__).parent.parent
DOCKERFILE = ROOT / "Dockerfile"
APPTAINER = ROOT / "gliomask.def"


def instructions() -> list[tuple[str, str]]:
    """Return the instructions of the Dockerfile and their arguments, without comments and line breaks."""
    text = "\n".join(line for line in DOCKERFILE.read_text("utf-8").splitlines() if not line.lstrip().startswith("#"))
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines if line.strip())]


def stages() -> dict[str, tuple[str, list[tuple[str, str]]]]:
    """Return the base and the instructions of each stage by its name."""
    found: dict[str, tuple[str, list[tuple[str, str]]]] = {}
    for word, rest in instructions():
        if word == "FROM":
            base, name = re.fullmatch(r"(\S+) AS (\S+)", rest).groups()  # type: ignore[union-attr]
            found[name] = (base, [])
        else:
            found[list(found)[-1]][1].append((word, rest))
    return found


def section(name: str) -> list[str]:
    """Return the lines of a section of the Apptainer file."""
    parts = re.split(r"^%(\w+)\n", APPTAINER.read_text("utf-8"), flags=re.MULTILINE)
    return [line.strip() for line in parts[parts.index(name) + 1].splitlines() if line.strip()]


def copied() -> list[str]:
    """Return what is copied from the repository into a stage of the Dockerfile."""
    copies = [shlex.split(rest) for word, rest in instructions() if word == "COPY" and "--from" not in rest]
    return [source for words in copies for source in words[:-1]]


def sent(path: str) -> bool:
    """Tell whether `.dockerignore` lets a path through: the last pattern that matches it or a folder above decides."""
    answer = True
    for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            pattern, kept = line.removeprefix("!"), line.startswith("!")
            below = [path, *(str(above) for above in Path(path).parents)][:-1] or [path]
            if any(fnmatch.fnmatch(place, pattern) or fnmatch.fnmatch(f"/{place}", f"/{pattern}") for place in below):
                answer = kept
    return answer


def test_everything_that_is_copied_exists_and_is_sent_to_the_builder() -> None:
    """A source that `.dockerignore` excludes does not exist for COPY."""
    sources = copied()
    assert {"src", "docs", "pyproject.toml", "constraints.txt"} <= set(sources)
    assert [source for source in sources if not (ROOT / source).exists()] == []
    assert [source for source in sources if not sent(source)] == []


@pytest.mark.parametrize(
    "path", ["tests", "demo/cases/a.nii.gz", "a_seg.nii", "src/gliomask/left.nii.gz", "run/best.safetensors", ".git"]
)
def test_no_case_and_no_run_is_sent_to_the_builder(path: str) -> None:
    """Images beside or below the source stay out of the image, whatever was left there."""
    assert not sent(path)


def test_the_wheel_is_built_from_everything_that_its_build_reads() -> None:
    """The files that pyproject.toml and hatch_build.py name are copied into the stage of the wheel."""
    there = [
        source
        for word, rest in stages()["wheel"][1]
        if word == "COPY" and "--from" not in rest
        for source in shlex.split(rest)[:-1]
    ]
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    build = (ROOT / "hatch_build.py").read_text("utf-8")
    read = {"pyproject.toml", "hatch_build.py", "src"}
    read |= set(re.findall(r'^readme = "(.+)"', project, re.MULTILINE))
    read |= set(re.findall(r'license-files = \["(.+)"\]', project))
    read |= {page.partition("/")[0] for page in re.findall(r'"([^"]+)"', re.search(r"PAGES = \((.+)\)", build)[1])}  # type: ignore[index]
    read |= set(re.findall(r'root / "(package[-\w]*\.json)"', build))
    assert {"README.md", "LICENSE", "docs", "MODEL_CARD.md", "package-lock.json"} <= read
    assert read <= set(there)


def test_base_images_are_pinned_and_name_no_host() -> None:
    """A tag with a version and a release of Debian; earlier stages are named; both files have the same Python."""
    found = stages()
    names: list[str] = []
    bases = set()
    for name, (base, _) in found.items():
        if base not in names:
            assert re.fullmatch(r"(python|node):\d+(\.\d+)*(-slim)?-[a-z]+(-slim)?", base), base
            bases.add(base)
        names.append(name)
    source = re.search(r"^From: (.+)$", APPTAINER.read_text("utf-8"), re.MULTILINE)
    assert source is not None
    assert source[1] in bases
    assert len([base for base in bases if base.startswith("python:")]) == 1
    text = DOCKERFILE.read_text("utf-8") + APPTAINER.read_text("utf-8")
    assert "://" not in text
    assert "index-url" not in text


def test_stages_take_files_only_from_earlier_stages() -> None:
    """A misspelled stage would be looked up as an image of that name."""
    known: list[str] = []
    taken = []
    for name, (_, lines) in stages().items():
        for _, rest in lines:
            for other in re.findall(r"\bfrom=([\w-]+)", rest):
                assert other in known, f"{name} takes from {other}"
                taken.append(other)
        known.append(name)
    assert {"viewer", "wheel"} <= set(taken)


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_a_container_does_not_run_as_root(target: str) -> None:
    """The last USER of a target is a number other than 0, as Kubernetes can check only numbers."""
    found = stages()
    chain = [target]
    while found[chain[0]][0] in found:
        chain.insert(0, found[chain[0]][0])
    users = [rest for name in chain for word, rest in found[name][1] if word == "USER"]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", users[-1])
    assert target != "cpu" or list(found)[-1] == "cpu", "the last stage is built without --target"


def test_versions_agree_with_the_project() -> None:
    """The labels have the version of gliomask, and the base image a Python that the project supports."""
    assert f'image.version="{VERSION}"' in DOCKERFILE.read_text("utf-8")
    assert f"Version {VERSION}" in section("labels")
    assert any(f"gliomask-{VERSION}-*.whl" in line for line in section("post"))
    python = re.search(r"^From: python:(\d\.\d+)", APPTAINER.read_text("utf-8"), re.MULTILINE)
    assert python is not None
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    assert f'"Programming Language :: Python :: {python[1]}"' in project


def test_installations_are_pinned_and_extras_exist() -> None:
    """Each pip install takes constraints.txt, keeps no cache, and names extras of the project."""
    runs = [rest for word, rest in instructions() if word == "RUN"] + section("post")
    installs = [line for line in runs if re.search(r"\bpip\b.* install ", line)]
    assert len(installs) == 3
    for line in installs:
        assert re.search(r"--no-cache-dir --constraint /opt/\S*constraints.txt", line)
    text = DOCKERFILE.read_text("utf-8") + APPTAINER.read_text("utf-8")
    named = {name for group in re.findall(r"\[([a-z,]+)\]", text) for name in group.split(",")}
    project = (ROOT / "pyproject.toml").read_text("utf-8").partition("[project.optional-dependencies]")[2]
    assert named
    assert named <= set(re.findall(r"^(\w+) = \[", project.partition("\n[")[0], re.MULTILINE))


def test_the_apptainer_file_takes_what_exists() -> None:
    """`dist` is made by the command in its first lines; the rest is in the repository."""
    sources = [shlex.split(line)[0] for line in section("files")]
    assert "pip wheel --no-deps --wheel-dir dist ." in APPTAINER.read_text("utf-8")
    assert [source for source in sources if source != "dist" and not (ROOT / source).exists()] == []
