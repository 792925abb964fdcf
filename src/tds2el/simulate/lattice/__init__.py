"""Crystals of atoms and springs, whose dynamics is exact: the truth that models are judged against."""
