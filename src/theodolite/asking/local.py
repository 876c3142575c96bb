"""Answers of a local model: each picture runs once for all its questions, and each question once for all its choices."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from functools import partial
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from theodolite.asking.answer import Answer, Question
from theodolite.asking.batch_size import FREE_FRAC, BatchSizer, free_bytes
from theodolite.asking.model_inputs import GridInputs, ModelInputs, grid_key, num_pixels, tiles_of
from theodolite.asking.pictures import Picture, PicturePool, Pictures
from theodolite.asking.processed import ProcessedPictures, windows
from theodolite.asking.prompts import DEFAULT, added_text
from theodolite.asking.reading import default_workers, one_ahead, read_ahead
from theodolite.asking.rows import Batch, Sharing, TokenRow, collate_rows, rows_of
from theodolite.asking.scored import Scored, TotalsToHost, answers_of
from theodolite.models.device import one_host_thread, to_device
from theodolite.models.exported.attention import refuse_dropped_masks
from theodolite.models.families import family_of, image_token_id
from theodolite.models.forward import adaptation_of, base_model, run_forward
from theodolite.models.pictures import PictureReader, ProcessedPicture
from theodolite.models.taps import recording_blocks, resuming, touching
from theodolite.models.vision_features import FeatureStore, VisionFeatures, encode_pictures
from theodolite.records.asking import ChoiceScore, PromptStyle
from theodolite.records.errors import BadInput
from theodolite.records.machine_faults import is_out_of_memory
from theodolite.records.progress import Progress, silent
from theodolite.worlds.decoding import strict_pillow

Result = TypeVar("Result")
Name = TypeVar("Name", bound=Hashable)
# Maps the vision tokens of a batch's rows at a site, and the index of each row's picture, to the tokens that replace them.
Edit = Callable[[Float[Tensor, "row token dim"], Int[Tensor, " row"]], Float[Tensor, "row token dim"]]


class LocalAsker:
    """Answers of a Hugging Face VLM of a known family, as probabilities over whole choices.

    A choice's score is the log-probability of all its tokens and the end token, given picture and question; with `score` "per_token" it is
    divided by their number. `prompt` is the style in which questions are written; of prompts with letters the letters are scored. An
    adapted model (mixed attention, 2D positions) runs with its adaptation. `batch` is the number of rows per pass; None fits free memory,
    up to a fixed number of tokens. A batch that does not fit is halved. `share=False` runs every question with its own copy of the
    picture. A pool's pictures are read by `workers` threads. `notices` lists such decisions. Raises `UnknownFamily` for a model
    outside the families table, `BadInput` for an attention back
    end that drops masks.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        batch: int | None = None,
        *,
        share: bool = True,
        prompt: PromptStyle = DEFAULT,
        score: ChoiceScore = "total",
        workers: int | None = None,
    ) -> None:
        if batch is not None and batch < 1:
            raise ValueError(f"batch is {batch}; give 1 or more rows at once")
        self.model, self.processor = model.eval(), processor
        self.prompt, self.choice_score = prompt, score
        self.base = base_model(model)
        self.family = family_of(self.base.config)
        self.adaptation = adaptation_of(self.base.config)
        try:
            refuse_dropped_masks(self.base.config.get_text_config()._attn_implementation)
        except ValueError as error:
            raise BadInput(str(error)) from error
        self.notices: list[str] = []
        self.sharing: Sharing = "picture" if share else "question"
        if not self.family.shares_prefix and self.adaptation.attention != "mixed":
            self.sharing = "nothing"
            self.notices.append(f"in {self.family.name} the picture sees the question, so every question runs with a picture of its own")
        self.batch_sizer = BatchSizer(self.base, batch)
        self.features: FeatureStore | None = None
        self.reader = PictureReader(processor.image_processor, processor.tokenizer, self.base.config)
        self.workers = workers or default_workers()
        self._model_inputs: dict[tuple[int, int], ModelInputs] = {}
        self._grid_inputs: dict[object, GridInputs] = {}
        self._pool_inputs: WeakKeyDictionary[PicturePool, GridInputs] = WeakKeyDictionary()

    def model_inputs(self, pictures: Pictures | ProcessedPictures) -> GridInputs:
        """What pictures of one size or of one token grid share, made once. A pool's pictures must have the grid of its first."""
        if isinstance(pictures, ProcessedPictures):
            return pictures.grid
        if isinstance(pictures, PicturePool):
            if pictures not in self._pool_inputs:
                self._pool_inputs[pictures] = self._of_one_grid(pictures.take([0])).grid
            return self._pool_inputs[pictures]
        return self._inputs_of_size(*pictures.shape[1:3])

    def _inputs_of_size(self, height: int, width: int) -> ModelInputs:
        if (height, width) not in self._model_inputs:
            self._model_inputs[height, width] = ModelInputs(self.base, self.processor, self.reader, height, width)
        return self._model_inputs[height, width]

    def _grid_of(self, processed: ProcessedPicture) -> GridInputs:
        key = grid_key(self.base.config, processed)
        if key not in self._grid_inputs:
            self._grid_inputs[key] = GridInputs(self.base, self.processor, self.reader, processed)
        return self._grid_inputs[key]

    def _processed(self, pool: PicturePool, numbers: Iterable[int]) -> Iterator[tuple[int, ProcessedPicture]]:
        """The processed pictures of a pool, read ahead; notes in the pool what each became."""

        def process(picture: Picture) -> ProcessedPicture:
            return self.reader.read(Image.fromarray(picture))

        for number, processed in read_ahead(pool, numbers, process, self.workers):
            tiles = len(tiles_of(self.base.config, processed))
            pool.note(number, num_pixels(self.base.config, processed), processed.tokens, tiles)
            yield number, processed

    def _of_one_grid(self, pool: PicturePool) -> ProcessedPictures:
        """All pictures of a pool. Raises `BadInput` if their token grids differ."""
        by_number = dict(self._processed(pool, range(len(pool))))
        return ProcessedPictures(self._one_grid(by_number.values()), by_number, tuple(range(len(pool))))

    def refuse_different_grids(self, sizes: Iterable[tuple[int, int]]) -> None:
        """Raises `BadInput` if pictures of these (width, height) become different grids of vision tokens."""
        self._one_grid(self.reader.read(Image.new("RGB", size, "orange")) for size in dict.fromkeys(sizes))

    def _one_grid(self, processed: Iterable[ProcessedPicture]) -> GridInputs:
        grids: dict[int, GridInputs] = {}
        for picture in processed:
            grid = self._grid_of(picture)
            grids[id(grid)] = grid
            if len(grids) == 1:
                continue
            numbers = ", ".join(sorted({f"{grid.num_tokens:,}" for grid in grids.values()}))
            raise BadInput(
                f"the pictures become different grids of vision tokens ({numbers} tokens), and measures of the inside compare tokens by "
                "their place; make squares of one size of them: --picture-size 448, say"
            )
        return next(iter(grids.values()))

    def parts(
        self, pictures: Pictures, questions: Sequence[Question]
    ) -> Iterator[tuple[Pictures | ProcessedPictures, Mapping[int, Question]]]:
        """Pictures of one grid with their numbered questions: all of an array's; a pool's in windows, by grid within each."""
        if not isinstance(pictures, PicturePool):
            yield pictures, dict(enumerate(questions))
            return
        by_picture: dict[int, dict[int, Question]] = {}
        for number, question in enumerate(questions):
            by_picture.setdefault(question.picture, {})[number] = question
        for window in windows(self._processed(pictures, by_picture)):
            by_grid: dict[int, list[int]] = {}
            grids = {number: self._grid_of(processed) for number, processed in window.items()}
            for number, grid in grids.items():
                by_grid.setdefault(id(grid), []).append(number)
            for numbers in by_grid.values():
                own = ProcessedPictures(grids[numbers[0]], window, tuple(numbers))
                yield own, {at: question for number in numbers for at, question in by_picture[number].items()}

    def ask(
        self, pictures: Pictures, questions: Sequence[Question], progress: Progress = silent, edits: Mapping[str, Edit] | None = None
    ) -> list[Answer]:
        """Answers in the order of `questions`. Batches depend on pictures, questions and memory alone, so a repeated call repeats bit
        for bit; pictures of a pool are decoded once and answered in windows.

        `edits` replace vision tokens at sites ("connector", "layer.1" ...). Raises `BadInput` if one question does not fit into memory.
        """
        answers: dict[int, Answer] = {}
        for _, more in self.answered([(None, pictures, questions)], edits):
            answers |= more
            progress(len(answers), len(questions))
        return [answers[number] for number in range(len(questions))]

    def answered(
        self, asks: Iterable[tuple[Name, Pictures, Sequence[Question]]], edits: Mapping[str, Edit] | None = None
    ) -> Iterator[tuple[Name, dict[int, Answer]]]:
        """Answers of several named lists of questions, by number of the question, batch by batch; batches hold questions of one list.

        A thread reads a pool's pictures while the model works on those before, also on those of another list; it takes from `asks`.
        """

        def reading() -> Iterator[tuple[Name, Pictures | ProcessedPictures, Mapping[int, Question]]]:
            for name, pictures, questions in asks:
                for part, numbered in self.parts(pictures, questions):
                    yield name, part, numbered

        def passes() -> Iterator[tuple[Name, Batch, Scored]]:
            with one_host_thread(self.base.device), strict_pillow(), closing(one_ahead(reading())) as read:
                for name, part, numbered in read:
                    for batch, scored in self.passes(part, numbered, edits):
                        yield name, batch, scored

        with closing(passes()) as scored:
            yield from answers_of(scored, self.choice_score)

    def ask_under_edits(
        self, pictures: Pictures, questions: Sequence[Question], edits: Mapping[Name, tuple[str, Edit]]
    ) -> dict[Name, list[Answer]]:
        """Answers under each of several edits, (site, edit) by name, as `ask` gives with that edit alone.

        Each batch's pictures are encoded once, and a pass with an edit at a layer starts there, from that layer's output without it.
        """
        answers: dict[Name, dict[int, Answer]] = {name: {} for name in edits}
        layers = dict.fromkeys(site for site, _ in edits.values() if site != "connector")

        def run(part: Pictures | ProcessedPictures, rows: Sequence[TokenRow]) -> dict[Name, dict[int, Answer]]:
            batch = self.collate(rows, part)
            vision_features = self.encode_batch(batch, part)
            with recording_blocks(self.base, tuple(layers)) as outputs:
                if layers:
                    self.score(batch, vision_features)
            results = {}
            for name, (site, edit) in edits.items():
                with resuming(self.base, site, outputs) if site in layers else nullcontext():
                    results[name] = TotalsToHost(batch, self.score(batch, vision_features, {site: edit}))
            return {name: totals.read(self.choice_score) for name, totals in results.items()}

        with torch.no_grad():
            for part, numbered in self.parts(pictures, questions):
                for rows in self._groups(part, numbered):
                    for results in self.fitting(rows, partial(run, part)):
                        for name, own in results.items():
                            answers[name] |= own
        return {name: [own[number] for number in range(len(questions))] for name, own in answers.items()}

    def passes(
        self, part: Pictures | ProcessedPictures, numbered: Mapping[int, Question], edits: Mapping[str, Edit] | None
    ) -> Iterator[tuple[Batch, Scored]]:
        """Every batch of numbered questions about pictures of one grid, with its scores; batches hold rows of similar length."""

        def run(rows: Sequence[TokenRow]) -> tuple[Batch, Scored]:
            with torch.no_grad():  # not inference mode, since the model may be trained further
                batch = self.collate(rows, part)
                return batch, self.score(batch, self.encode_batch(batch, part), edits)

        for rows in self._groups(part, numbered):
            yield from self.fitting(rows, run)

    def groups(self, pictures: Pictures, questions: Sequence[Question]) -> list[list[TokenRow]]:
        """Batches of the rows of all questions, sized to fit memory, shortest first; a question's rows share a batch.

        The pictures must have one token grid. Raises `BadInput` where the tokenizer has no words for the prompt.
        """
        return self._groups(pictures, dict(enumerate(questions)))

    def _groups(self, pictures: Pictures | ProcessedPictures, questions: Mapping[int, Question]) -> list[list[TokenRow]]:
        tokenizer = self.model_inputs(pictures).question_tokenizer
        if tokenizer.lacks(added_text(self.prompt, max((len(question.choices) for question in questions.values()), default=0))):
            raise BadInput(
                f"the model's tokenizer has a closed vocabulary, without words of the prompt {self.prompt!r}; ask with --prompt {DEFAULT}, "
                "which writes the question alone"
            )
        rows = list(rows_of(questions, tokenizer, self.sharing, self.prompt))
        return self.batch_sizer.parts(rows)

    def fitting(self, rows: Sequence[TokenRow], run: Callable[[Sequence[TokenRow]], Result]) -> Iterator[Result]:
        """Results of `run` on the rows, in parts of half the size wherever memory runs out, with a notice.

        `run` may be retried on the same rows, so a failed call must leave no state. Raises `BadInput` if a single question does not fit.
        """
        while rows:
            first = self.batch_sizer.first_fitting(rows)
            rows = rows[len(first) :]
            try:
                results = [run(first)]
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                results = []  # yielding outside `except` frees the failed pass's tensors before the retry
            if results:
                yield results[0]
            else:
                self.notices.append(self.batch_sizer.shrink(first))
                yield from self.fitting(first, run)

    def collate(self, rows: Sequence[TokenRow], pictures: Pictures | ProcessedPictures) -> Batch:
        """Rows as a batch on the model's device."""
        pad = self.processor.tokenizer.pad_token_id
        image = image_token_id(self.base.config)
        model_inputs = self.model_inputs(pictures)
        batch = collate_rows(rows, 0 if pad is None else pad, image, model_inputs.grids, suffix=self.sharing == "nothing")
        return batch.to(self.base.device)

    def encode_batch(self, batch: Batch, pictures: Pictures | ProcessedPictures, *, patches: bool = False) -> VisionFeatures:
        """Vision tokens of a batch's rows; a picture of several rows runs once."""
        unique, row = torch.unique(batch.pictures, return_inverse=True)
        return self.encode_pictures(pictures[unique.numpy()], patches=patches).take(to_device(row, self.base.device))

    def encode_pictures(self, pictures: Pictures | ProcessedPictures, *, patches: bool = False) -> VisionFeatures:
        """Vision tokens of pictures of one token grid, in order; stored ones within `keeping_features`, where no gradient is wanted."""
        if isinstance(pictures, PicturePool):
            pictures = self._of_one_grid(pictures)
        if self.features is None or torch.is_grad_enabled():
            return self._encode(pictures, patches)
        keys = [(key, self.base.dtype) for key in _content_keys(pictures)]
        if patches:
            vision_features = self._encode(pictures, patches)
            self.features.add(keys, vision_features)
            return vision_features
        return self.features.of(keys, lambda missing: self._encode(_taken(pictures, missing), False))

    @contextmanager
    def keeping_features(self) -> Iterator[None]:
        """Context in which the vision tokens of each picture are computed once, as far as a share of free memory holds them.

        The model's weights must not change within it; their precision may.
        """
        own, self.features = self.features, FeatureStore(int(FREE_FRAC * free_bytes(self.base.device)))
        try:
            yield
        finally:
            self.features = own

    def _encode(self, pictures: Pictures | ProcessedPictures, patches: bool) -> VisionFeatures:
        if isinstance(pictures, ProcessedPictures):
            inputs = self.reader.join([pictures.by_number[number] for number in pictures.numbers])
        else:
            inputs = self._inputs_of_size(*pictures.shape[1:3]).inputs(pictures)
        dtype = self.base.dtype
        moved = {name: to_device(value, self.base.device, dtype if value.is_floating_point() else None) for name, value in inputs.items()}
        return encode_pictures(self.base, moved, len(pictures), patches=patches)

    def score(self, batch: Batch, vision_features: VisionFeatures, edits: Mapping[str, Edit] | None = None) -> Scored:
        """Scores of a batch, given its vision tokens and differentiable in them, except in inference mode."""
        edits = dict(edits or {})
        if "connector" in edits:
            change = edits.pop("connector")
            vision_features = vision_features.edit(
                lambda tokens: change(tokens, batch.pictures), lambda tokens: change(tokens, batch.pictures)
            )
        touches = {site: _on_vision(batch, edit) for site, edit in edits.items()}
        with touching(self.base, touches):
            output = run_forward(self.model, batch.view, self.adaptation, outputs=vision_features.outputs())
        steps = output.logits.float().log_softmax(-1)[batch.place, batch.token]
        totals = torch.zeros(len(batch.question_of_choice), device=steps.device).index_add(0, batch.choice, steps)
        choices = totals if self.choice_score == "total" else totals / to_device(batch.num_tokens, totals.device)
        return Scored(choices, totals, output.hidden.flatten(0, 1)[batch.answer_at])


