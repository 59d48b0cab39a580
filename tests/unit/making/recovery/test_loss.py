"""The loss against plain float64 torch."""

from __future__ import annotations

import math

import pytest
import torch

from subllm.making.recovery.loss import Distillation, Head, TopK, hidden_error

N, V, H = 11, 37, 8


@pytest.fixture
def states() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Student's, teacher's, and the head, with logits of a few units."""
    generator = torch.Generator().manual_seed(7)
    student, teacher = torch.randn(2, N, H, generator=generator, dtype=torch.float64)
    return student, teacher, torch.randn(V, H, generator=generator, dtype=torch.float64)


def log_probabilities(states, weight, softcap, temperature) -> torch.Tensor:
    logits = states @ weight.T
    if softcap:
        logits = torch.tanh(logits / softcap) * softcap
    return torch.log_softmax(logits / temperature, -1)


def plain(student, log_p, weight, softcap, temperature, disagreement, outcomes=None):
    """Value, gradient, agreement; `outcomes` [n, k] are told apart from a rest."""
    student = student.clone().requires_grad_()
    log_q = log_probabilities(student, weight, softcap, temperature)
    agreed = log_q.argmax(1) == log_p.argmax(1)
    if outcomes is not None:
        log_p, log_q = (
            torch.cat(
                [
                    x.gather(1, outcomes),
                    x.scatter(1, outcomes, -torch.inf).logsumexp(1, keepdim=True),
                ],
                1,
            )
            for x in (log_p, log_q)
        )
    kl = (log_p.exp() * (log_p - log_q)).sum(1) * temperature**2
    weights = torch.where(agreed, 1.0, disagreement).double()
    mean = (kl * weights).sum() / weights.sum()
    mean.backward()
    return kl.sum().item(), mean.item(), student.grad, int(agreed.sum())


@pytest.mark.parametrize("chunk", [3, 512])
@pytest.mark.parametrize(
    ("softcap", "temperature", "disagreement"),
    [(None, 1.0, 1.0), (None, 2.0, 1.0), (3.0, 1.0, 1.0), (3.0, 1.5, 4.0)],
)
@pytest.mark.parametrize("k", [0, 5, V])
def test_value_and_gradient_equal_plain_torch(
    states, softcap, temperature, disagreement, chunk, k
) -> None:
    student, teacher, weight = states
    loss = Distillation(
        Head(weight, softcap), temperature=temperature, disagreement=disagreement, chunk=chunk
    )
    target = loss.top(teacher, k) if k else teacher
    log_p = log_probabilities(teacher, weight, softcap, temperature)
    outcomes = log_p.topk(k, 1).indices if 0 < k < V else None
    value, mean, gradient, agreed = plain(
        student, log_p, weight, softcap, temperature, disagreement, outcomes
    )
    ours = loss(student, target)
    assert ours.divergence == pytest.approx(value, rel=1e-6)
    assert ours.weighted / ours.weight == pytest.approx(mean, rel=1e-6)
    assert ours.agreed == agreed
    assert ours.tokens == N
    torch.testing.assert_close(ours.gradient, gradient, rtol=1e-6, atol=1e-9)
    assert loss(student, target, gradient=False).gradient is None


def test_a_teacher_s_top_outcomes_are_its_likeliest_and_sum_with_the_rest_to_one(states) -> None:
    _, teacher, weight = states
    top = Distillation(Head(weight)).top(teacher, 5)
    p = log_probabilities(teacher, weight, None, 1.0).exp()
    torch.testing.assert_close(top.chances, p.topk(5, 1).values)
    assert torch.equal(top.ids, p.topk(5, 1).indices)
    torch.testing.assert_close(top.chances.sum(1) + top.rest, torch.ones(N).double())


def test_the_student_s_own_distribution_is_the_minimum(states) -> None:
    student, _, weight = states
    loss = Distillation(Head(weight))
    for target in (student, loss.top(student, 5)):
        ours = loss(student, target)
        assert abs(ours.divergence) < 1e-12
        assert ours.agreed == N
        assert float(ours.gradient.abs().max()) < 1e-12


def test_what_a_bfloat16_head_rounds_is_made_good_for_the_outcomes_told_apart() -> None:
    """Large logits, where bfloat16 products are off by tenths."""
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(500, 64, generator=generator).bfloat16()
    states = (3 * torch.randn(200, 64, generator=generator)).bfloat16()
    exact = torch.log_softmax(states.double() @ weight.double().T, -1).exp()
    top = Distillation(Head(weight)).top(states, 8)
    wanted = exact.gather(1, top.ids)
    rounded = torch.softmax((states @ weight.T).double(), -1).gather(1, top.ids)
    off, ours = ((x - wanted).abs().mean() for x in (rounded, top.chances))
    assert off > 1e-3
    assert ours < 0.25 * off


def test_an_outcome_that_the_student_rules_out_gives_a_finite_loss() -> None:
    weight = torch.eye(4)
    student = torch.tensor([[200.0, 0.0, 0.0, 0.0]])
    target = TopK(torch.tensor([[1]]), torch.tensor([[0.5]]), torch.tensor([0.5]))
    ours = Distillation(Head(weight))(student, target)
    assert 90 < ours.divergence < 110
    assert bool(ours.gradient.isfinite().all())


# True next tokens: among the teacher's likeliest, not among them, unknown.
FOLLOWING = torch.tensor([0, 36, -1, 5, 17, 20, -1, 9, 30, 3, 12])


@pytest.mark.parametrize("chunk", [3, 512])
@pytest.mark.parametrize(
    ("softcap", "temperature", "disagreement"), [(None, 1.0, 1.0), (3.0, 1.5, 4.0)]
)
@pytest.mark.parametrize("k", [0, 1, 5, V])
def test_next_tokens_make_it_the_cross_entropy_of_the_mixed_distribution(
    states, softcap, temperature, disagreement, chunk, k
) -> None:
    """Plain soft cross entropy; of k outcomes, the teacher's rest is spread as the student's is,
    which neither adds to the divergence nor to the gradient."""
    share = 0.3
    student, teacher, weight = states
    loss = Distillation(
        Head(weight, softcap), temperature=temperature, disagreement=disagreement,
        next_token=share, chunk=chunk,
    )  # fmt: skip
    target = loss.top(teacher, k) if k else teacher
    ours = loss(student, target, FOLLOWING)

    log_p = log_probabilities(teacher, weight, softcap, temperature)
    given = student.clone().requires_grad_()
    log_q = log_probabilities(given, weight, softcap, temperature)
    p = log_p.exp()
    if k:
        best = p.topk(k, 1)
        rest = log_q.detach().exp().scatter(1, best.indices, 0.0)
        left = 1 - best.values.sum(1, keepdim=True)
        spread = rest / rest.sum(1, keepdim=True) * left if k < V else rest
        p = spread.scatter(1, best.indices, best.values)
    known = FOLLOWING >= 0
    own = torch.nn.functional.one_hot(FOLLOWING.clamp_min(0), V).double()
    mixed = torch.where(known[:, None], (1 - share) * p + share * own, p)
    agreed = log_q.argmax(1) == log_p.argmax(1)
    weights = torch.where(agreed, 1.0, disagreement).double()
    entropy = -(mixed * log_q).sum(1) * temperature**2
    ((entropy * weights).sum() / weights.sum()).backward()
    torch.testing.assert_close(ours.gradient, given.grad, rtol=1e-6, atol=1e-9)

    # The value is the entropy less what does not depend on the student.
    nll = -log_q[known].gather(1, FOLLOWING[known, None]).sum().item()
    constant = torch.xlogy(p, p).sum(1) * torch.where(known, 1 - share, 1.0) * temperature**2
    wanted = ((entropy + constant) * weights).sum() / weights.sum()
    assert ours.weighted / ours.weight == pytest.approx(wanted.item(), rel=1e-6)
    assert ours.nll == pytest.approx(nll, rel=1e-6)
    assert ours.labelled == int(known.sum()) == 9
    # What is told of the teacher is told as without next tokens.
    plain = Distillation(Head(weight, softcap), temperature=temperature)(student, target)
    assert ours.divergence == pytest.approx(plain.divergence, rel=1e-9)
    assert ours.agreed == plain.agreed


def test_next_tokens_by_hand() -> None:
    """A student that knows nothing of four outcomes, q = 1/4; the teacher has one of them at
    0.6, the next token is another, share a half."""
    target = TopK(torch.tensor([[2]]), torch.tensor([[0.6]]).double(), torch.tensor([0.4]).double())
    loss = Distillation(Head(torch.eye(4, dtype=torch.float64)), next_token=0.5)
    student = torch.zeros(1, 4, dtype=torch.float64)
    ours = loss(student, target, torch.tensor([1]))
    # Of the first 0.3 and of the rest (0.4) a third each, 0.2 / 3; and 0.5 more of the next.
    mixed = [0.2 / 3, 0.2 / 3 + 0.5, 0.3, 0.2 / 3]
    torch.testing.assert_close(ours.gradient[0], 0.25 - torch.tensor(mixed).double())
    kl = 0.6 * math.log(0.6 / 0.25) + 0.4 * math.log(0.4 / 0.75)
    assert ours.divergence == pytest.approx(kl)
    assert ours.nll == pytest.approx(math.log(4))
    assert ours.weighted == pytest.approx(0.5 * kl + 0.5 * math.log(4))
    unknown = loss(student, target, torch.tensor([-1]))
    assert (unknown.nll, unknown.labelled) == (0.0, 0)
    assert unknown.weighted == pytest.approx(kl)


def test_a_bfloat16_head_s_next_tokens_are_exact() -> None:
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(500, 64, generator=generator).bfloat16()
    states = (3 * torch.randn(200, 64, generator=generator)).bfloat16()
    following = torch.randint(0, 500, (200,), generator=generator)
    exact = torch.log_softmax(states.double() @ weight.double().T, -1)
    loss = Distillation(Head(weight), next_token=0.5)
    ours = loss(states, loss.top(states, 8), following)
    wanted = -exact.gather(1, following[:, None]).sum().item()
    assert ours.nll == pytest.approx(wanted, rel=1e-4)


def test_the_error_of_states_is_relative_to_the_teacher_s() -> None:
    generator = torch.Generator().manual_seed(0)
    ours = torch.randn(5, 7, dtype=torch.float64, generator=generator).requires_grad_()
    theirs = torch.randn(5, 7, dtype=torch.float64, generator=generator)
    expected = ((ours - theirs).square().sum(1) / theirs.square().sum(1)).mean()
    expected.backward()
    error, gradient = hidden_error(ours.detach(), theirs)
    assert error == pytest.approx(expected.item())
    torch.testing.assert_close(gradient, ours.grad)
    assert hidden_error(theirs, theirs)[0] == 0
