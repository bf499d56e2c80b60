"""Runs inside a stock client's environment: one create call, which the client repeats by itself.

With BASE_URL, API_KEY and BODY (JSON) in the environment; prints the job's id as JSON.
"""

import json
import os

from openai import OpenAI

client = OpenAI(base_url=os.environ["BASE_URL"], api_key=os.environ["API_KEY"], timeout=20)
print(json.dumps(client.fine_tuning.jobs.create(**json.loads(os.environ["BODY"])).id))
