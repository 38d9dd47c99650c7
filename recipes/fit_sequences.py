"""Fit the parameters by which `gliomask.inspection.naming` recognises sequences, and evaluate them.

    python recipes/fit_sequences.py BRATS_FOLDER              # fit, cross-validate, print the table
    python recipes/fit_sequences.py BRATS_FOLDER --write      # and write src/gliomask/inspection/arrangement.py

Each assignment of the images of a case to sequences is a class. The model is a softmax over the assignments, for every
subset of the images, whose scores are linear in the features that `describe` returns, with an L2 penalty. It is fitted
to real cases and phantoms together.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import combinations, permutations
from pathlib import Path

import numpy as np
from scipy.optimize import minimize

from gliomask.cases import find_cases, read_case
from gliomask.inspection import arrangement, naming
from gliomask.inspection.sampled import Samples, take_samples
from gliomask.inspection.values import coverage
from gliomask.phantom import make_phantom
from gliomask.volume import Volume

NAMES = arrangement.MODALITIES
SUBSETS = [chosen for count in (1, 2, 3, 4) for chosen in combinations(range(4), count)]
PENALTY = 0.3
FOLDS = 9
PHANTOMS = ((1, 240), (2, 240), (3, 240), (5, 240), (11, 160), (12, 160), *((n, 96) for n in (1, 2, 3, 4)), (21, 64))
WEIGHTS = 16 + 3 * 16

Example = tuple[np.ndarray, np.ndarray]


def main() -> None:
    """Fit the parameters, print the results of a cross-validation and, if asked to, write the parameters."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    looks = {case.id: take_samples(read_case(case, NAMES), NAMES, {}) for case in find_cases(arguments.folder)}
    real = {name: described(look) for name, look in looks.items() if coverage(look) is None}
    print(f"left out because slices are missing in an image: {', '.join(looks.keys() - real.keys()) or 'none'}")
    drawn = [described(take_samples(phantom(seed, size), NAMES, {})) for seed, size in PHANTOMS]
    everything = [*real.values(), *drawn]
    shapes = np.concatenate([example[0] for example in everything])
    means, spreads = shapes.mean(axis=0), shapes.std(axis=0)
    real = {name: ((one - means) / spreads, relations) for name, (one, relations) in real.items()}
    drawn = [((one - means) / spreads, relations) for one, relations in drawn]
    cross_validate(real, drawn)
    weights = fit([*real.values(), *drawn])
    worst = min(margin(weights, example, chosen) for example in drawn for chosen in SUBSETS if len(chosen) > 1)
    print(f"phantoms: smallest log odds of the given assignment {worst:.1f}")
    if arguments.write:
        target = Path(arrangement.__file__)
        target.write_text(source(means, spreads, weights, len(real)), "utf-8")
        print(f"wrote {target}")


def phantom(seed: int, size: int) -> Volume:
    """Return the four sequences of a phantom as one volume."""
    drawn = make_phantom(seed, size=size)
    return Volume(np.stack([drawn.images[name] for name in NAMES]), drawn.affine)


def described(look: Samples) -> Example:
    """Return the features of the images, not standardised."""
    shapes, relations = naming.describe(look)
    return shapes * np.array(arrangement.SPREADS) + np.array(arrangement.MEANS), relations


def features(example: Example, chosen: Sequence[int], ways: Sequence[int]) -> np.ndarray:
    """Return the features that the weights are multiplied with if the images `chosen` are assigned to `ways`."""
    shapes, relations = example
    alone, together = np.zeros((4, 4)), np.zeros((3, 4, 4))
    for image, way in zip(chosen, ways, strict=True):
        alone[way] += shapes[image]
        for other, its_way in zip(chosen, ways, strict=True):
            if other != image:
                together[:, way, its_way] += relations[:, image, other]
    return np.concatenate([alone.ravel(), together.ravel()])


