"""The engine of models behind an OpenAI-compatible inference server.

options    in flight, retries, time, cost, cache
forms      the closed answers of a question, as a pattern, a grammar, a JSON schema and in words
asked      questions to requests
detect     which interface, structured output and log-probabilities a server has
client     HTTP: bounded, retried, patient
cache      answers that are not paid for twice
usage      requests, tokens and cost, estimated and counted
decisions  log-probabilities to the branches that a reply did and did not take
json_reply where the values of a JSON reply stand
readout    a reply to answers, with their distributions
engine     all of it behind the `Scorer` contract
"""
