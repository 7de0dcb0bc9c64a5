"""The tables against NumPy's interpolation."""

import numpy as np
import torch

from medprism.models.intensity import KNOTS, LARGEST, SPREAD, IntensityTable


def test_starts_as_cosines_the_same_for_all_modalities():
    values = IntensityTable(3, 4).values.detach().numpy()
    places = np.linspace(0, 1, KNOTS)
    for modality in range(3):
        for channel in range(4):
            expected = np.cos(np.pi * (channel + 1) * places)
            np.testing.assert_allclose(values[modality, channel], expected, atol=1e-5)


def test_interpolates_linearly_between_knots_that_lie_close_around_zero():
    table = IntensityTable(3, 5)
    torch.nn.init.normal_(table.values)
    x, source = 4 * torch.randn(2, 1, 5, 6, 7), torch.tensor([2, 0])
    x[0, 0, 0, 0, :4] = torch.tensor([-100.0, 100.0, -LARGEST, LARGEST])  # beyond the ends it is the ends
    with torch.no_grad():
        found = table(x, source).numpy()
    assert found.shape == (2, 5, 5, 6, 7)
    knots = np.linspace(-1, 1, KNOTS) * np.arcsinh(SPREAD * LARGEST)
    for row, modality in enumerate(source):
        for channel in range(5):
            values = table.values[modality, channel].detach().numpy()
            expected = np.interp(np.arcsinh(SPREAD * x[row, 0].numpy()), knots, values)
            np.testing.assert_allclose(found[row, channel], expected, rtol=1e-3, atol=1e-3)
