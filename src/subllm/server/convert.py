"""From a request body to a plan: the route, token ids and sampling parameters.

Runs on a worker thread of the HTTP side (tokenizing takes time), touches no engine.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from subllm.errors import excerpt
from subllm.routing.router import Message, Query, Route, Router
from subllm.runtime.request import SamplingParams
from subllm.served_context import served_context
from subllm.server.config import ServerConfig
from subllm.server.context import fit_to_context, refuse_far_longer
from subllm.server.drafting import UNDRAFTED, Drafter, Drafting
from subllm.server.errors import bad_request
from subllm.server.jobs import GenerateWork, ScoreWork, TimeLimits
from subllm.server.models import ModelSet, ServedModel, TextSide
from subllm.server.wire import ChatBody, ChatMessage, CompletionBody, Sampling, unsupported
from subllm.text import fim

Ids = tuple[int, ...]

_PREDICTION_CHARS = 16  # of each token that the context has


@dataclass(frozen=True)
class Caller:
    """What the HTTP request tells beside its body."""

    session: str | None = None
    language: str | None = None  # header x-subllm-language
    seconds: float | None = None  # header x-subllm-timeout-ms


@dataclass(frozen=True)
class Plan:
    """What to run. Choice i belongs to prompt i // n.

    prompts      token ids per prompt; scores are of these, when echo wants logprobs
    echoes       the text that precedes each prompt's completion, "" without echo
    generations  one per choice; empty when max_tokens is 0
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

    @property
    def choices(self) -> int:
        return len(self.prompts) * self.n


