import numpy as np
import pytest

from medprism.errors import UserError
from medprism.phantoms.mri import TISSUES, with_contrast
from medprism.phantoms.scanner import SCANNERS, scanner_preset


@pytest.mark.parametrize("name", sorted(SCANNERS))
def test_pure_tissues_are_in_the_order_that_radiologists_know(name):
    signal = {}
    for modality, protocol in scanner_preset(name).protocols.items():
        for tissue, c in TISSUES.items():
            t1 = np.float32(c.t1)
            t1 = with_contrast(t1, c.gadolinium) if protocol.contrast else t1
            signal[modality, tissue] = abs(float(protocol.sequence.signal(t1, np.float32(c.t2), np.float32(c.pd))))

    def order(modality, *tissues):
        values = [signal[modality, tissue] for tissue in tissues]
        assert values == sorted(values, reverse=True), (modality, tissues, values)

    order("t1n", "WM", "GM", "ED", "NCR", "CSF")
    order("t1c", "ET", "WM", "GM", "NCR", "CSF")
    order("t2w", "CSF", "NCR", "ED", "GM", "WM", "vessel")
    order("t2f", "ED", "GM", "WM", "CSF")
    assert signal["t1c", "ET"] > 1.8 * signal["t1n", "ET"]
    assert signal["t2f", "CSF"] < 0.1 * signal["t2f", "WM"]


def test_unknown_scanner():
    with pytest.raises(UserError, match="A, B or both, got 'C'"):
        scanner_preset("C")
