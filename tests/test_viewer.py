"""The viewer without a browser: the content of a scene, the files that are served, and who may request them."""

from __future__ import annotations

import gzip
import http.client
import json
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from browser import niivue_is_there
from gliomask.cases import Case
from gliomask.errors import InputError
from gliomask.labels import get_convention, to_regions
from gliomask.metrics import dice
from gliomask.viewer import (
    ASSETS,
    SECURITY_HEADERS,
    compare_masks,
    edit_mask,
    read_asset,
    read_scene,
    require_niivue,
    scene_content,
    serve_scene,
    volume_bytes,
    volume_names,
)
from gliomask.viewer import assets as assets_module
from gliomask.volume import Volume, read_volume, reorient, voxel_volume_ml, write_volume

SECRET = "DOE^JANE"
NEEDS_NIIVUE = pytest.mark.skipif(not niivue_is_there(), reason="needs niivue: build gliomask where npm is")


@pytest.fixture
def case(write_case: Callable[..., Case]) -> Case:
    return write_case("brats2021")


@pytest.fixture
def prediction(case: Case, tmp_path: Path) -> Path:
    """The case's mask, shifted along X."""
    assert case.mask is not None
    truth = read_volume(case.mask, mask=True)
    path = tmp_path / "out" / f"{case.id}.nii.gz"
    write_volume(path, Volume(np.roll(truth.data, 3, axis=1), truth.affine))
    return path


@pytest.fixture
def served(case: Case, prediction: Path) -> Iterator[str]:
    """The URL of a served scene."""
    try:
        require_niivue()
    except InputError:
        pytest.skip("needs niivue: build gliomask where npm is")
    with serve_scene(read_scene(case, [prediction])) as server:
        yield server.url


