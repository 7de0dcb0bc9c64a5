"""Templates lie where the scans lie: filled from a scan they give its crops; they survive a file bit for bit."""

import nibabel as nib
import numpy as np
import pytest
import torch

from medprism.data.batch import collate
from medprism.data.cache import Cache
from medprism.data.patches import PatchDataset
from medprism.errors import UserError
from medprism.io.grid import Grid
from medprism.models import NetworkConfig, Prism
from medprism.models.atlas import box_grid, covering_grid, head_grid
from medprism.models.folder import REQUIRED, load_model, save_model
from medprism.models.templates import FOLDER, NOISE, Templates, load_beside
from tests.training.runs import make_cache

GRID = Grid((12, 14, 10), np.array([[2, 0, 0, -10], [0, 2, 0, -20.5], [0, 0, 2, 30], [0, 0, 0, 1.0]]))


def at(grid, start=(0, 0, 0), count=1):
    affine = torch.from_numpy(np.array(grid.crop(start, (1, 1, 1)).affine))
    return affine.expand(count, 4, 4)


@pytest.fixture(scope="module")
def entries(tmp_path_factory):
    root = tmp_path_factory.mktemp("cohort")
    return Cache.open(make_cache(root, holes=(("t1n", "t2f"), ("t2w",)), shape=(26, 24, 22))).subjects("training")


def test_they_begin_as_small_noise_of_their_own():
    templates = Templates(("t1n", "t2w"), GRID, seed=3)
    assert templates.volumes.shape == (2, 12, 14, 10)
    assert templates.volumes.dtype == torch.float32
    assert float(templates.volumes.detach().std()) == pytest.approx(NOISE, rel=0.05)
    swapped = Templates(("t2w", "t1n"), GRID, seed=3)
    assert torch.equal(swapped.volumes.flip(0), templates.volumes)
    assert not torch.equal(Templates(("t1n", "t2w"), GRID, seed=4).volumes, templates.volumes)
    assert Templates(("t1n",)).grid.shape == head_grid(2.0).shape == (97, 115, 97)


def test_filled_from_a_scan_they_give_the_crops_that_the_loader_gives(entries):
    """Flipped and turned ones too, of several modalities, at once."""
    dataset = PatchDataset(entries[:1], (12, 12, 8), patches_per_subject=24, seed=1)
    batch = collate([dataset[2, index] for index in range(24)])
    assert len({tuple(matrix[:3, :3].flatten().tolist()) for matrix in batch.affine}) > 3
    grid = Grid(entries[0].shape, entries[0].affine)
    templates = Templates(("t1n", "t2w", "t2f"), grid, tolerance=0)
    for number in (0, 2):
        templates.set(templates.modalities[number], entries[0].images()[number], grid)
    modality = torch.tensor([0, 2]).repeat(12)
    found = templates(batch.affine, (12, 12, 8), modality)
    expected = batch.images[torch.arange(24), modality][:, None]
    assert float(expected.std()) > 0.3
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_a_grid_around_a_cohort_covers_its_crops_and_holds_its_scans_nearly(entries):
    grids = [Grid(entry.shape, entry.affine) for entry in entries]
    templates = Templates(("t1n", "t2w", "t2f"), covering_grid(grids, 0.5), tolerance=0)
    templates.set("t2w", entries[1].images()[1], grids[1])
    dataset = PatchDataset(entries, (12, 12, 8), patches_per_subject=4, seed=1)
    batch = collate([dataset[0, index] for index in range(8)])
    found = templates(batch.affine, (12, 12, 8), torch.ones(8, dtype=torch.int64), batch.subject)[4:, 0].detach()
    assert float(torch.corrcoef(torch.stack([found.flatten(), batch.images[4:, 1].flatten()]))[0, 1]) > 0.99


def test_a_crop_beyond_the_grid_is_refused_with_its_overhang():
    templates = Templates(("t1n",), GRID, tolerance=3.0)
    crops = torch.cat([at(GRID), at(GRID, (8, 0, 0))])  # 8 + 6 − 12 voxels of 2 mm beyond
    with pytest.raises(UserError, match=r"to 3 mm, got one of s7 that reaches 4\.0 mm beyond it; lay the grid around"):
        templates(crops, (6, 6, 6), torch.zeros(2, dtype=torch.int64), ("s3", "s7"))
    templates.tolerance = 4.1
    found = templates(crops, (6, 6, 6), torch.zeros(2, dtype=torch.int64))
    torch.testing.assert_close(found[1, 0, 4:], templates.volumes[0, -1:, :6, :6].expand(2, 6, 6), rtol=0, atol=1e-6)


