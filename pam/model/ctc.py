r"""Warm-up of the adapters by CTC against the LLM's own token embeddings.

The features x_t that the fusion makes are scored by their cosine against the frozen embeddings E_v
of the tokens v that occur in the training text; the blank is the embedding of a space:

.. math::
    z_{t,v} = s \cos(x_t, E_v), \qquad z_{t,\varnothing} = s \cos(x_t, E_\text{space}) + c, \qquad
    \mathcal{L} = -\log p_{\mathrm{CTC}}(y \mid \mathrm{softmax}(z))

with a learned bias c. It needs no pass of the LLM, and it moves the features near the embeddings of
the LLM's own tokens. Two choices make the features useful for the LLM (egs/multitask/LOG.md):

- the scale s is fixed. A learned scale grew to 62 while the mean cosine stayed at 0.23: the LLM
  does not recognise features so far from their token;
- the blank is a space, which the LLM can skip, not a learned vector, which it has never seen. Four
  of five frames are blank.

The paper has no such warm-up. It is on at mini scale and off at paper scale.
"""

# B batch, T frames, D width of the LLM, Y target tokens, classes: the blank and V tokens

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from pam.encoders.padding import padding_mask

IGNORE = -100
SCALE = 12.0  # a token among 3000 becomes probable if its cosine is 0.7 above the others'
BLANK_BIAS = 2.0  # the bias of the blank before training
BLANK = 0  # class 0 is the blank, class i + 1 is the i-th token that occurs


class TokenEmbeddingCTC(nn.Module):
    """CTC loss of features against frozen token embeddings.

    Args:
        embeddings: the LLM's token embeddings [vocabulary, D].
        tokens: the token ids that occur in the training text.
        blank: the token whose embedding is the blank.
    """

    def __init__(self, embeddings: Float[Tensor, "all D"], tokens: Iterable[int], blank: int):
        super().__init__()
        ids = torch.tensor(sorted(set(tokens)))
        classes = torch.full((len(embeddings),), IGNORE)
        classes[ids] = torch.arange(1, len(ids) + 1)
        self.register_buffer("classes", classes, persistent=False)
        known = F.normalize(embeddings[ids].detach().float(), dim=-1)
        self.register_buffer("known", known, persistent=False)
        blank_row = F.normalize(embeddings[blank].detach().float(), dim=0)
        self.register_buffer("blank", blank_row, persistent=False)
        self.blank_bias = nn.Parameter(torch.tensor(BLANK_BIAS))

    def log_probs(self, features_BTD: Float[Tensor, "B T D"]) -> Float[Tensor, "B T classes"]:
        unit = F.normalize(features_BTD, dim=-1)
        blank = unit @ self.blank.to(unit.dtype) * SCALE + self.blank_bias
        tokens = unit @ self.known.T.to(unit.dtype) * SCALE
        logits = torch.cat([blank[..., None], tokens], dim=-1)
        return logits.float().log_softmax(-1)

    def forward(
        self,
        features_BTD: Float[Tensor, "B T D"],
        frames: Int[Tensor, " B"],
        text: Int[Tensor, "B Y"],
        text_lengths: Int[Tensor, " B"],
    ) -> Float[Tensor, " B"]:
        """The loss per target token of each utterance.

        It is 0 if a target is too long for its frames. Tokens that are not in the training text
        have no class and are left out.
        """
        real = padding_mask(text_lengths, text.shape[1])
        classes = torch.where(real, self.classes[text.clamp(min=0)], IGNORE)
        kept = classes != IGNORE
        lengths = kept.sum(1)
        losses = F.ctc_loss(
            self.log_probs(features_BTD).transpose(0, 1),
            classes[kept],
            frames,
            lengths,
            blank=BLANK,
            reduction="none",
            zero_infinity=True,
        )
        return losses / lengths.clamp(min=1)
