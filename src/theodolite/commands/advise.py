"""The command `advise`: advice on a world or on annotated examples, and its tables. Needs no model and no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from theodolite.questions.advice.advise import advise
from theodolite.questions.advice.problem import world_problem
from theodolite.questions.advice.problem_from_data import problem_from_data
from theodolite.questions.annotated import annotate, read_table
from theodolite.records.advice import AddedScenes, Advice
from theodolite.records.errors import BadInput
from theodolite.worlds.easy_vqa.world import EasyVQA
from theodolite.worlds.query import Policy, Query
from theodolite.worlds.registry import world_named
from theodolite.worlds.world import World

NUM_PICTURES = 12_000


def advise_on(
    subject: str,
    budget: int,
    *,
    ask: str | None = None,
    about: str | None = None,
    strength: float | None = None,
    pictures: int | None = None,
    repeats: float = 1.0,
    factors: str | None = None,
) -> Advice:
    """Advice on a world by name, or on a Parquet file of annotated examples; `about` and `factors` are names joined by commas.

    `about`: the factors to ask about (default: all); `factors`: the factor columns of the file (default: all others). Raises `BadInput`.
    """
    if not repeats > 0:
        raise BadInput(f"repeats is {repeats}; give how often a picture may be asked the same question, 1 or more")
    if Path(subject).suffix == ".parquet":
        for value, option in ((ask, "--ask"), (strength, "--strength"), (pictures, "--pictures")):
            if value is not None:
                raise BadInput(f"{option} is for worlds, and {subject} is a data file that records it: leave it out")
        problem = problem_from_data(annotate(read_table(Path(subject)), _names(factors)), repeats)
        return advise(problem, budget, _names(about) or problem.space.names, subject)
    if factors is not None:
        raise BadInput("--factors names columns of a Parquet file; for a world, name factors with --about")
    world = world_named(subject, strength or 0.0)
    targets = _names(about) or world.space.names
    queries = candidates(world, targets)
    asked = world.policy(ask) if ask else None
    number = _num_pictures(world, [*queries, *(asked.queries if asked else ())], pictures)
    return advise(world_problem(world.prior, queries, asked, number, repeats), budget, targets, world.name)


def candidates(world: World, factors: Sequence[str]) -> list[Query]:
    """The open queries about these factors; for a factor without an open one, every query about it."""
    queries = []
    for name in factors:
        world.space.index(name)
        about = [query for query in world.queries if name in query.depends_on]
        queries += [query for query in about if query.form == "open"] or about
    return list({query.name: query for query in queries}.values())


def _num_pictures(world: World, queries: Sequence[Query], pictures: int | None) -> int:
    """Number of pictures to ask about; easy-vqa has a fixed number."""
    if pictures is not None and pictures < 1:
        raise BadInput(f"the number of pictures is {pictures}; give 1 or more")
    if not isinstance(world, EasyVQA):
        return pictures or NUM_PICTURES
    most = world.max_scenes(eligible=world.asked_officially(Policy.parse(",".join(query.name for query in queries), world.query)))
    if pictures is not None and pictures > most:
        raise BadInput(f"{pictures} pictures asked for; {world.name} has {most} that follow this prior and can be asked: ask for no more")
    return pictures or min(most, NUM_PICTURES)


def _names(text: str | None) -> tuple[str, ...] | None:
    return tuple(name.strip() for name in text.split(",") if name.strip()) if text else None


def advice_tables(advice: Advice) -> list[Table]:
    """Tables of the questions to ask, the factors before and after, and the scenes to add; empty ones are left out."""
    return [table for table in (_queries(advice), _factors(advice), _scenes(advice.scenes)) if table.row_count]


def _queries(advice: Advice) -> Table:
    title = f"What to ask next ({advice.num_questions:,.0f} of {advice.budget:,} questions, {advice.num_pictures:,} pictures)"
    table = Table(title=title)
    table.add_column("query")
    for name in ("questions", "of at most", "adds\ncoverage", "bits\neach", "limit"):
        table.add_column(name, justify="right")
    table.add_column("lines of the policy")
    for row in advice.queries:
        lines = "\n".join((*row.lines[:8], *([f"and {len(row.lines) - 8} more"] if len(row.lines) > 8 else [])))
        numbers = (f"{row.coverage_gain:.4f}", f"{row.bits:.4f}", f"{row.limit_bits:.4f}")
        table.add_row(row.query, f"{row.num_questions:,.0f}", f"{row.num_useful:,.0f}", *numbers, lines)
    return table


def _factors(advice: Advice) -> Table:
    table = Table(title="Before and after")
    table.add_column("factor")
    for name in ("coverage", "after", "most by\nquestions", "pressure,\nbits", "after"):
        table.add_column(name, justify="right")
    table.add_column("uncovered\nbecause")
    table.add_column("cure")
    words = {"questions": "questions", "new questions": "new questions", "pictures": "other pictures", "none": "none", None: ""}
    for row in advice.factors:
        coverage = (row.coverage_before, row.coverage_after, row.coverage_most)
        numbers = (*coverage, row.pressure_bits_before, row.pressure_bits_after)
        table.add_row(row.factor, *(f"{value:.4f}" for value in numbers), row.cause or "", words[row.cure])
    return table


def _scenes(scenes: Sequence[AddedScenes]) -> Table:
    table = Table(title="Scenes to add, where no question of these pictures can help")
    for name in ("set", "to each of", "in scenes with"):
        table.add_column(name)
    table.add_column("pictures\nof each", justify="right")
    for row in scenes:
        table.add_row(row.factor, ", ".join(row.to), ", ".join(row.where) or "any values", f"{row.num_each:,}")
    return table


def advice_lines(advice: Advice) -> list[str]:
    """The policy to train with, and the limits of the advice."""
    lines = []
    if advice.together is not None:
        lines.append(f"policy: {advice.together}")
    for row in advice.queries:
        if row.num_questions > row.num_balanced + 0.5:
            lines.append(
                f"{row.query}: its answers stay equally likely up to {row.num_balanced:,.0f} questions; "
                f"with {row.num_questions:,.0f} one feels {row.bits:.4f} of {row.limit_bits:.4f} bits"
            )
    if not advice.queries:
        lines.append("no further question of these pictures adds anything")
    elif advice.num_questions < advice.budget - 0.5:
        lines.append(
            f"{advice.budget - advice.num_questions:,.0f} questions are left over: no picture may be asked the same question more often"
        )
    unnamed = [row.factor for row in advice.factors if row.cure == "none"]
    if unnamed:
        lines.append(f"no question can name {', '.join(unnamed)}: neither questions nor pictures cure it")
    unwritten = [row.factor for row in advice.factors if row.cure == "new questions"]
    if unwritten:
        lines.insert(0, f"no recorded question is about {', '.join(unwritten)}: write questions that are")
    if advice.undetermined:
        lines.append(f"left out, since the factors do not determine their answers: {', '.join(advice.undetermined)}")
    return lines
