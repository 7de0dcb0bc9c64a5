import json
import pickle
import zlib
from dataclasses import replace

import numpy as np
import pytest

from medprism.data.entry import ABOUT, CENTRES, FOREGROUND, IMAGES, LABEL, Entry, write_entry
from medprism.data.recipe import Recipe
from medprism.data.volume import assemble
from medprism.errors import UserError
from tests.data.scans import body, head

MODALITIES = ("t1n", "t1c", "t2w", "ct")


@pytest.fixture
def volume():
    return assemble({"t1n": head(seed=1), "t2w": head(seed=2), "ct": body()}, Recipe.of(MODALITIES))


@pytest.fixture
def label(volume):
    return np.random.default_rng(0).integers(0, 300, volume.grid.shape).astype(np.uint16)


@pytest.fixture
def entry(tmp_path, volume, label):
    folder = tmp_path / "cache/entries/s1-0123"
    write_entry(folder, volume, label)
    return Entry.load(folder, MODALITIES, subject="s1", person="p1")


def test_what_is_written_is_read(entry, volume, label):
    assert np.abs(entry.images() - volume.images).max() <= 2**-11  # half a step
    assert np.array_equal(entry.foreground(), volume.foreground)
    assert np.array_equal(entry.label(), label)
    assert (entry.images().dtype, entry.foreground().dtype, entry.label().dtype) == (np.float32, np.bool_, np.uint16)
    assert entry.present == (True, False, True, True)
    assert entry.shape == volume.grid.shape
    assert np.array_equal(entry.affine, volume.grid.affine)
    assert np.array_equal(entry.grid.affine, volume.grid.affine)
    assert entry.scales == volume.scales
    assert np.array_equal(entry.background, volume.background)


@pytest.mark.parametrize(
    ("start", "size"), [((0, 0, 0), (5, 4, 3)), ((3, 5, 2), (16, 15, 14)), ((20, 1, 7), (4, 4, 9))]
)
def test_a_crop_is_the_slice_of_the_whole(entry, start, size):
    window = tuple(slice(s, s + n) for s, n in zip(start, size, strict=True))
    assert np.array_equal(entry.images(start, size), entry.images()[(slice(None), *window)])
    assert np.array_equal(entry.foreground(start, size), entry.foreground()[(slice(None), *window)])
    assert np.array_equal(entry.label(start, size), entry.label()[window])


def test_a_crop_of_a_large_volume_unpacks_only_what_it_touches(tmp_path, volume):
    grid = head((128, 128, 128)).grid
    noise = np.random.default_rng(0).standard_normal((4, *grid.shape)).astype(np.float32)
    big = replace(volume, images=noise, foreground=noise > 0, grid=grid)
    folder = tmp_path / "cache/entries/big"
    write_entry(folder, big, None)
    entry = Entry.load(folder, MODALITIES, subject="big", person="big")
    content = bytearray((folder / IMAGES).read_bytes())
    entry.images((0, 0, 0), (8, 8, 8))  # checked now
    content[-1_000_000:-500_000] = bytes(500_000)  # damage the far end behind its back
    (folder / IMAGES).write_bytes(content)
    assert np.allclose(entry.images((0, 0, 0), (40, 32, 32))[0], noise[0, :40, :32, :32], atol=2**-11)
    with pytest.raises(UserError, match="big"):
        entry.images()


def test_centres_are_foreground_voxels_and_the_same_each_time(entry, volume, tmp_path):
    centres = entry.centres
    assert 0 < len(centres) <= 4096
    assert volume.foreground.any(axis=0)[tuple(centres.T)].all()
    assert len(np.unique(centres, axis=0)) == len(centres)
    write_entry(tmp_path / "again", volume, None)
    assert np.array_equal(Entry.load(tmp_path / "again", MODALITIES, subject="s1", person="p1").centres, centres)


def test_many_foreground_voxels_are_thinned_evenly(tmp_path, volume):
    grid = head((40, 40, 40)).grid
    everywhere = np.ones((4, *grid.shape), bool)
    write_entry(tmp_path / "x", replace(volume, images=everywhere * 1.0, foreground=everywhere, grid=grid), None)
    centres = Entry.load(tmp_path / "x", MODALITIES, subject="x", person="x").centres
    assert len(centres) == 4096
    assert np.abs(centres.mean(axis=0) - 19.5).max() < 0.8  # 4 standard errors


