"""The engine for models behind an OpenAI-compatible inference server.

options    concurrency, retries, time, cost, cache
forms      the closed answers of a question as regular expression, grammar, JSON schema and text
asked      questions to requests
detect     a server's interface, structured output and log-probabilities
client     HTTP with bounded concurrency and retries
cache      answers, so that none is paid for twice
usage      requests, tokens and cost, estimated and counted
decisions  log-probabilities to the branches that a reply took and did not take
json_reply positions of the values in a JSON reply
readout    a reply to answers with distributions
engine     the `Scorer`
"""
