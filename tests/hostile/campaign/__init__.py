"""Hostile cases by the thousand: each kind of hazard makes them from seeds, each case is judged.

`case` has the terms, one module a kind of hazard makes cases, `registry` lists the hazards,
`runner` runs them. ``tools/campaign.py`` runs them for as long as one likes.
"""
