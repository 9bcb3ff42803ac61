"""What a classifier says at points of the plane: which class is right there, and by how much it is ahead."""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from nnfast import _validation
from nnfast.losses import SigmoidWithLoss
from nnfast.perceptron import Perceptron


def decide(classifier: Any, grid: np.ndarray) -> Any:
    """Labels (B,) or scores (B, C) of rows of two inputs."""
    if isinstance(classifier, Perceptron):
        _validation.of_two_inputs(classifier)
        return (grid @ classifier.w + classifier.b)[:, np.newaxis]
    loss = getattr(classifier, "last_layer", None)
    if loss is not None:
        _validation.is_classifier(loss)
    predict = getattr(classifier, "predict", None)
    if callable(predict):
        scores = predict(grid)
        if isinstance(loss, SigmoidWithLoss):
            _validation.one_question(scores)
        return scores
    _validation.is_function_or_predicts(classifier)
    if _takes_two_numbers(classifier):
        return np.array([classifier(*point) for point in grid.tolist()])
    return classifier(grid)


def _takes_two_numbers(function: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):     # compiled ones may have none
        return False
    needed = [one for one in parameters if one.default is one.empty and one.kind in (
        one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    return len(needed) == 2


def regions(answers: np.ndarray) -> tuple[list[Any], np.ndarray, np.ndarray]:
    """Names of the classes, the number of each point's class, and how far each class is ahead there, (B, C)."""
    if answers.ndim == 1:
        names, classes = np.unique(answers, return_inverse=True)
        return names.tolist(), classes, _steps(classes, len(names))
    if answers.shape[1] == 1:
        ahead = answers[:, 0].astype(np.float64)
        return [0, 1], (ahead > 0).astype(np.int64), np.stack([-ahead, ahead], axis=1)
    scores = answers.astype(np.float64)
    margins = np.empty_like(scores)
    for place in range(scores.shape[1]):
        margins[:, place] = scores[:, place] - np.delete(scores, place, axis=1).max(axis=1)
    return list(range(scores.shape[1])), scores.argmax(axis=1), margins


def _steps(classes: np.ndarray, count: int) -> np.ndarray:
    """Of labels it is only known which is right: the line lies half way between two points."""
    return np.where(classes[:, np.newaxis] == np.arange(count), 0.5, -0.5)


def with_labels(
    names: list[Any], classes: np.ndarray, margins: np.ndarray, t: ArrayLike, examples: int, is_of_scores: bool
) -> tuple[list[Any], np.ndarray, np.ndarray, np.ndarray]:
    """The regions, with classes that only examples have, and the number of each example's class."""
    if is_of_scores:
        return names, classes, margins, _validation.labels(t, examples, len(names))
    given = np.asarray(t)
    _validation.same_length(given, examples)
    if given.ndim == 2 and given.shape[1] > 1:
        given = _validation.labels(given, examples, given.shape[1])
    given = given.reshape(-1)
    all_names = np.unique(np.concatenate([np.asarray(names), given]))
    renumbered = np.searchsorted(all_names, np.asarray(names))[classes]
    return all_names.tolist(), renumbered, _steps(renumbered, len(all_names)), np.searchsorted(all_names, given)
