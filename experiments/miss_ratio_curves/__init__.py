"""How far is every policy from Belady's optimum, at every capacity?"""
