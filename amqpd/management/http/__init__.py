"""The management API over HTTP: RabbitMQ's paths, fields, status codes and error bodies.

    application.py   one request: login, rights, the handler, the answer
    routes.py        the table of routes, and how a path finds its route
    access.py        what a user's tags allow
    request.py       a request as handlers see it
    answers.py       answers, and errors that handlers raise
    lists.py         pages, sorting, columns and filters of lists
    openapi.py       the description of the routes
    context.py       what handlers need of the broker and the server

The other modules have the handlers, by subject; each ends with its routes.

RabbitMQ docs/management, docs/http-api-reference.
"""
