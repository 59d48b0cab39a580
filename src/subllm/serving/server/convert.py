"""From a generation that is asked for to a plan: the route, token ids, sampling parameters.

Runs on a worker thread of the HTTP side (tokenizing takes time), touches no engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from subllm.engine.request import SamplingParams
from subllm.errors import excerpt
from subllm.served_context import served_context
from subllm.serving.routing.router import Query, Route, Router
from subllm.serving.server.config import ServerConfig
from subllm.serving.server.context import fit_to_context, refuse_far_longer
from subllm.serving.server.drafting import UNDRAFTED, Drafter, Drafting
from subllm.serving.server.errors import bad_request
from subllm.serving.server.forms import constraints
from subllm.serving.server.generation import Caller, Generation
from subllm.serving.server.jobs import GenerateWork, ScoreWork, TimeLimits
from subllm.serving.server.models import ModelSet, ServedModel, TextSide
from subllm.serving.server.prompts import CHARS, Encoded, PromptEncoder
from subllm.serving.server.tools import ToolUse, turn
from subllm.serving.server.trimming import UNTRIMMED, Trim

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """What to run. Choice i belongs to prompt i // n.

    prompts      token ids per prompt; scores are of these, when echo wants logprobs
    echoes       the text that precedes each prompt's completion, "" without echo
    generations  one per choice; empty when max_tokens is 0
    tools        that the reply may call
    """

    route: Route
    model: ServedModel
    text: TextSide
    prompts: tuple[Ids, ...]
    echoes: tuple[str, ...]
    n: int
    generations: tuple[GenerateWork, ...]
    scores: tuple[ScoreWork, ...] = ()
    logprobs: int | None = None
    drafting: Drafting = UNDRAFTED
    trim: Trim = UNTRIMMED
    tools: ToolUse | None = None

    @property
    def choices(self) -> int:
        return len(self.prompts) * self.n


class Planner:
    """Turns what is asked for into plans. Raises ApiError and the errors of routing and
    text."""

    def __init__(self, models: ModelSet, router: Router, config: ServerConfig) -> None:
        self._models = models
        self._router = router
        self._config = config
        self._drafter = Drafter(models, router, config.speculation)
        self._encoder = PromptEncoder(self.context_length)

    def plan(self, asked: Generation, caller: Caller) -> Plan:
        self._check(asked)
        query = _query(asked, caller)
        route, model, text = self.route(query)
        context = self.context_length(model)
        for texts in _texts(asked):
            refuse_far_longer(text.tokenizer, texts, context)
        if asked.messages:
            encoded: tuple[Encoded, ...] = (Encoded(_encode_chat(asked, text)),)
        else:
            encode = self._encoder.encode
            encoded = tuple(
                encode(prompt, asked, model, text, caller.session) for prompt in asked.prompts
            )
        echoes = tuple(
            (prompt if isinstance(prompt, str) else text.tokenizer.decode(list(prompt)))
            if asked.echo
            else ""
            for prompt in asked.prompts
        )
        plan = self._plan(route, model, text, encoded, echoes, asked)
        plan = self._drafted(plan, asked, query, caller)
        if asked.echo and asked.logprobs is not None:
            top = asked.logprobs
            plan = replace(plan, scores=tuple(ScoreWork(ids, top) for ids in plan.prompts))
        return plan

    def route(self, query: Query) -> tuple[Route, ServedModel, TextSide]:
        route = self._router.route(query)
        model = self._models.get(route.model)
        return route, model, self._models.text(model)

    def _plan(
        self,
        route: Route,
        model: ServedModel,
        text: TextSide,
        encoded: tuple[Encoded, ...],
        echoes: tuple[str, ...],
        asked: Generation,
    ) -> Plan:
        params = self._params(asked, text)
        context = self.context_length(model)
        constraint_of = constraints(asked, text)
        generations = []
        for prompt in encoded:
            fit_to_context(len(prompt.all_ids), context)  # told before the model is loaded
            for choice in range(asked.n if params.max_tokens else 0):
                seed = None if params.seed is None else (params.seed + choice) % 2**63
                drawn = replace(params, seed=seed)
                work = GenerateWork(prompt.ids, drawn, constraint=constraint_of())
                generations.append(replace(work, begun=prompt.begun, hole=prompt.hole))
        return Plan(
            route,
            model,
            text,
            tuple(prompt.all_ids for prompt in encoded),
            echoes,
            asked.n,
            tuple(generations),
            logprobs=params.logprobs,
            trim=asked.trim,
            tools=asked.tools,
        )

    def context_length(self, model: ServedModel) -> int:
        """Tokens of prompt and completion that are served."""
        if self._models.context is not None:
            return self._models.context(model.manifest)
        return served_context(model.prompt.context_length, self._config.context_length)

    def _drafted(self, plan: Plan, asked: Generation, query: Query, caller: Caller) -> Plan:
        """With what is to be drafted, and by whom, and when it ends at the latest."""
        if asked.tools is not None or asked.form is not None:  # guesses would have to fit it
            drafting = UNDRAFTED
        else:
            drafting = self._drafter.choose(asked.speculation, query, plan.route, plan.model)
        prediction = asked.prediction[: CHARS * self.context_length(plan.model)]
        ids = tuple(plan.text.tokenizer.encode_plain(prediction, goes_on=True))
        work = tuple(
            replace(
                item,
                prediction=ids,
                session=query.session,
                speculation=drafting.mode,
                interactive=not asked.messages,
                limits=TimeLimits(caller.seconds, asked.seconds),
                keep_alive=asked.keep_alive,
            )
            for item in plan.generations
        )
        return replace(plan, generations=work, drafting=drafting)

    def _check(self, asked: Generation) -> None:
        """The limits of the server, and what cannot go together."""
        limits = self._config.limits
        if len(asked.messages) > limits.messages:
            raise bad_request(
                f"at most {limits.messages} messages are accepted; send fewer", "messages"
            )
        prompts = len(asked.prompts) or 1
        if prompts * asked.n > limits.choices:
            raise bad_request(
                f"{prompts} prompts x n {asked.n} are more than {limits.choices} completions; "
                "send fewer",
                "n",
            )
        if len(asked.stop) > limits.stops or len(asked.stop_token_ids) > limits.stops:
            raise bad_request(f"at most {limits.stops} stops are accepted; send fewer", "stop")
        if any(not 0 < len(stop) <= limits.stop_chars for stop in asked.stop):
            raise bad_request(
                f"a stop string must have 1 to {limits.stop_chars} characters", "stop"
            )
        if len(asked.draws.logit_bias) > limits.logit_bias:
            raise bad_request(
                f"logit_bias: at most {limits.logit_bias} biases are accepted", "logit_bias"
            )
        if asked.logprobs is not None and asked.logprobs > limits.logprobs:
            param = "top_logprobs" if asked.messages else "logprobs"
            raise bad_request(f"{param} must be at most {limits.logprobs}", param)
        if asked.suffix is not None:
            if asked.echo:
                raise bad_request("echo cannot be combined with suffix; leave one out", "echo")
            if not all(isinstance(prompt, str) for prompt in asked.prompts):
                raise bad_request("suffix needs the prompt as text, not as token ids", "suffix")

    def _params(self, asked: Generation, text: TextSide) -> SamplingParams:
        draws = asked.draws
        given = {
            name: value
            for name in (
                "temperature",
                "top_p",
                "min_p",
                "repetition_penalty",
                "presence_penalty",
                "frequency_penalty",
            )
            if (value := getattr(draws, name)) is not None
        }
        # A stop that is a special token never shows up as text: match its id too.
        ids = [text.tokenizer.id_of(stop) for stop in asked.stop]
        special = [i for i in ids if i is not None and i in text.tokenizer.special_ids]
        config = self._config
        longest = config.chat_max_tokens if asked.messages else config.completion_max_tokens
        return SamplingParams(
            **given,
            top_k=max(draws.top_k or 0, 0),
            logit_bias=_logit_bias(draws.logit_bias, text.tokenizer.vocab_size),
            seed=draws.seed,
            max_tokens=longest if asked.max_tokens is None else asked.max_tokens,
            stop=asked.stop,
            stop_token_ids=tuple(dict.fromkeys([*special, *asked.stop_token_ids])),
            ignore_eos=asked.ignore_eos,
            logprobs=asked.logprobs,
        )


def _query(asked: Generation, caller: Caller) -> Query:
    first = asked.prompts[0] if asked.prompts else ""
    path, prompt = asked.path, first if isinstance(first, str) else ""
    if asked.extra and not (prompt or asked.suffix):  # read ahead for what is asked next
        path, prompt = path or asked.extra[-1][0], asked.extra[-1][1]
    return Query(
        asked.model,
        language=asked.language or caller.language,
        path=path,
        prompt=prompt,
        suffix=asked.suffix or "",
        messages=asked.messages,
        session=caller.session,
    )


def _texts(asked: Generation) -> list[list[str]]:
    """What each prompt is made of, without other files, which may be left out."""
    if asked.messages:
        return [[message.text for message in asked.messages]]
    return [[text, asked.suffix or ""] for text in asked.prompts if isinstance(text, str)]


def _encode_chat(asked: Generation, text: TextSide) -> Ids:
    from subllm.models.text.chat_prompt import encode_chat  # jinja2 loads with the first chat

    turns = [turn(message) for message in asked.messages]
    tools = [tool.template for tool in asked.tools.tools] if asked.tools else None
    return tuple(encode_chat(text.template, text.tokenizer, turns, tools=tools))


def _logit_bias(biases: Mapping[str, float], vocab: int) -> tuple[tuple[int, float], ...]:
    pairs = []
    for key, value in biases.items():
        if not (key.isascii() and key.isdigit() and len(key) < 10 and int(key) < vocab):
            message = f"logit_bias: {excerpt(key)!r} is no token id of this model"
            raise bad_request(message, "logit_bias")
        pairs.append((int(key), float(value)))
    return tuple(pairs)