def _on_vision(batch: Batch, edit: Edit) -> Callable[[Tensor], Tensor]:
    """Lifts an edit of vision tokens to one of whole rows."""

    def touch(hidden: Tensor) -> Tensor:
        tokens = hidden[batch.vision].unflatten(0, (len(hidden), -1))
        changed = hidden.clone()
        changed[batch.vision] = edit(tokens, batch.pictures).flatten(0, 1).to(hidden.dtype)
        return changed

    return touch


def _content_keys(pictures: Any) -> list[bytes]:
    """A hash of the content of each picture: of an array's pixels, or of the inputs that a processor made."""
    if not isinstance(pictures, ProcessedPictures):
        return [hashlib.blake2b(picture.tobytes(), key=str(picture.shape).encode()).digest() for picture in pictures]
    keys = []
    for number in pictures.numbers:
        digest = hashlib.blake2b()
        for name, value in sorted(pictures.by_number[number].inputs.items()):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.contiguous().flatten().view(torch.uint8).numpy().data)
        keys.append(digest.digest())
    return keys


def _taken(pictures: Any, places: Sequence[int]) -> Any:
    """The pictures at these places, in this order."""
    if isinstance(pictures, ProcessedPictures):
        return pictures[np.array([pictures.numbers[place] for place in places])]
    return pictures[np.array(places)]