class Planner:
    """Turns bodies into plans. Raises ApiError and the errors of routing and text."""

    def __init__(self, models: ModelSet, router: Router, config: ServerConfig) -> None:
        self._models = models
        self._router = router
        self._config = config
        self._drafter = Drafter(models, router, config.speculation)

    def completion(self, body: CompletionBody, caller: Caller) -> Plan:
        n = self._check(body)
        prompts = _prompt_list(body)
        self._check_choices(len(prompts), n)
        if body.best_of is not None and body.best_of != n:
            raise bad_request("best_of other than n is not supported; leave it out", "best_of")
        if body.suffix and body.echo:
            raise bad_request("echo cannot be combined with suffix; leave one out", "echo")
        if body.suffix and not all(isinstance(prompt, str) for prompt in prompts):
            raise bad_request("suffix needs the prompt as text, not as token ids", "suffix")
        self._check_logprobs(body.logprobs, "logprobs")
        first = prompts[0] if isinstance(prompts[0], str) else ""
        query = Query(
            body.model,
            language=body.language or caller.language,
            path=body.path,
            prompt=first,
            suffix=body.suffix or "",
            session=caller.session,
        )
        route, model, text = self._route(query)
        for prompt in prompts:
            if isinstance(prompt, str):
                self._refuse_far_longer(model, text, prompt, body.suffix or "")
        encoded = tuple(_encode(prompt, body, model, text) for prompt in prompts)
        params = self._params(body, text, self._config.completion_max_tokens, body.logprobs)
        echoes = tuple(
            (prompt if isinstance(prompt, str) else text.tokenizer.decode(list(prompt)))
            if body.echo
            else ""
            for prompt in prompts
        )
        plan = self._plan(route, model, text, encoded, echoes, n, params)
        plan = self._drafted(plan, body, query, caller)
        if body.echo and body.logprobs is not None:
            top = body.logprobs
            plan = replace(plan, scores=tuple(ScoreWork(ids, top) for ids in encoded))
        return plan

    def chat(self, body: ChatBody, caller: Caller) -> Plan:
        n = self._check(body)
        self._check_choices(1, n)
        if len(body.messages) > self._config.limits.messages:
            limit = self._config.limits.messages
            raise bad_request(f"at most {limit} messages are accepted; send fewer", "messages")
        if body.top_logprobs is not None and not body.logprobs:
            raise bad_request("top_logprobs needs logprobs: true", "top_logprobs")
        self._check_logprobs(body.top_logprobs, "top_logprobs")
        messages = [_message(message) for message in body.messages]
        query = Query(
            body.model,
            language=body.language or caller.language,
            path=body.path,
            messages=tuple(messages),
            session=caller.session,
        )
        route, model, text = self._route(query)
        self._refuse_far_longer(model, text, *(message.text for message in messages))
        turns = [{"role": message.role, "content": message.text} for message in messages]
        from subllm.text.chat_prompt import encode_chat  # jinja2 loads with the first chat

        ids = tuple(encode_chat(text.template, text.tokenizer, turns))
        logprobs = (body.top_logprobs or 0) if body.logprobs else None
        if body.max_completion_tokens is not None:
            body = body.model_copy(update={"max_tokens": body.max_completion_tokens})
        params = self._params(body, text, self._config.chat_max_tokens, logprobs)
        plan = self._plan(route, model, text, (ids,), ("",), n, params)
        return self._drafted(plan, body, query, caller)

    def _plan(
        self,
        route: Route,
        model: ServedModel,
        text: TextSide,
        prompts: tuple[Ids, ...],
        echoes: tuple[str, ...],
        n: int,
        params: SamplingParams,
    ) -> Plan:
        context = self._context(model)
        generations = []
        for ids in prompts:
            fit_to_context(len(ids), context)  # told before the model is loaded
            for choice in range(n if params.max_tokens else 0):
                seed = None if params.seed is None else (params.seed + choice) % 2**63
                generations.append(GenerateWork(ids, replace(params, seed=seed)))
        return Plan(
            route, model, text, prompts, echoes, n, tuple(generations), logprobs=params.logprobs
        )

    def _context(self, model: ServedModel) -> int:
        return served_context(model.prompt.context_length, self._config.context_length)

    def _refuse_far_longer(self, model: ServedModel, text: TextSide, *texts: str) -> None:
        refuse_far_longer(text.tokenizer, texts, self._context(model))

    def _drafted(self, plan: Plan, body: Sampling, query: Query, caller: Caller) -> Plan:
        """With what is to be drafted, and by whom, and when it ends at the latest."""
        drafting = self._drafter.choose(body.speculation, query, plan.route, plan.model)
        prediction = body.prediction.text if body.prediction else ""
        # More than a reply can have of it is of no use.
        prediction = prediction[: _PREDICTION_CHARS * self._context(plan.model)]
        predict = body.t_max_predict_ms / 1000 if body.t_max_predict_ms else None
        ids = tuple(plan.text.tokenizer.encode_plain(prediction, goes_on=True))
        work = tuple(
            replace(
                item,
                prediction=ids,
                session=query.session,
                speculation=drafting.mode,
                interactive=isinstance(body, CompletionBody),
                limits=TimeLimits(caller.seconds, predict),
            )
            for item in plan.generations
        )
        return replace(plan, generations=work, drafting=drafting)

    def _route(self, query: Query) -> tuple[Route, ServedModel, TextSide]:
        route = self._router.route(query)
        model = self._models.get(route.model)
        return route, model, self._models.text(model)

    def _check(self, body: Sampling) -> int:
        """Checks what both routes share; returns n."""
        if refused := unsupported(body):
            raise bad_request(refused[1], refused[0], "unsupported_parameter")
        if body.stream_options is not None and not body.stream:
            raise bad_request("stream_options needs stream: true", "stream_options")
        limits = self._config.limits
        stops = _stops(body)
        if len(stops) > limits.stops or len(body.stop_token_ids or ()) > limits.stops:
            raise bad_request(f"at most {limits.stops} stops are accepted; send fewer", "stop")
        if any(not 0 < len(stop) <= limits.stop_chars for stop in stops):
            raise bad_request(
                f"a stop string must have 1 to {limits.stop_chars} characters", "stop"
            )
        if len(body.logit_bias or ()) > limits.logit_bias:
            raise bad_request(
                f"logit_bias: at most {limits.logit_bias} biases are accepted", "logit_bias"
            )
        return body.n or 1

    def _check_choices(self, prompts: int, n: int) -> None:
        limit = self._config.limits.choices
        if prompts * n > limit:
            raise bad_request(
                f"{prompts} prompts x n {n} are more than {limit} completions; send fewer", "n"
            )

    def _check_logprobs(self, value: int | None, param: str) -> None:
        limit = self._config.limits.logprobs
        if value is not None and value > limit:
            raise bad_request(f"{param} must be at most {limit}", param)

    def _params(
        self, body: Sampling, text: TextSide, default_max_tokens: int, logprobs: int | None
    ) -> SamplingParams:
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
            if (value := getattr(body, name)) is not None
        }
        stops = _stops(body)
        # A stop that is a special token never shows up as text: match its id too.
        ids = [text.tokenizer.id_of(stop) for stop in stops]
        special = [i for i in ids if i is not None and i in text.tokenizer.special_ids]
        vocab = text.tokenizer.vocab_size
        return SamplingParams(
            **given,
            top_k=max(body.top_k or 0, 0),
            logit_bias=_logit_bias(body.logit_bias or {}, vocab),
            seed=body.seed,
            max_tokens=default_max_tokens if body.max_tokens is None else body.max_tokens,
            stop=tuple(stops),
            stop_token_ids=tuple(dict.fromkeys([*special, *(body.stop_token_ids or ())])),
            ignore_eos=bool(body.ignore_eos),
            logprobs=logprobs,
        )


