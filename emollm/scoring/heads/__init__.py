"""Small linear heads on hidden layers: one forward pass per post gives the answers of all tasks. Without Ray.

engine.py            the inference engine
backbone.py          the layers of a base model up to the deepest feature layer
weights.py           the weights of all heads, and their file
readout.py           scores to answers with distributions
derive.py            answers of tasks without labels, derived from other tasks
extract.py           texts to candidate features
labels.py            a data folder as a table of texts and golds, with gaps masked
ridge.py             closed-form fits over folds of the training texts
stacking.py          heads fitted on the out-of-fold scores of all heads
head_calibration.py  held-out scores to probabilities and thresholds
fit.py               features and labels to heads: layers and regularisation by cross-validation
"""
