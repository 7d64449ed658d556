"""The parts of the report: results -> charts and tables -> one page.

results     what the stages wrote, and how it is averaged over seeds
charts      what is drawn, as plain data;  *_charts: from results to charts
tables      what is tabulated, as plain data;  *_tables: from results to tables
plotting    charts -> PNG: the only user of matplotlib
goals       which of the project's goals were met, in words
summary     the headline numbers;  page: the HTML;  comparison: the points of a sweep

A part that cannot be shown raises `Missing`, whose message stands in its place.
"""
