"""Predictions on tomorrow's images: from a model and a folder to a table and a count.

from rcmnet_jax.prediction import open_classifier
classifier = open_classifier("model.rcmnet")
verdicts = classifier.predict_files(["a.jpg", "b.jpg"])
"""

from rcmnet_jax.prediction.classifier import Classifier as Classifier
from rcmnet_jax.prediction.classifier import Verdicts as Verdicts
from rcmnet_jax.prediction.classifier import open_classifier as open_classifier
from rcmnet_jax.prediction.predict_folder import predict_folder as predict_folder
