"""Pages, sorting, columns and name filters of lists, and their errors; on seven queues without traffic."""
from __future__ import annotations

from conformance.http.scenarios.scenario import VHOST, Scenario, everything_deleted, vhost_made
from conformance.http.steps import Step, get, put

V = VHOST
NAMES = ("alpha", "beta", "gamma", "delta", "order.1", "order.2", "Order.3")
LIST = f"/queues/{V}"
NAME = "columns=name&sort=name"

STEPS: tuple[Step, ...] = (
    get(f"{LIST}?{NAME}", exact=True, until={"#": 7}),
    get(f"{LIST}?{NAME}&sort_reverse=true", exact=True),
    get(f"{LIST}?{NAME}&sort_reverse=false", exact=True),
    get(f"{LIST}?columns=name&sort=arguments.x-max-length&sort_reverse=true&page=1&page_size=1", exact=True),
    get(f"{LIST}?columns=name,nothing&sort=name", exact=True),
    get(f"{LIST}?columns=nothing", exact=True),
    get(f"{LIST}?columns=", exact=True),
    get(f"{LIST}?columns=arguments.x-max-length,name&sort=name", exact=True),
    get(f"{LIST}?columns=name&sort=nothing"),
    get(f"{LIST}?columns=name&sort="),
    # Pages
    get(f"{LIST}?{NAME}&page=1", exact=True),
    get(f"{LIST}?{NAME}&page=1&page_size=3", exact=True),
    get(f"{LIST}?{NAME}&page=2&page_size=3", exact=True),
    get(f"{LIST}?{NAME}&page=3&page_size=3", exact=True),
    get(f"{LIST}?{NAME}&page=4&page_size=3"),
    get(f"{LIST}?{NAME}&page=2"),
    get(f"{LIST}?{NAME}&page=0"),
    get(f"{LIST}?{NAME}&page=-1"),
    get(f"{LIST}?{NAME}&page=x"),
    get(f"{LIST}?{NAME}&page=1.5"),
    get(f"{LIST}?{NAME}&page="),
    get(f"{LIST}?{NAME}&page=1&page_size=0"),
    get(f"{LIST}?{NAME}&page=1&page_size=-1"),
    get(f"{LIST}?{NAME}&page=1&page_size=x"),
    get(f"{LIST}?{NAME}&page=1&page_size=500", exact=True),
    get(f"{LIST}?{NAME}&page=1&page_size=501"),
    get(f"{LIST}?{NAME}&page_size=3", exact=True),
    # The name
    get(f"{LIST}?{NAME}&page=1&name=order", exact=True),
    get(f"{LIST}?{NAME}&page=1&name=ORDER.1", exact=True),
    get(f"{LIST}?{NAME}&page=1&page_size=2&name=order&use_regex=false", exact=True),
    get(f"{LIST}?{NAME}&page=1&name=order&use_regex=true", exact=True),
    get(f"{LIST}?{NAME}&page=1&name=%5Eorder%5C.%5B12%5D%24&use_regex=true", exact=True),
    get(f"{LIST}?{NAME}&page=1&name=order.*&use_regex=false", exact=True),
    get(f"{LIST}?{NAME}&page=1&name=a%24&use_regex=true", exact=True),
    get(f"{LIST}?{NAME}&page=1&name=nothing", exact=True),
    get(f"{LIST}?{NAME}&page=2&page_size=2&name=nothing"),
    get(f"{LIST}?{NAME}&page=1&name=", exact=True),
    get(f"{LIST}?{NAME}&page=1&name=(&use_regex=true"),
    get(f"{LIST}?{NAME}&page=1&name=a&use_regex=maybe"),
    get(f"{LIST}?{NAME}&name=order", exact=True),
    get(f"{LIST}?{NAME}&name=order&use_regex=true", exact=True),
    get(f"{LIST}?{NAME}&pagination=true", exact=True),
    get(f"{LIST}?{NAME}&pagination=true&name=order", exact=True),
    get(f"{LIST}?{NAME}&page=1&pagination=false", exact=True),
    # Pages of other lists
    get("/queues?page=1&page_size=2"),
    get(f"/exchanges/{V}?page=1&page_size=2&columns=name&sort=name", exact=True),
    get("/exchanges?page=1&page_size=2&name=amq&use_regex=false"),
    get("/exchanges?page=9&page_size=500"),
    get("/connections?page=1&page_size=2", exact=True),
    get("/connections?page=2&page_size=2"),
    get(f"/vhosts/{V}/connections?page=1", exact=True),
    get("/channels?page=1&page_size=2", exact=True),
    get(f"/vhosts/{V}/channels?page=1", exact=True),
    get("/consumers?page=1", exact=True),
    get("/vhosts?page=1&page_size=1&columns=name&sort=name&sort_reverse=true", exact=True),
    get("/vhosts?page=1&name=shapes&columns=name", exact=True),
    get(f"/bindings/{V}?page=1&page_size=2&columns=destination&sort=destination"),
    get("/users?page=1&page_size=1&columns=name", exact=True),
    get("/users?sort=name&columns=name", exact=True),
    get("/permissions?page=1&page_size=1&columns=user"),
    get("/policies?page=1", exact=True),
    get("/nodes?page=1&columns=name", exact=True),
    get("/parameters?page=1", exact=True),
    get("/vhosts?columns=name&sort=name", exact=True),
    get(f"/bindings/{V}?columns=destination,properties_key&sort=destination", exact=True),
    get(f"/exchanges/{V}?columns=name,type&sort=type&sort_reverse=true"),
    # Rates
    get(f"{LIST}/alpha?lengths_age=60"),
    get(f"{LIST}/alpha?lengths_incr=5"),
    get(f"{LIST}/alpha?lengths_age=x&lengths_incr=5"),
    get(f"{LIST}/alpha?lengths_age=60&lengths_incr=x"),
    get(f"{LIST}/alpha?lengths_age=60&lengths_incr=0"),
    get(f"{LIST}/alpha?lengths_age=-60&lengths_incr=5"),
    get(f"{LIST}/alpha?lengths_age=3600&lengths_incr=60"),
    get(f"{LIST}/alpha?lengths_age=86400&lengths_incr=600"),
    get(f"{LIST}/alpha?lengths_age=60&lengths_incr=7"),
    get(f"{LIST}/alpha?lengths_age=60&lengths_incr=5&columns=messages_details"),
    get(f"{LIST}/alpha?columns=name,durable,messages_details.rate"),
    get(f"{LIST}/alpha?columns=nothing", exact=True),
    get("/overview?columns=node,object_totals.queues", exact=True),
    get("/overview?lengths_age=1000000&lengths_incr=1"),
    get("/whoami?columns=name", exact=True),
    get(f"/vhosts/{V}?columns=name", exact=True),
)

SCENARIO = Scenario(
    "lists", "Pages, sorting, columns, name filters and samples, and their errors.", STEPS,
    prepare=(*vhost_made(), *(put(f"{LIST}/{name}", {"arguments": {"x-max-length": number}})
                              for number, name in enumerate(NAMES, start=1))),
    cleanup=everything_deleted())
