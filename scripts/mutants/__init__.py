"""``make mutants``: change the code in one place at a time, and count the changes that no test notices."""
