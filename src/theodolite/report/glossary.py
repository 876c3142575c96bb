"""Glossary of the pages: what the words of a survey mean, for tooltips and the list at the end of the numbers."""

from __future__ import annotations

from collections.abc import Mapping

GLOSSARY: Mapping[str, str] = {
    "factor": "A property of the visual world with named values, such as colour: red, blue.",
    "scene": "One value for every factor. All pairs that start from one base picture belong to its scene; intervals count scenes.",
    "pair": "Two pictures that differ in one factor, asked the same question.",
    "read": "The answer changes where the true answer changes.",
    "leak": "The answer changes although the true answer does not. What counts is how much more often than by noise.",
    "noise": "How often the answer changes when nothing changes that the question is about: another nuisance seed, a picture saved again "
    "or moved by a pixel, or another wording.",
    "verdict": "What reads and leaks say of a factor, where the whole interval lies on one side of the threshold.",
    "interval": "A range that covers the true rate in 95 % of surveys, or at the level that the page names, with the scene as the unit.",
    "right before and after": "Both pictures of the pair are answered right: stricter than a read, since an answer can move from one wrong "
    "answer to another.",
    "total variation": "How far the probabilities of the choices move between the two pictures, 0 to 1. It shows changes that the most "
    "probable answer hides.",
    "competence": "Accuracy on questions about a factor against chance, the share that the commonest true answer gets right.",
}
# Of the questions of training: for pages that know them.
OF_POLICIES: Mapping[str, str] = {
    "coverage": "Chance that some question of training tells apart two scenes that differ in this factor alone, 0 to 1; needs no model.",
    "limit": "Coverage with equal weight on all possible scenes: what endless data would determine.",
    "reach": "Coverage if each question were asked of all scenes and no factors were correlated. Coverage 0 and reach above 0: confounded; "
    "both 0: unasked.",
    "pressure": "Information in bits that the answer to one question of training carries about the factor, given all other factors.",
    "proxy": "Information in bits of one factor about the answer to a question about another: what a shadow could earn in training.",
}


def term_id(name: str) -> str:
    """The id of a term's definition in the page."""
    return f"term-{name.replace(' ', '-')}"
