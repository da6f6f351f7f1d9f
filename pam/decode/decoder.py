"""Answer many requests with a trained model: fuse, read prompt and audio, search."""

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor

from pam.data.utterances import pad
from pam.decode.beam import beam_search
from pam.decode.chunks import in_chunks
from pam.decode.drafters import DRAFTERS
from pam.decode.drafters.base import Drafter
from pam.decode.engine import ITEMS, SLOT_STEP, Engine, engine_fault, shortest_window
from pam.decode.exact import ExactMemory, Fused, fuse_exactly, listen_exactly
from pam.decode.exits import EarlyExit, Exits
from pam.decode.greedy import PromptMemory, greedy
from pam.decode.request import Answered, Request
from pam.decode.row import Row
from pam.decode.sample import Sampling
from pam.decode.search import Greedy, Strategy, search
from pam.decode.settings import NONE, Settings
from pam.errors import PamError
from pam.llm.merged import merged_copy
from pam.log import get_logger
from pam.model.speech_llm import ESPnetPaMModel

WINDOW = 512  # requests that are sorted by shape together
AHEAD = 8  # requests whose features are loaded ahead
LONG = 2048  # slots of a row

logger = get_logger(__name__)


class Decoder:
    """Decodes as `settings` say.

    With `exact`, every answer is that of its request alone, bit for bit. Without it, or if the
    engine cannot run the LLM, the search is `pam.decode.greedy`.
    """

    def __init__(self, model: ESPnetPaMModel, settings: Settings):
        self.model, self.settings = model, settings
        self.memory = ExactMemory(model) if settings.exact else PromptMemory(model)
        self.window = 0.0  # slots of the longest row that the engine can take
        self.drafter: Drafter | None = None
        if settings.exact:
            self.set_up_engine()

    def set_up_engine(self) -> None:
        settings = self.settings
        self.lm = merged_copy(self.model.llm)
        same = self.lm.embeddings.dtype == torch.bfloat16 or not self.model.bf16
        self.autocast = nullcontext if same else self.model.autocast
        if settings.drafter != NONE:
            self.drafter = DRAFTERS.get(settings.drafter)(self.lm, settings.exit_layer)
        self.strategy = self.make_strategy()
        fault = engine_fault(self.lm)
        if fault is None:
            self.window = shortest_window(self.lm)
        elif settings.is_greedy:
            logger.warning(
                "decoding one utterance at a time and without drafts, since with this LLM %s", fault
            )
        else:
            raise PamError(f"with this LLM, only greedy search can be used: {fault}")

    def make_strategy(self) -> Strategy:
        settings = self.settings
        if settings.temperature > 0:
            return Sampling(settings.temperature, settings.top_p, settings.seed)
        if settings.early_exit != NONE:
            return EarlyExit(self.lm, exits_of(settings), self.model.exit_gate)
        return Greedy(self.drafter)

    def answers(self, requests: Iterable[Request]) -> Iterator[Answered]:
        """Yield the answers in the order in which they end."""
        if not self.settings.exact:
            for batch in in_chunks(requests, self.settings.batch_size):
                for alike in by_limits(batch):
                    yield from self.plain(alike)
            return
        for some in in_chunks(requests, WINDOW):
            self.memory.prepare(request.prompt for request in some)
            by_slots = defaultdict(list)
            for fused in self.fused(some):
                by_slots[self.slots(fused)].append(fused)
            for slots in sorted(by_slots, reverse=True):
                yield from self.search(by_slots.pop(slots), slots)

    def fused(self, requests: Sequence[Request]) -> Iterator[Fused]:
        features = ahead([request.load for request in requests], AHEAD)
        for request, loaded in zip(requests, features, strict=True):
            with naming([request]):
                fused = fuse_exactly(self.model, self.memory, request, loaded)
            yield fused

    def slots(self, fused: Fused) -> int:
        """The slots of a row: it follows from the request alone."""
        closing = len(self.lm.template.closing)
        tokens = fused.prompt.mask.shape[1] + int(fused.frames) + closing + fused.limit
        return (tokens // SLOT_STEP + 1) * SLOT_STEP

    def search(self, inputs: Sequence[Fused], slots: int) -> Iterator[Answered]:
        if slots > self.window:
            if not self.settings.is_greedy:
                raise PamError(
                    f"an utterance needs {slots} tokens, more than the LLM's attention window of "
                    f"{self.window:g}: only greedy search can be used"
                )
            for fused in inputs:
                yield from self.plain([fused.request])
            return
        rows = min(max(self.settings.batch_size, self.settings.beam), ITEMS)
        if slots > LONG:  # more rows than inputs save copies, but here they are gigabytes
            rows = min(rows, max(len(inputs), self.settings.beam))
        engine = Engine(self.lm, slots, rows, self.autocast, self.settings.no_repeat_ngram_size)
        rows_of = self.rows(inputs)
        if self.settings.beam > 1:
            found = beam_search(engine, rows_of, self.settings.beam)
        else:
            found = search(engine, rows_of, self.strategy)
        yield from map(self.answered, found)

    def rows(self, inputs: Iterable[Fused]) -> Iterator[Row]:
        for fused, past in listen_exactly(self.lm, inputs, self.autocast):
            hint = self.drafter and self.drafter.hint(fused.request.prompt, fused.audio[0])
            request = fused.request
            yield Row(fused, past, fused.limit, request.name, hint, request.watch)

    @torch.no_grad()
    def plain(self, requests: Sequence[Request]) -> Iterator[Answered]:
        """The answers of `greedy` to a batch of requests with the same limits."""
        (limits,) = {request.limits for request in requests}
        loaded = pad([request.load() for request in requests])
        with naming(requests):
            output = greedy(
                self.model,
                *loaded,
                [request.prompt for request in requests],
                max_new_tokens=limits[0],
                max_tokens_per_second=limits[1],
                memory=self.memory,
                no_repeat_ngram_size=self.settings.no_repeat_ngram_size,
            )
        for row, request in enumerate(requests):
            routed = output.experts is not None
            yield Answered(
                request.key,
                output.texts[row],
                output.tokens[row],
                output.experts[row] if routed else None,
                output.posteriors[row] if routed else None,
                output.logprobs[row],
                output.passes,
                len(output.tokens[row]) < output.limits[row],
            )

    def answered(self, row: Row) -> Answered:
        fused, routed = row.key, row.key.logits is not None
        return Answered(
            fused.request.key,
            self.model.tokenizer.decode(row.said, skip_special_tokens=True).strip(),
            row.said,
            int(fused.gate.argmax()) if routed else None,
            fused.logits[0].softmax(-1).cpu() if routed else None,
            row.logprob,
            row.passes,
            len(row.said) < row.limit,
            row.exits,
            row.layers,
        )


@contextmanager
def naming(requests: Sequence[Request]) -> Iterator[None]:
    """Let an error about audio begin with the names of the requests."""
    try:
        yield
    except PamError as error:
        names = ", ".join(filter(None, (request.name for request in requests)))
        raise PamError(f"{names}: {error}" if names else str(error)) from error


def by_limits(requests: Iterable[Request]) -> Iterable[list[Request]]:
    """The requests in groups of the same limits."""
    groups = defaultdict(list)
    for request in requests:
        groups[request.limits].append(request)
    return groups.values()


def ahead(
    loads: Sequence[Callable[[], Mapping[str, Tensor]]], most: int
) -> Iterator[Mapping[str, Tensor]]:
    """The results of `loads`; a thread computes up to `most` of them ahead."""
    with ThreadPoolExecutor(1) as pool:
        queue: deque = deque()
        for load in loads:
            queue.append(pool.submit(load))
            if len(queue) > most:
                yield queue.popleft().result()
        while queue:
            yield queue.popleft().result()


def exits_of(settings: Settings) -> Exits:
    first = 1 if settings.exit_layer is None else settings.exit_layer
    return Exits(
        settings.early_exit,
        settings.threshold,
        first,
        settings.exit_stride,
        settings.exit_decay,
        settings.exit_cache,
    )
