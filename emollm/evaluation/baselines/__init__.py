"""Systems to compare a model with, each from questions to predictions.

constant.py    the best answer that reads nothing
polarity.py    one number per text (VADER, TextBlob, a word list) as the answer to every task of valence
lexicon.py     a user's own emotion word list
endpoint.py    a model behind any OpenAI-compatible server
"""