def _prompt_list(body: CompletionBody) -> list[str | list[int]]:
    prompt = body.prompt
    if prompt is None:
        raise bad_request("prompt: required", "prompt", "invalid_value")
    if isinstance(prompt, str):
        return [prompt]
    if not prompt or any(item == [] for item in prompt):
        raise bad_request("prompt: a list must not be empty", "prompt", "invalid_value")
    if isinstance(prompt[0], int):
        return [[item for item in prompt if isinstance(item, int)]]
    return [item for item in prompt if not isinstance(item, int)]


def _encode(
    prompt: str | list[int], body: CompletionBody, model: ServedModel, text: TextSide
) -> Ids:
    tokenizer = text.tokenizer
    if isinstance(prompt, list):
        if max(prompt) >= tokenizer.vocab_size:
            raise bad_request(
                f"token id {max(prompt)} is not below the vocabulary size {tokenizer.vocab_size}",
                "prompt",
            )
        return tuple(prompt)
    if body.suffix:
        spec = model.prompt.fim
        if spec is None:
            raise bad_request(
                f"{model.ref.name} has no fill-in-the-middle markers; leave suffix out", "suffix"
            )
        return fim.encode(spec, tokenizer, prompt, body.suffix, path=body.path)
    if prompt:
        return tuple(tokenizer.encode(prompt))
    starts = [tokenizer.bos_id, *tokenizer.eos_ids]
    start = next((token for token in starts if token is not None), None)
    if start is None:
        raise bad_request("prompt: this model cannot start from an empty prompt", "prompt")
    return (start,)


def _stops(body: Sampling) -> list[str]:
    if body.stop is None:
        return []
    return [body.stop] if isinstance(body.stop, str) else body.stop


def _logit_bias(biases: dict[str, float], vocab: int) -> tuple[tuple[int, float], ...]:
    pairs = []
    for key, value in biases.items():
        if not (key.isascii() and key.isdigit() and len(key) < 10 and int(key) < vocab):
            message = f"logit_bias: {excerpt(key)!r} is no token id of this model"
            raise bad_request(message, "logit_bias")
        pairs.append((int(key), float(value)))
    return tuple(pairs)


def _message(message: ChatMessage) -> Message:
    role = "system" if message.role == "developer" else message.role
    content = message.content
    if isinstance(content, list):
        content = "\n".join(part.text for part in content)
    return Message(role, content or "")
