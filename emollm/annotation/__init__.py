"""Corpora to affect columns, on pools of Ray actors: one row in, one row out, whatever dies.

config       options
job          options, input and output of one job, checked
inputs       which files, on which filesystem
columns      which of their columns
readers      one file to rows, whatever its format
lines        text formats, a line at a time
ids          derived ids; ids that occur twice
stage        input to numbered rows in Parquet, once
carry        types of carried columns
identity     what makes two jobs the same
output       the output folder while it grows
lock         one run at a time
blocks       Ray Data's source: rows still to score
ledger       who scores what; what went wrong
monitor      the ledger as a Ray actor, and progress
actor        scores a block, surviving what kills actors
finish       blocks to ordered files, manifest, marker
column_stats histograms and extremes, as rows stream by
page         those as an HTML report
verify       output against input
estimate     a dry run: time, GPU-hours, size
score        blocks through the actors, with Ray Data
pipeline     all of it, top to bottom
report       annotated posts on the terminal
"""
