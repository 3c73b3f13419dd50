"""What a run measured, for people.

terminal.py   a table for the terminal
main_table.py the systems x tasks table: measured beside quoted, what is best
facts.py      what stands in both reports: notes, costs, mistakes
charts.py     scatter, confusion and reliability as SVG
html.py       report.html, one self-contained page
markdown.py   report.md
"""
