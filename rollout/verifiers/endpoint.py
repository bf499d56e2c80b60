"""A user's own HTTP server gives the reward.

The request is a POST of {"problem_id", "item", "reference_answer", "sample"}, signed as Standard
Webhooks: `standardwebhooks.Webhook(secret).verify(body, headers)` accepts it. One message id
covers all attempts at one verdict, so a server can tell a retry from a new sample. The reply is
{"reward": number} and nothing else.
"""

import json
import math
import secrets
from datetime import datetime, timezone
from typing import Any, Literal

from pydantic import model_validator

from rollout.types import Problem, Rollout
from rollout.verifiers.base import Grade, Grader, GraderError, UnresponsiveRewardError, sample_of
from rollout.verifiers.grader_keys import KeyName, read_key
from rollout.verifiers.http_json import HttpError, HttpUrl, Limits, post_json


class EndpointGrader(Grader):
    """Scores what the server at `url` says, within `range`."""

    type: Literal["endpoint"] = "endpoint"
    name: str = "endpoint"
    url: HttpUrl
    # The variable that holds the signing secret ("whsec_..." or base64). None: not signed.
    secret_env: KeyName | None = None
    range: tuple[float, float] = (0.0, 1.0)  # a reward outside it is an error
    limits: Limits = Limits(timeout_s=10.0, deadline_s=30.0)

    @model_validator(mode="after")
    def _is_a_range(self) -> "EndpointGrader":
        low, high = self.range
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError(f"range {list(self.range)} is no range: write [lowest, highest]")
        return self

    def _grade(self, problem: Problem, rollout: Rollout) -> Grade:
        body = json.dumps(
            {
                "problem_id": problem.id,
                "item": problem.item,
                "reference_answer": problem.reference_answer,
                "sample": sample_of(rollout),
            },
            ensure_ascii=False,
        )
        message_id = f"msg_{secrets.token_hex(12)}"
        try:
            reply = post_json(
                self.url, body.encode(), lambda attempt: self._sign(message_id, body), self.limits
            )
        except HttpError as error:
            raise UnresponsiveRewardError(str(error)) from None
        return Grade(self._read(reply))

    def _sign(self, message_id: str, body: str) -> dict[str, str]:
        if self.secret_env is None:
            return {}
        from standardwebhooks import Webhook

        now = datetime.now(timezone.utc)
        try:
            signature = Webhook(read_key(self.secret_env, self.url)).sign(message_id, now, body)
        except (ValueError, RuntimeError) as error:
            raise GraderError(f"{self.secret_env} holds no signing secret: {error}") from None
        return {
            "webhook-id": message_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": signature,
        }

    def _read(self, reply: Any) -> float:
        if not isinstance(reply, dict) or set(reply) != {"reward"}:
            raise UnresponsiveRewardError(
                f'{self.url} answered {str(reply)[:200]}; answer {{"reward": number}}'
            )
        reward = reply["reward"]
        if isinstance(reward, bool) or not isinstance(reward, int | float):
            raise UnresponsiveRewardError(f"{self.url}: the reward is {reward!r}, no number")
        low, high = self.range
        if not low <= reward <= high:
            raise UnresponsiveRewardError(
                f"{self.url}: the reward {reward} is outside [{low}, {high}]; widen the grader's "
                "`range` if that is meant"
            )
        return float(reward)
