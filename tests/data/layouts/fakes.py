"""Empty files where scans would be: readers of layouts look at names only."""

import json

from medprism.data import layouts


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def dataset_json(root, **content):
    root.mkdir(exist_ok=True)
    (root / "dataset.json").write_text(json.dumps(content))
    return root


def read(root, module):
    """Read as `auto`: the layout must be the only one that recognises the folder."""
    assert layouts.detect(root) is module
    return module.read(root)


def by_name(found):
    return {s.subject: s for s in found.subjects()}


def nnunet_root(root, **changes):
    content = {
        "channel_names": {"0": "T1", "1": "T1ce", "2": "FLAIR"},
        "labels": {"background": 0, "core": 1, "edema": 2},
        "file_ending": ".nii.gz",
    }
    return dataset_json(root, **(content | changes))
