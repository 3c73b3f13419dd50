"""Annotates corpora with affect columns on pools of Ray actors: one row out per row in, whatever fails.

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
actor        scores a block; a post that crashes actors is set aside
finish       blocks to ordered files, manifest, marker
column_stats streaming histograms and extremes
page         column statistics as an HTML report
verify       output against input
estimate     a dry run: time, GPU-hours, size
score        runs blocks through the actors, with Ray Data
pipeline     the whole job, top to bottom
report       annotated posts and the summary on the terminal
"""
