"""The tables against NumPy's interpolation."""

import numpy as np
import torch

from medprism.models.lookup import GAIN, KNOTS, LARGEST, SPREAD, LookupTables


def test_starts_with_nothing():
    assert not LookupTables(3)(torch.randn(2, 1, 4, 4, 4), torch.tensor([0, 2])).any()


def test_interpolates_linearly_between_knots_that_lie_close_around_zero():
    tables = LookupTables(3)
    torch.nn.init.normal_(tables.values)
    x, source = 4 * torch.randn(2, 1, 5, 6, 7), torch.tensor([2, 0])
    x[0, 0, 0, 0, :4] = torch.tensor([-100.0, 100.0, -LARGEST, LARGEST])  # beyond the ends it is the ends
    with torch.no_grad():
        found = tables(x, source).numpy()
    assert found.shape == (2, 3, 5, 6, 7)
    knots = np.sinh(np.linspace(-1, 1, KNOTS) * np.arcsinh(SPREAD * LARGEST)) / SPREAD
    for row, modality in enumerate(source):
        for target in range(3):
            values = GAIN * tables.values[modality, target].detach().numpy()
            expected = np.interp(np.arcsinh(SPREAD * x[row, 0].numpy()), np.arcsinh(SPREAD * knots), values)
            np.testing.assert_allclose(found[row, target], expected, rtol=1e-3, atol=1e-3)


def test_at_a_knot_it_is_the_knots_value():
    tables = LookupTables(2)
    torch.nn.init.normal_(tables.values)
    knots = torch.sinh(torch.linspace(-1, 1, KNOTS) * np.arcsinh(SPREAD * LARGEST)) / SPREAD
    with torch.no_grad():
        found = tables(knots.view(1, 1, -1, 1, 1), torch.tensor([1]))[0, :, :, 0, 0]
    torch.testing.assert_close(found, GAIN * tables.values[1].detach(), rtol=1e-4, atol=1e-3)