def fit(examples: Sequence[Example]) -> np.ndarray:
    """Return the weights that maximise the penalised likelihood of the given assignments."""
    sets = []
    for example in examples:
        for chosen in SUBSETS:
            given_first = sorted(permutations(range(4), len(chosen)), key=lambda ways, own=chosen: ways != own)
            sets.append(np.array([features(example, chosen, ways) for ways in given_first]))

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        total, slope = PENALTY * float(weights @ weights), 2 * PENALTY * weights
        for rows in sets:
            scores = rows @ weights
            odds = np.exp(scores - scores.max())
            total += float(scores.max() + np.log(odds.sum()) - scores[0])
            slope = slope + odds / odds.sum() @ rows - rows[0]
        return total, slope

    return minimize(loss, np.zeros(WEIGHTS), jac=True, method="L-BFGS-B").x


def margin(weights: np.ndarray, example: Example, chosen: Sequence[int], given: Sequence[int] | None = None) -> float:
    """Return the log odds of the given assignment against the best other one."""
    ways = list(permutations(range(4), len(chosen)))
    scores = {way: float(features(example, chosen, way) @ weights) for way in ways}
    own = scores.pop(tuple(chosen if given is None else given))
    return own - max(scores.values())


def cross_validate(real: dict[str, Example], drawn: Sequence[Example]) -> None:
    """Print the shares of false warnings and of detected swaps on real cases that the weights were not fitted to."""
    names = list(real)
    margins: dict[tuple, list[tuple[str, float]]] = {}
    for fold in range(FOLDS):
        weights = fit([*(real[name] for number, name in enumerate(names) if number % FOLDS != fold), *drawn])
        for name in names[fold::FOLDS]:
            for chosen in SUBSETS[4:]:
                for given in permutations(range(4), len(chosen)):
                    key = (chosen, given)
                    margins.setdefault(key, []).append((name, margin(weights, real[name], chosen, given)))
    print(
        f"{len(real)} cases, {FOLDS}-fold; a case is warned of if its log odds against the given names exceed the limit"
    )
    for chosen in SUBSETS[4:]:
        limit = naming._ODDS[len(chosen)]
        false = [f"{name} ({-odds:.1f})" for name, odds in margins[chosen, chosen] if odds < -limit]
        print(f"{' '.join(NAMES[n] for n in chosen)}, limit {limit:g}: false {len(false)} {', '.join(false)}")
        for given in permutations(range(4), len(chosen)):
            changed = [(NAMES[own], NAMES[way]) for own, way in zip(chosen, given, strict=True) if own != way]
            if len(changed) == 1 or (len(changed) == 2 and set(given) == set(chosen)):
                told = np.mean([odds < -limit for _, odds in margins[chosen, given]])
                what = " <-> ".join(changed[0]) if len(changed) == 2 else f"{changed[0][0]} given as {changed[0][1]}"
                print(f"    {what}: {told:.0%} detected")


def source(means: np.ndarray, spreads: np.ndarray, weights: np.ndarray, count: int) -> str:
    """Return the text of `src/gliomask/inspection/arrangement.py`."""

    def table(values: np.ndarray) -> str:
        return repr(np.round(values, 3).tolist())

    alone, together = weights[:16].reshape(4, 4), weights[16:].reshape(3, 4, 4)
    return f'''"""The parameters by which `misnamed` recognises sequences, written by `recipes/fit_sequences.py`.

They were fitted to {count} cases of BraTS 2018 to 2021 and {len(PHANTOMS)} phantoms.
"""

from __future__ import annotations

import numpy as np

MODALITIES = ("t1n", "t1c", "t2w", "t2f")

MEANS = np.array({table(means)})
SPREADS = np.array({table(spreads)})
SHAPES = np.array({table(alone)})
"""The weights of four features of an image: a row for each sequence."""
RELATIONS = np.array({table(together)})
"""The weights of three features of two images: a row for the first one's sequence, a column for the second one's."""
'''


if __name__ == "__main__":
    main()
