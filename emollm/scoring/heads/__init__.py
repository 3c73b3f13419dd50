"""Small linear heads on a hidden layer: one pass of a post, the answers of every task. No Ray in here.

card.py       the `heads` section of affect.json
backbone.py      the blocks of a backbone up to the deepest one read
head_weights.py       the weights of all heads, and their file
readout.py    scores to answers, each with its distribution
derive.py     answers of tasks without labels, out of those of other tasks
extract.py    texts to the states that heads may read
labels.py     a data folder as a table of texts and golds, gaps masked
ridge.py      closed-form fits over folds of the training texts
borrow.py     heads that learn from each other
calibrate.py  held-out scores to probabilities and thresholds
fit.py        features and labels to heads: layers and strengths chosen by cross-validation
"""