def ask(url: str, path: str | None = None, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Return the server's response to a path that is sent unchanged."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(str(parts.hostname), int(parts.port or 0), timeout=30)
    connection.request(method, parts.path if path is None else path, headers=headers)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, dict(answer.getheaders()), content


@given(arrays(np.bool_, (2, 3, 4, 5), elements=st.booleans()))
def test_a_comparison_is_the_algebra_of_sets(masks: np.ndarray) -> None:
    """1 is the intersection, 2 and 3 are the two differences, 0 is the rest."""
    truth, found = masks
    places = compare_masks(truth, found)
    assert np.array_equal(places == 1, truth & found)
    assert np.array_equal(places == 2, truth & ~found)
    assert np.array_equal(places == 3, found & ~truth)
    assert np.array_equal(places == 0, ~(truth | found))


def test_volumes_are_the_files_cut_to_what_is_not_empty(case: Case, prediction: Path, tmp_path: Path) -> None:
    """Voxels that are sent keep their position and value; those that are cropped are empty."""
    scene = read_scene(case, [prediction])
    first = scene_content(scene)["first_voxel"]
    files = {name: source.path for name, source in case.images.items()} | {"truth": case.mask, "prediction": prediction}
    for name, file in files.items():
        assert file is not None
        (tmp_path / "sent.nii.gz").write_bytes(volume_bytes(scene, f"{name}.nii.gz"))
        sent, whole = read_volume(tmp_path / "sent.nii.gz", mask=name in ("truth", "prediction")), read_volume(file)
        box = tuple(slice(start, start + size) for start, size in zip(first, sent.data.shape[1:], strict=True))
        assert np.array_equal(sent.data[0], whole.data[0][box])
        assert np.count_nonzero(sent.data) == np.count_nonzero(whole.data)
        assert np.allclose(sent.affine[:3, 3], (whole.affine @ [*first, 1])[:3], atol=1e-4)


def test_a_scene_says_what_can_be_asked_for(case: Case, prediction: Path) -> None:
    """The URLs of a scene are exactly its volumes; volumes in mL and Dice equal those of the metrics."""
    scene = read_scene(case, [prediction])
    content = json.loads(json.dumps(scene_content(scene, "v/")))
    urls = [thing["url"] for key in ("images", "masks", "comparisons") for thing in content[key]]
    assert sorted(urls) == sorted(f"v/{name}" for name in volume_names(scene))
    assert [mask["role"] for mask in content["masks"]] == ["prediction", "truth"]
    assert case.mask is not None
    numbers = get_convention("brats2021")
    truth, found = (to_regions(read_volume(p, mask=True).data[0], numbers) for p in (case.mask, prediction))
    for number, comparison in enumerate(content["comparisons"]):
        assert comparison["dice"] == pytest.approx(dice(truth[number], found[number]), abs=1e-4)
        parts = comparison["volumes_ml"]
        assert parts["agreed"] + parts["missed"] == pytest.approx(
            next(m for m in content["masks"] if m["role"] == "truth")["volumes_ml"][comparison["region"]], abs=0.01
        )
    assert [region["name"] for region in content["regions"]] == ["WT", "TC", "ET"]


def test_each_mask_keeps_its_own_numbers(case: Case, tmp_path: Path) -> None:
    """A prediction with the labels of 2024 and a cavity is compared with a truth of 2021."""
    assert case.mask is not None
    truth = read_volume(case.mask, mask=True)
    path = tmp_path / "mine.nii.gz"
    write_volume(path, Volume(np.where(truth.data == 4, 3, truth.data).astype(np.uint8), truth.affine))
    content = scene_content(read_scene(case, [path], labels="brats2024"))
    mine, own = content["masks"]
    assert (mine["regions"]["ET"], own["regions"]["ET"]) == ([3], [4])
    assert [region["name"] for region in content["regions"]] == ["WT", "TC", "ET", "RC"]
    assert [one["dice"] for one in content["comparisons"]] == [1, 1, 1]


def test_the_table_of_files_is_the_folder(tmp_path: Path) -> None:
    """The table lists exactly the files of the folder; another name is a KeyError."""
    folder = Path(assets_module.__file__).parent / "assets"
    lying = {path.name.removesuffix(".gz") for path in folder.iterdir() if path.suffix != ".partial"}
    assert lying | {"niivue.js"} == set(ASSETS)
    for name in ("../assets.py", "niivue.js.gz", "/etc/passwd", ""):
        with pytest.raises(KeyError):
            read_asset(name)


def test_only_what_is_named_is_served(served: str) -> None:
    """Only the page, its files, the scene and its volumes are served, under the secret only."""
    root = urlsplit(served).path
    content = json.loads(ask(served, root + "scene.json")[2])
    named = [thing["url"] for key in ("images", "masks", "comparisons") for thing in content[key]]
    for name in ["", "scene.json", "viewer.js", "viewer.css", *named]:
        status, headers, body = ask(served, root + name)
        assert (status, int(headers["Content-Length"])) == (200, len(body)), name
        assert headers.items() >= SECURITY_HEADERS.items()
    _, headers, body = ask(served, root + "niivue.js")
    assert headers["Content-Encoding"] == "gzip"
    assert len(gzip.decompress(body)) > 1e6
    strange = ["/", root[:-1], "/x" + root, f"{root}../assets.py", f"{root}volumes/../scene.json", f"{root}index.htm"]
    strange += [
        f"{root}volumes/",
        f"{root}volumes/t3.nii.gz",
        f"{root}%2e%2e/scene.py",
        "/" + "A" * 32 + "/",
        "//etc/passwd",
    ]
    for path in strange:
        assert ask(served, path)[0] == 404, path
        assert ask(served, path)[1].items() >= SECURITY_HEADERS.items()


def test_strangers_are_refused(served: str) -> None:
    """Another Host header (DNS rebinding) and other methods are refused; HEAD has no body."""
    port = urlsplit(served).port
    for host in ("evil.example", f"evil.example:{port}", f"127.0.0.1:{port}.evil.example", "127.0.0.1:1", ""):
        assert ask(served, Host=host)[0] == 403, host
    assert ask(served, Host=f"localhost:{port}")[0] == 200
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE"):
        status, headers, _ = ask(served, method=method)
        assert (status, headers["Allow"]) == (405, "GET, HEAD"), method
    status, headers, body = ask(served, method="HEAD")
    assert (status, body) == (200, b"")
    assert int(headers["Content-Length"]) > 100


def test_no_text_of_a_header_is_sent(case: Case, prediction: Path) -> None:
    """Text in the header fields and extensions of images and masks is in no response."""
    for file in [*(source.path for source in case.images.values()), case.mask, prediction]:
        image: Any = nib.load(file)
        header = image.header
        for field in ("descrip", "db_name", "aux_file", "intent_name"):
            header[field] = SECRET.encode()
        header.extensions.append(nib.nifti1.Nifti1Extension("comment", SECRET.encode()))
        nib.save(nib.Nifti1Image(np.asanyarray(image.dataobj), image.affine, header), file)
        assert SECRET.encode() in gzip.decompress(file.read_bytes())
    scene = read_scene(case, [prediction])
    sent = [gzip.decompress(volume_bytes(scene, name)) for name in volume_names(scene)]
    assert len(sent) == 9
    assert not [content for content in [*sent, json.dumps(scene_content(scene)).encode()] if SECRET.encode() in content]


def test_a_mask_of_another_grid_is_refused(case: Case, tmp_path: Path) -> None:
    """A mask on another grid is refused; the message names the file and the difference."""
    assert case.mask is not None
    truth = read_volume(case.mask, mask=True)
    path = tmp_path / "other.nii.gz"
    write_volume(path, Volume(truth.data[:, 1:], truth.affine))
    with pytest.raises(InputError, match=r"other\.nii\.gz: its grid differs .* 23 x 28 x 20"):
        read_scene(case, [path])


def test_a_mask_with_its_axes_in_another_order_is_reoriented(case: Case, prediction: Path) -> None:
    """The scene has the voxels of the images' order."""
    before = read_scene(case, [prediction]).masks[0].labels
    write_volume(prediction, reorient(before, "RIA"))
    after = read_scene(case, [prediction]).masks[0].labels
    assert np.array_equal(after.data, before.data)
    np.testing.assert_allclose(after.affine, before.affine, atol=1e-6)


def test_malformed_requests_are_answered_without_a_traceback(
    served: str, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Requests that are cut, not HTTP, or end early; the page is still served afterwards."""
    place = urlsplit(served)
    good = f"GET {place.path}scene.json HTTP/1.1\r\nHost: {place.netloc}\r\n\r\n".encode()
    odd = [b"", b"\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x00\xff\r\n\r\n", b"A" * 70_000, good[:40]]
    odd += [b"GET / HTTP/1.1\r\nHost\r\n\r\n", b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 300 + b"\r\n", good * 50]
    for request in odd:
        with socket.create_connection((place.hostname, place.port), 5) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # ends with a reset
            with suppress(OSError):
                connection.sendall(request)
    assert ask(f"{served}scene.json")[0] == 200
    assert "Traceback" not in capsys.readouterr().err
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


@NEEDS_NIIVUE
def test_what_is_served_is_the_mask_as_it_was_saved_last(case: Case, prediction: Path, tmp_path: Path) -> None:
    """While a mask is corrected, its volumes in mL, the Dice and the differences are those of the correction."""
    scene = read_scene(case, [prediction])
    assert case.mask is not None
    truth = read_volume(case.mask, mask=True).data[0]
    with (
        edit_mask(scene, prediction, tmp_path / "corrected") as editing,
        serve_scene(scene, editing=editing) as server,
    ):
        root = urlsplit(server.url).path
        for labels in (truth, np.roll(truth, 1, axis=2)):
            editing.save(labels[scene.box].tobytes(order="F"), 1)
            content = json.loads(ask(server.url, f"{root}scene.json")[2])
            whole = next(one for one in content["comparisons"] if one["region"] == "WT")
            assert whole["dice"] == pytest.approx(dice(truth > 0, labels > 0), abs=1e-4)
            (tmp_path / "sent.nii.gz").write_bytes(ask(server.url, root + whole["url"])[2])
            sent = read_volume(tmp_path / "sent.nii.gz").data[0]
            assert np.array_equal(sent, compare_masks(truth > 0, labels > 0)[scene.box])
            assert content["first_voxel"] == [span.start for span in scene.box]
            assert content["masks"][0]["volumes_ml"]["WT"] == pytest.approx(
                np.count_nonzero(labels) * voxel_volume_ml(scene.masks[0].labels.affine), abs=1e-3
            )


def test_without_its_library_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The message of an installation without niivue says how to get it."""
    monkeypatch.setattr(assets_module, "_FOLDER", tmp_path)
    with pytest.raises(InputError, match=r"niivue, is not in this installation.*npm"):
        require_niivue()


def view(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gliomask", "view", *map(str, arguments), "--no-browser"]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_bad_input_ends_with_status_2(served: str, folder_of: Callable[..., Path], prediction: Path) -> None:
    """No case, a mask only, several cases and an unknown case are refused with advice."""
    folder = folder_of(2)
    for arguments, words in (
        ((), "--flair"),
        ((prediction,), "Name the folder of the case first"),
        ((folder,), "Choose one with --case: BraTS2021_00001, BraTS2021_00002"),
        ((folder, "--case", "nobody"), "has no case 'nobody'"),
    ):
        ran = view(*arguments)
        assert ran.returncode == 2, ran.stderr
        assert words in ran.stderr
        assert "Traceback" not in ran.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGINT to send")
def test_it_serves_until_it_is_interrupted(served: str, case: Case, prediction: Path, tmp_path: Path) -> None:
    """The command prints the URL, serves the page, exits with status 0 on Ctrl-C, and writes nothing."""
    before = sorted(tmp_path.rglob("*"))
    assert case.mask is not None
    command = [sys.executable, "-u", "-m", "gliomask", "view", str(case.mask.parent), str(prediction), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        assert ask(url)[0] == 200
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "stopped" in out
    assert err == ""
    assert sorted(tmp_path.rglob("*")) == before
