"""Systems to compare a model with, each from questions to predictions.

constant.py    the best answer that reads nothing
polarity.py    one number a text (VADER, TextBlob, a word list) as the answer to every task of valence
lexicon.py     a user's own emotion word list
embedding.py   sentence embedding, then ridge or logistic regression
chat.py        a question as chat messages, and a reply as an answer
endpoint.py    any OpenAI-compatible server: concurrency, retries, cache, cost
"""
