"""Fit the numbers by which `gliomask.inspection.naming` tells sequences apart, and say how often they are right.

    python recipes/fit_sequences.py BRATS_FOLDER              # fit, cross-validate, print the table
    python recipes/fit_sequences.py BRATS_FOLDER --write      # and write src/gliomask/inspection/arrangement.py

Every way to give the images of a case to sequences is a class; the log odds are linear in what `describe` returns (a
softmax over arrangements, on every subset of the images), with an L2 penalty. Phantoms are learnt along with the real
cases.
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
from gliomask.inspection.sampled import Look, take_look
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    looks = {case.id: take_look(read_case(case, NAMES), NAMES, {}) for case in find_cases(arguments.folder)}
    real = {name: described(look) for name, look in looks.items() if coverage(look) is None}
    print(f"left out, an image with slices missing: {', '.join(looks.keys() - real.keys()) or 'none'}")
    drawn = [described(take_look(phantom(seed, size), NAMES, {})) for seed, size in PHANTOMS]
    everything = [*real.values(), *drawn]
    shapes = np.concatenate([example[0] for example in everything])
    means, spreads = shapes.mean(axis=0), shapes.std(axis=0)
    real = {name: ((one - means) / spreads, relations) for name, (one, relations) in real.items()}
    drawn = [((one - means) / spreads, relations) for one, relations in drawn]
    cross_validate(real, drawn)
    weights = fit([*real.values(), *drawn])
    worst = min(margin(weights, example, chosen) for example in drawn for chosen in SUBSETS if len(chosen) > 1)
    print(f"phantoms: least log odds of the given arrangement {worst:.1f}")
    if arguments.write:
        target = Path(arrangement.__file__)
        target.write_text(source(means, spreads, weights, len(real)), "utf-8")
        print(f"wrote {target}")


def phantom(seed: int, size: int) -> Volume:
    drawn = make_phantom(seed, size=size)
    return Volume(np.stack([drawn.images[name] for name in NAMES]), drawn.affine)


def described(look: Look) -> Example:
    """What tells the images apart, not standardised."""
    shapes, relations = naming.describe(look)
    return shapes * np.array(arrangement.SPREADS) + np.array(arrangement.MEANS), relations


def features(example: Example, chosen: Sequence[int], ways: Sequence[int]) -> np.ndarray:
    """What the weights are multiplied with: of the images `chosen`, named `ways`."""
    shapes, relations = example
    alone, together = np.zeros((4, 4)), np.zeros((3, 4, 4))
    for image, way in zip(chosen, ways, strict=True):
        alone[way] += shapes[image]
        for other, its_way in zip(chosen, ways, strict=True):
            if other != image:
                together[:, way, its_way] += relations[:, image, other]
    return np.concatenate([alone.ravel(), together.ravel()])


def fit(examples: Sequence[Example]) -> np.ndarray:
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
    """The log odds of the given arrangement against the best other one."""
    ways = list(permutations(range(4), len(chosen)))
    scores = {way: float(features(example, chosen, way) @ weights) for way in ways}
    own = scores.pop(tuple(chosen if given is None else given))
    return own - max(scores.values())


def cross_validate(real: dict[str, Example], drawn: Sequence[Example]) -> None:
    names = list(real)
    margins: dict[tuple, list[tuple[str, float]]] = {}
    for fold in range(FOLDS):
        weights = fit([*(real[name] for number, name in enumerate(names) if number % FOLDS != fold), *drawn])
        for name in names[fold::FOLDS]:
            for chosen in SUBSETS[4:]:
                for given in permutations(range(4), len(chosen)):
                    key = (chosen, given)
                    margins.setdefault(key, []).append((name, margin(weights, real[name], chosen, given)))
    print(f"{len(real)} cases, {FOLDS}-fold; warned of where the log odds against what is given exceed the limit")
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
    def table(values: np.ndarray) -> str:
        return repr(np.round(values, 3).tolist())

    alone, together = weights[:16].reshape(4, 4), weights[16:].reshape(3, 4, 4)
    return f'''"""The numbers by which `misnamed` tells sequences apart, as `recipes/fit_sequences.py` fitted them.

On {count} cases of BraTS 2018 to 2021 and {len(PHANTOMS)} phantoms.
"""

from __future__ import annotations

import numpy as np

MODALITIES = ("t1n", "t1c", "t2w", "t2f")

MEANS = np.array({table(means)})
SPREADS = np.array({table(spreads)})
SHAPES = np.array({table(alone)})
"""Weight of each of four numbers about an image, a row a sequence."""
RELATIONS = np.array({table(together)})
"""Weight of each of three numbers about two images, a row the first one's sequence, a column the second one's."""
'''


if __name__ == "__main__":
    main()
