"""What each tissue of the body phantoms shows in CT (HU) and FDG-PET (SUV).

Sources, by the letter in the table's last column:

- C: CT numbers of fat −50 to −100, kidney 20 to 40, spleen 35 to 55, blood 45 to 65, liver 45 to 65, white matter 20 to
  30, grey matter 37 to 45, water 0, air −1000: Prokop and Galanski, Spiral and Multislice Computed Tomography of the
  Body, Thieme 2003; Buzug, Computed Tomography, Springer 2008.
- L: SUV of the liver 1.88 ± 0.41 in 343 patients: Liu et al. 2019, Iran J Radiol 16:e84881, 10.5812/iranjradiol.84881.
- N: SUV of palatine tonsils 3.48, soft palate 3.13, lingual tonsils 3.11, sublingual 2.93, spinal cord 2.12,
  submandibular 2.11, parotid 1.90, vocal cords 1.77, concha 1.56, tongue 1.39, thyroid 1.31: Nakamoto et al. 2005,
  Radiology 234:879, 10.1148/radiol.2343030301.
- W: SUV of the cerebellum 8.0 ± 2.2, and the spreads of tonsils, palate and glands: Wang et al. 2007, Molecular Imaging
  and Biology 9:83, 10.1007/s11307-006-0075-y.
- A: measured in patient 042 of ACRIN-NSCLC-FDG-PET (TCIA, CC BY 3.0, 10.7937/tcia.2019.30ilqfcl): lung −854 HU and SUV
  0.35, fat −103 HU and 0.22, soft tissue 50 HU, skin 0.5, liver 62 HU and 1.75.
- M: largest SUV of blood 2.3, spleen 1.9, marrow 1.0, lung 0.7: Mettler and Guiberteau, Essentials of Nuclear Medicine
  Imaging, Saunders 2006, chapter 13.

Where a column has no letter, and for all spreads not named above, the value is chosen so that scans look as they
usually do.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tissue:
    """One kind of tissue.

    Attributes:
        hu: Mean CT number.
        suv: Mean uptake.
        hu_person: Spread of `hu` between persons.
        hu_texture: Spread of `hu` within one person.
        suv_person: Spread of the logarithm of `suv` between persons.
        suv_texture: The same within one person.
    """

    hu: float
    suv: float
    hu_person: float = 4.0
    hu_texture: float = 4.0
    suv_person: float = 0.15
    suv_texture: float = 0.06


TISSUES: dict[str, Tissue] = {
    "air": Tissue(-1000, 0.0, 0, 0),
    "couch": Tissue(-150, 0.0, 0, 0),
    "skin": Tissue(-10, 0.50),  # A; half of a pixel of skin is fat
    "fat": Tissue(-103, 0.22, 4, 6),  # C A
    "muscle": Tissue(52, 0.62, 5, 6, 0.20, 0.10),  # A
    "vessel": Tissue(45, 1.60, 4, 2),  # C M
    "cartilage": Tissue(110, 0.6, 15, 10),
    "cortical bone": Tissue(900, 0.5, 80, 60),
    "marrow": Tissue(170, 1.15, 50, 20, 0.25, 0.08),  # M
    "disc": Tissue(85, 0.7, 8, 5),
    "spinal cord": Tissue(32, 1.6, 3, 2),  # N, whose value is a maximum
    "nodal": Tissue(40, 1.3),
    # chest
    "lung": Tissue(-850, 0.42, 20, 25, 0.20, 0.10),  # A
    "mediastinum": Tissue(-20, 0.7, 20, 25),
    "myocardium": Tissue(50, 3.0, 3, 3, 0.75, 0.15),
    "oesophagus": Tissue(35, 1.5, 4, 3, 0.25),
    "trachea wall": Tissue(20, 1.0),
    "breast": Tissue(0, 0.8, 20, 30, 0.2, 0.15),
    # belly
    "liver": Tissue(58, 1.90, 7, 4, 0.20, 0.05),  # C A L
    "spleen": Tissue(48, 1.60, 4, 3, 0.15, 0.05),  # C M
    "kidney": Tissue(33, 2.4, 4, 4, 0.2, 0.08),  # C
    "urine": Tissue(6, 16.0, 3, 1, 0.6, 0.05),
    "bile": Tissue(10, 0.6, 4, 1),
    "pancreas": Tissue(38, 1.35, 6, 8),
    "stomach wall": Tissue(42, 1.9, 4, 3, 0.25),
    "stomach content": Tissue(20, 0.6, 15, 15),
    "small bowel": Tissue(32, 1.3, 6, 12, 0.25, 0.25),
    "colon": Tissue(25, 1.3, 10, 40, 0.45, 0.30),
    "uterus": Tissue(50, 1.6),
    # head and neck
    "grey matter": Tissue(39, 9.0, 2, 2, 0.22, 0.06),  # C W
    "white matter": Tissue(29, 3.4, 2, 1, 0.22, 0.05),  # C
    "cerebellum": Tissue(37, 8.0, 2, 2, 0.22, 0.05),  # C W
    "CSF": Tissue(8, 0.8, 2, 1),
    "eye": Tissue(14, 0.6, 3, 1),
    "eye muscle": Tissue(45, 3.0, 4, 2, 0.3),
    "mucosa": Tissue(45, 1.5, 4, 6),  # N
    "tooth": Tissue(2000, 0.4, 150, 100),
    "tongue": Tissue(48, 1.35, 5, 8, 0.2, 0.12),  # N
    "soft palate": Tissue(45, 3.0, 4, 3, 0.28),  # N W
    "palatine tonsil": Tissue(48, 3.4, 4, 3, 0.38),  # N W
    "lingual tonsil": Tissue(48, 3.0, 4, 3, 0.33),  # N W
    "sublingual gland": Tissue(40, 2.9, 6, 4, 0.42),  # N W
    "submandibular gland": Tissue(38, 2.1, 6, 4, 0.27),  # N
    "parotid": Tissue(5, 1.9, 15, 10, 0.30),  # N
    "thyroid": Tissue(105, 1.3, 12, 6, 0.25),  # N
    "vocal cords": Tissue(50, 1.8, 4, 3, 0.3),  # N
}

# Names in a fixed order: the value of a voxel in the map of tissues.
NAMES = tuple(TISSUES)
