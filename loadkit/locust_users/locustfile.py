"""What `locust -f` loads in every process of a run: the users of the plan in $LOADKIT_WORK.

Nothing on this path imports a tokenizer, torch, transformers or datasets: text was prepared before
the run, and a torch operation before Locust forks its workers would hang them.
"""

from __future__ import annotations

from locust import events

from loadkit.locust_users.load import Load
from loadkit.locust_users.settings import WorkFolder
from loadkit.locust_users.users import PlannedUser

load = Load(WorkFolder.from_environment())
events.init.add_listener(load.on_init)

PlannedUser.load = load