def test_a_modality_without_template_is_refused():
    templates = Templates(("t1n", "t2w"), GRID)
    assert templates.index(["t2w", "t1n"]) == [1, 0]
    with pytest.raises(UserError, match="got none for ct pet, but those of t1n t2w"):
        templates.index(["t1n", "ct", "pet"])
    with pytest.raises(UserError, match="got none for ct"):
        templates.set("ct", np.zeros((2, 2, 2), np.float32), GRID)


def test_they_stay_in_float32_under_mixed_precision():
    templates = Templates(("t1n",), GRID)
    with torch.autocast("cpu", torch.bfloat16):
        found = templates(at(GRID), (4, 4, 4), torch.tensor([0]))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found[0, 0], templates.volumes[0, :4, :4, :4], rtol=0, atol=1e-6)
    found.square().sum().backward()
    assert templates.volumes.grad.dtype == torch.float32


def test_files_hold_them_bit_for_bit_where_they_are(tmp_path):
    templates = Templates(("t2w", "t1n"), GRID, seed=1)
    paths = templates.save(tmp_path / "templates")
    assert [path.name for path in paths] == ["t2w.nii.gz", "t1n.nii.gz"]
    image = nib.load(paths[1])
    np.testing.assert_array_equal(image.get_fdata(dtype=np.float32), templates.volumes[1].detach().numpy())
    np.testing.assert_allclose(image.affine, GRID.affine)
    assert image.get_sform(coded=True)[1] == 1
    again = Templates.load(tmp_path / "templates")
    assert again.modalities == ("t1n", "t2w")
    assert torch.equal(again.volumes, templates.volumes[[1, 0]])
    np.testing.assert_allclose(again.grid.affine, GRID.affine)
    again.volumes.requires_grad_(False)
    assert not again(at(GRID), (2, 2, 2), torch.tensor([0])).requires_grad


def test_files_in_the_way_stay(tmp_path):
    templates = Templates(("t1n", "t2w"), GRID)
    (tmp_path / "t2w.nii.gz").write_text("years")
    with pytest.raises(UserError, match=r"t2w\.nii\.gz not to exist"):
        templates.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["t2w.nii.gz"]
    templates.save(tmp_path, force=True)
    assert torch.equal(Templates.load(tmp_path).volumes, templates.volumes)


def test_a_folder_without_templates_or_with_two_grids_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"templates, <modality>\.nii\.gz, in .*, got none"):
        Templates.load(tmp_path)
    Templates(("t1n",), GRID).save(tmp_path)
    Templates(("t2w",), GRID.crop((1, 0, 0), GRID.shape)).save(tmp_path)
    with pytest.raises(UserError, match=r"on one grid, got another for .*t2w"):
        Templates.load(tmp_path)


def test_identity_is_that_of_names_grid_and_values_and_survives_files(tmp_path):
    grid = box_grid((-31.7, 0.1, 3.3), (-20, 12, 15), 1.3)  # no float32 numbers
    templates = Templates(("t2w", "t1n"), grid, seed=1)
    templates.save(tmp_path)
    assert Templates.load(tmp_path).identity == templates.identity
    assert Templates(("t1n", "t2w"), grid, seed=1).identity == templates.identity
    others = [Templates(("t2w", "t1c"), grid), Templates(("t2w", "t1n"), grid.crop((1, 0, 0), grid.shape), seed=1)]
    others[0].volumes.data = templates.volumes.data.clone()
    others.append(Templates(("t2w", "t1n"), grid, seed=1))
    others[2].volumes.data[1, 0, 0, 0] += 1e-6
    assert len({each.identity for each in (templates, *others)}) == 4


def save_beside(folder, made, **about):
    network = Prism(NetworkConfig(width=4, levels=2, prior="none"), 2, (8, 8, 8), outputs=0)
    save_model(folder, network, {**dict.fromkeys(REQUIRED, ()), "architecture": network.architecture, **about})
    made.save(folder / FOLDER, force=True)


def test_templates_beside_a_model_are_those_of_its_card(tmp_path):
    templates = Templates(("t1n", "t2w"), GRID, seed=2)
    save_beside(tmp_path / "run/model", templates, templates=templates.identity)
    assert load_model(tmp_path / "run")[0].architecture["outputs"] == 0
    found = load_beside(tmp_path / "run")
    assert torch.equal(found.volumes, templates.volumes)
    Templates(("t1n", "t2w"), GRID, seed=3).save(tmp_path / "run/model" / FOLDER, force=True)
    with pytest.raises(UserError, match=r"expected templates .*, got .*those of another model; copy the whole"):
        load_beside(tmp_path / "run")


def test_a_model_without_templates_is_refused(tmp_path):
    save_beside(tmp_path, Templates(("t1n",), GRID))
    with pytest.raises(UserError, match=r"a model with templates, got .* without; pre-train one with .*--config brain"):
        load_beside(tmp_path)
