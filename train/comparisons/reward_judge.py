"""A reward model as a judge of answers: its reply to a conversation is the reward, as a text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from qwen_eval.model.chatml import encode_chat
from qwen_eval.model.tokenizer import load_tokenizer
from qwen_eval.types import GenerateRequest, Response

from ..scalar_model import load_scalar_model


class RewardJudge:
    """A folder of `train reward`; the reward is read at the <|im_end|> of the last answer. A
    conversation that is longer than the model knows is an error."""

    def __init__(self, folder: Path, identity: str, device: str) -> None:
        self.identity = identity
        self._model = load_scalar_model(folder).to(device).eval()
        self._tokenizer = load_tokenizer(folder)

    @torch.inference_mode()
    def ask(self, requests: Sequence[GenerateRequest]) -> Iterator[tuple[int, Response]]:
        """Each conversation by itself, so a reward does not depend on its neighbours."""
        longest = self._model.transformer.config.trained_length
        for place, request in enumerate(requests):
            turns = [(turn.role, turn.content) for turn in request.prompt.messages]
            chat = encode_chat(turns, self._tokenizer)
            ids = torch.tensor([chat.ids[: chat.spans[-1].end]])
            if ids.shape[1] > longest:
                yield place, Response(error=f"a conversation is longer than {longest} tokens")
                continue
            reward = float(self._model(ids)[0, -1])
            yield place, Response(text=repr(reward), finish_reason="stop")

    def close(self) -> None:
        """Nothing to give back before the end."""
