import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, roc_auc_score

from medprism.evaluation.classes import CLASS_METRICS, rated


def random(n=40, classes=3, seed=0):
    draw = np.random.default_rng(seed)
    likely = draw.dirichlet(np.ones(classes), n).round(1)  # with ties
    likely[:, -1] = 1 - likely[:, :-1].sum(1)
    return likely, draw.integers(classes, size=n)


@pytest.mark.parametrize("classes", [2, 3])
def test_numbers_are_scikit_learns_for_any_weights(classes):
    likely, truth = random(classes=classes)
    weights = np.concatenate([np.ones((1, 40)), np.random.default_rng(1).integers(0, 3, (4, 40))])
    made = rated(likely, truth, weights)
    guess = likely.argmax(1)
    assert set(made) == set(CLASS_METRICS)
    for number, weight in enumerate(weights):
        keys = {"sample_weight": weight}
        one_vs_rest = [roc_auc_score(truth == k, likely[:, k], **keys) for k in range(classes)]
        wanted = {
            "acc": accuracy_score(truth, guess, **keys),
            "balanced_acc": balanced_accuracy_score(truth, guess, **keys),
            "f1": f1_score(truth, guess, average="macro", **keys),
            "auc": np.mean(one_vs_rest),
        }
        assert {name: values[number] for name, values in made.items()} == pytest.approx(wanted)


def test_what_has_no_meaning_is_left_out():
    likely = np.array([[0.9, 0.1, 0.0], [0.6, 0.3, 0.1], [0.2, 0.8, 0.0]])
    truth = np.array([0, 0, 1])
    weights = np.array([[1.0, 1, 1], [2, 1, 0], [0, 0, 0]])  # as it is; one class alone; nobody
    made = rated(likely, truth, weights)
    assert made["auc"][0] == 1  # the third class has nobody
    assert made["f1"][0] == 1
    assert made["balanced_acc"][:2].tolist() == [1, 1]
    assert np.isnan([made["auc"][1], made["acc"][2], made["f1"][2]]).all()
