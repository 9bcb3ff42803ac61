"""
A table: pipeline and grid search
=================================

Rows of numbers and a class for each, as scikit-learn has them: `MLPClassifier` of `nnfast.sklearn` stands in a pipeline and is
searched over like scikit-learn's own, and gives the same coefficients sooner.
"""

import time

from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from nnfast.sklearn import MLPClassifier

X, y = load_breast_cancer(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.25, stratify=y, random_state=0)

# %%
# The columns have very different sizes, so they are scaled first. What is searched are the widths of the hidden layers and the
# strength of the penalty; each is tried on five divisions of the training rows.

pipeline = make_pipeline(StandardScaler(), MLPClassifier(max_iter=500, random_state=0))
search = GridSearchCV(
    pipeline, {"mlpclassifier__hidden_layer_sizes": [(10,), (50,), (30, 30)], "mlpclassifier__alpha": [0.0001, 0.1, 10.0]}, cv=5)
started = time.perf_counter()
search.fit(X_train, y_train)
print(f"{len(search.cv_results_['params']) * 5} fits in {time.perf_counter() - started:.1f} s")
print("best:", search.best_params_)
print(f"accuracy, cross-validated {search.best_score_:.3f}, of the test rows {search.score(X_test, y_test):.3f}")

# %%
# Malignant tumours are the rarer class and the one that must not be missed: `class_weight`, which scikit-learn's own does not have,
# makes them count more. `eval_set` shows how well rows do that are not trained on.

scaler = StandardScaler().fit(X_train)
careful = MLPClassifier(max_iter=300, random_state=0, class_weight={0: 5.0}, early_stopping=True)
careful.fit(scaler.transform(X_train), y_train, eval_set=(scaler.transform(X_test), y_test))
missed = ((careful.predict(scaler.transform(X_test)) == 1) & (y_test == 0)).sum()
print(f"{missed} of {(y_test == 0).sum()} malignant tumours missed after {careful.n_iter_} epochs")
