"""What a run measured, for people.

terminal.py         tables for the terminal
main_table.py       the systems x tasks table: measured beside quoted, what is best
contents.py         notes, costs, what invalid answers change, the worst mistakes
evaluation_page.py  report.html
audit_page.py       audit.html, and the audit's table for the terminal
"""
