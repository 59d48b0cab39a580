"""Speculative decoding: cheap guesses at the next tokens, verified by the model in one step.

A step over several tokens of a sequence costs little more than a step over one, as weights are
read once. So a proposer guesses how the sequence goes on, the guesses run behind the last token
of the sequence, and the model draws a token after each of them. A guess stands while it is
what was drawn; the first other token drawn takes its place, and what follows is dropped.

Why this is exact. The token of a position is always drawn from the model's own distribution
given the tokens before it, with the random number of that position. Guesses only decide which
positions can be drawn in the same step. So the text is that of plain decoding, token for token,
greedy or sampled, and a seed means the same with and without; hence also in distribution, for
any guesses. (For a guess that is certain of one token, q one-hot, this is the rejection rule of
Leviathan et al. 2023, arXiv 2211.17192: accept with min(1, p/q) = p, else draw from what p has
left. Drawing from p and comparing accepts with p, too, and what is drawn otherwise has exactly
the distribution of the rest.) It takes a backend whose logits do not depend on how many
positions are in a step, `Backend.exact_widths`.
"""