def test_the_same_volume_gives_the_same_bytes(tmp_path, volume, label, entry):
    write_entry(tmp_path / "again", volume, label)
    for name in (IMAGES, FOREGROUND, LABEL, CENTRES, ABOUT):
        assert (tmp_path / "again" / name).read_bytes() == (entry.folder / name).read_bytes()


def test_without_label_there_is_none(tmp_path, volume):
    write_entry(tmp_path / "x", volume, None)
    entry = Entry.load(tmp_path / "x", MODALITIES, subject="x", person="x")
    assert entry.label() is None
    assert entry.label((0, 0, 0), (4, 4, 4)) is None
    assert not entry.labelled


def test_more_than_eight_modalities(tmp_path):
    many = ("t1n", "t1c", "t2w", "t2f", "pd", "mra", "dwi", "adc", "ct", "pet")
    volume = assemble({"t1n": head(seed=1), "adc": head(seed=2), "ct": body()}, Recipe.of(many))
    write_entry(tmp_path / "x", volume, None)
    entry = Entry.load(tmp_path / "x", many, subject="x", person="x")
    assert np.array_equal(entry.foreground(), volume.foreground)
    assert np.abs(entry.images() - volume.images).max() <= 2**-11


@pytest.mark.parametrize("name", [IMAGES, FOREGROUND, LABEL, CENTRES])
def test_one_flipped_bit_anywhere_is_found_before_use(entry, name):
    content = bytearray((entry.folder / name).read_bytes())
    content[len(content) * 2 // 3] ^= 4
    (entry.folder / name).write_bytes(content)
    again = Entry.load(entry.folder, MODALITIES, subject="s1", person="p1")  # sizes are right
    read = {IMAGES: again.images, FOREGROUND: again.foreground, LABEL: again.label, CENTRES: lambda: again.centres}
    for look in (read[name], again.verify):
        with pytest.raises(UserError, match=rf"subject s1 .*{name} does not match its checksum.*prepare cohort.json"):
            look()


@pytest.mark.parametrize("name", [IMAGES, FOREGROUND, LABEL, CENTRES, ABOUT])
@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(path.read_bytes()[:-9]), lambda path: path.unlink()])
def test_a_short_or_missing_file_is_found_on_loading(entry, name, damage):
    damage(entry.folder / name)
    with pytest.raises(UserError, match=rf"subject s1 .*{name}.*it rebuilds what is damaged"):
        Entry.load(entry.folder, MODALITIES, subject="s1", person="p1")


def test_what_cannot_be_unpacked_is_the_users_to_rebuild(entry):
    rubbish = np.random.default_rng(0).bytes(5000)
    (entry.folder / IMAGES).write_bytes(rubbish)
    about = json.loads((entry.folder / ABOUT).read_text())
    about["files"][IMAGES] = [len(rubbish), zlib.crc32(rubbish)]
    (entry.folder / ABOUT).write_text(json.dumps(about))
    with pytest.raises(UserError, match=r"images.b2nd cannot be unpacked"):
        Entry.load(entry.folder, MODALITIES, subject="s1", person="p1").images()


def test_an_entry_travels_to_loader_processes_and_checks_there_again(entry):
    entry.images()
    sent = pickle.loads(pickle.dumps(entry))
    assert np.array_equal(sent.images(), entry.images())
    (entry.folder / FOREGROUND).write_bytes(bytes((entry.folder / FOREGROUND).stat().st_size))
    with pytest.raises(UserError, match="checksum"):
        pickle.loads(pickle.dumps(entry)).foreground()


def test_an_interrupted_write_leaves_nothing(tmp_path, volume, monkeypatch):
    import medprism.data.entry as module

    def fail(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.Path, "write_bytes", fail)
    with pytest.raises(OSError, match="No space"):
        write_entry(tmp_path / "x", volume, None)
    assert list(tmp_path.iterdir()) == []
